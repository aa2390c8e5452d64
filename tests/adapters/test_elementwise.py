import pytest
import torch

from isaerft.adapters.base import make_adapter


def test_lerp_moves_its_share_first_and_its_target_next():
    adapter = make_adapter("lerp", 3, {"target": 2.0})
    dense = torch.tensor([[0.0, 2, 5]])
    adapter(dense).sum().backward()
    assert adapter.weight.grad.tolist() == [2.0, 0, -3]
    assert not adapter.target.grad.any()
    with torch.no_grad():
        adapter.weight.fill_(0.5)
    assert torch.equal(adapter(dense), torch.tensor([[1.0, 2, 3.5]]))
    adapter.target.grad = None
    adapter(dense).sum().backward()
    assert adapter.target.grad.tolist() == [0.5] * 3


def test_lerps_number_has_the_sign_of_the_push_though_the_target_stays_at_one():
    adapter = make_adapter("lerp", 2, {})
    with torch.no_grad():
        adapter.weight.copy_(torch.tensor([0.25, -0.25]))
        adapter.target.copy_(torch.tensor([0.8, 1.0]))
    assert adapter.latent_parameter().tolist() == pytest.approx([0.2, -0.25])
