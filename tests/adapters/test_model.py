import pytest
import torch

from isaerft.adapters.model import Residual

ROWS = torch.arange(4)


@pytest.fixture
def batch(cached):
    return cached[1].batch(ROWS)


@pytest.mark.parametrize("options", [{}, {"rank": 2, "bias": True}, {"rank": 0, "bias": True}])
def test_a_new_residual_adapter_is_the_identity_bit_for_bit(subject, batch, options):
    with Residual.on(subject, options, 0) as adapter:
        assert torch.equal(adapter.adapted(subject, batch), batch.residual)
        assert options.get("rank") == 0 or adapter.down.any(), "else no gradient ever reaches B"


def test_a_residual_adapters_gradients_are_those_of_finite_differences(subject, batch):
    with Residual.on(subject, {"rank": 2, "bias": True}, 0) as adapter:
        adapter.double()
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(5, adapter.down.shape[1], generator=generator, dtype=torch.float64, requires_grad=True)
        parameters = [p.detach() + 0.1 * torch.randn(p.shape, generator=generator) for p in adapter.parameters()]
        names = [name for name, _ in adapter.named_parameters()]

        def run(x, *values):
            return torch.func.functional_call(adapter, dict(zip(names, values, strict=True)), (x,))

        assert torch.autograd.gradcheck(run, (x, *[p.requires_grad_(True) for p in parameters]))


def test_a_residual_adapter_adds_b_a_x_and_c(subject, batch):
    with Residual.on(subject, {"rank": 2, "bias": True}, 3) as adapter, torch.no_grad():
        adapter.up.normal_(generator=torch.Generator().manual_seed(0))
        adapter.bias.fill_(0.5)
        expected = batch.residual + batch.residual @ (adapter.up @ adapter.down).T + 0.5
        torch.testing.assert_close(adapter.adapted(subject, batch), expected)


def test_seeds_start_residual_adapters_apart(subject):
    drawn = []
    for seed in (0, 0, 1):
        with Residual.on(subject, {}, seed) as adapter:
            drawn.append(adapter.down.detach().clone())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
