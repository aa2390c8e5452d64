import pytest
import torch

from isaerft.adapters.base import make_adapter
from isaerft.adapters.shift import Shift
from isaerft.subjects.codes import Codes


@pytest.mark.parametrize("weights", [None, torch.tensor([0.0, 1, -2])])
def test_the_parts_of_a_shift_add_up(weights):
    codes = Codes.from_dense(torch.tensor([[1.0, 0, 2], [0, 0, 3]]))
    decoder = torch.tensor([[1.0, 0], [0, 1], [1, 1]])
    constant, entries, dense = torch.tensor([1.0, 0, 0]), torch.tensor([10.0, 20, 30]), torch.full((2, 3), 0.5)
    factors = torch.tensor([[2.0], [1.0]]), torch.tensor([[3.0, 0, -1]])
    shift = Shift(codes, constant, entries, dense, factors)
    delta = dense + constant + torch.tensor([[10.0, 0, 20], [0, 0, 30]]) + factors[0] @ factors[1]
    if weights is not None:
        shift, delta = shift.weighted(weights), delta * weights
    assert torch.equal(shift.total(), delta.sum(0))
    assert torch.equal(shift.residual(decoder), delta @ decoder)
    direction = torch.tensor([[1.0, 2], [3, 4]])
    assert torch.equal(shift.against(decoder, direction), (delta * (direction @ decoder.T)).sum(0))


def test_latents_set_back_change_nothing_whatever_the_form_of_the_change():
    generator = torch.Generator().manual_seed(1)
    dense = torch.relu(torch.randn(6, 8, generator=generator) - 0.2)
    codes = Codes.from_dense(dense)
    constant, change = torch.randn(8, generator=generator), torch.randn(6, 8, generator=generator)
    entries = torch.randn(len(codes.values), generator=generator)
    at_active = torch.zeros(6, 8).index_put((codes.tokens(), codes.indices), entries)
    decoder = torch.randn(8, 5, generator=generator)
    latents = torch.tensor([0, 3, 7])
    assert set(latents.tolist()) & set(codes.indices.tolist()), "some of them are active"
    for parts in ({"constant": constant}, {"entries": entries}, {"dense": change}):
        whole = {"constant": 0, "entries": 0, "dense": 0} | parts
        delta = whole["constant"] + whole["dense"] + (at_active if "entries" in parts else 0)
        delta = (torch.zeros(6, 8) + delta).index_fill(1, latents, 0)
        without = Shift(codes, **parts).without(latents)
        torch.testing.assert_close(without.residual(decoder), delta @ decoder)
        torch.testing.assert_close(without.total(), delta.sum(0))
        assert torch.equal(without.total()[latents], torch.zeros(3))


def test_both_bounds_hold_together():
    adapter = make_adapter("bias", 4, {"nonnegative": True, "clamp": 2})
    with torch.no_grad():
        adapter.bias.copy_(torch.tensor([-1.0, 5, 0.5, -9]))
    dense = torch.tensor([[0.5, 0.5, 0.5, 3], [3, 3, 3, 3]])
    assert torch.equal(adapter(dense), torch.tensor([[0.0, 2, 1, 0], [2, 3, 3, 0]]))
