from dataclasses import replace

import pytest
import torch
from torch import nn

from isaerft import config
from isaerft.adapters.base import LatentAdapter, adapted, make_adapter
from isaerft.adapters.shift import Shift
from isaerft.errors import InputError
from isaerft.registry import OBJECTIVES
from isaerft.training.loop import Optimizer, train
from isaerft.training.row_space import RowSpace, constant_parameter, trainable

N_STEPS = 6


def values(adapter):
    return {name: parameter.detach().clone() for name, parameter in adapter.named_parameters()}


def moved(adapter, latent=3):
    """The adapter at a start other than the identity."""
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter[latent] = 0.3
    return adapter


def steps_of(subject, rows, module, adapt, options):
    """Train on all rows and return each step's residual stream."""
    batch, optimizer, seen = rows.batch(torch.arange(len(rows))), Optimizer(module, options), []
    for _ in range(N_STEPS):
        optimizer.clear()
        residual = adapt(batch)
        seen.append(residual.detach().clone())
        OBJECTIVES["sft"](subject, batch, residual).backward()
        optimizer.step()
    return torch.stack(seen)


@pytest.mark.parametrize("kind", ["bias", "affine"])
@pytest.mark.parametrize("start", [lambda adapter: adapter, moved], ids=["identity", "elsewhere"])
def test_training_the_coordinates_is_plain_sgd_on_the_constant_step_for_step(subject, cached, kind, start):
    options = config.Adapter(learning_rate=0.3, momentum=0.9)
    d_sae = subject.dictionary.d_sae
    plain, other = (start(make_adapter(kind, d_sae, {})) for _ in range(2))
    expected = steps_of(subject, cached[0], plain, lambda batch: adapted(subject, plain, batch), options)
    with trainable(other, subject, options) as (module, adapt):
        assert isinstance(module, RowSpace)
        found = steps_of(subject, cached[0], module, adapt, options)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert (expected[-1] - expected[0]).abs().max() > 0.1
    for name, value in values(plain).items():
        torch.testing.assert_close(values(other)[name], value, atol=1e-5, rtol=1e-5)
    assert all(parameter.requires_grad for parameter in other.parameters())


def test_a_step_on_the_coordinates_has_no_tensor_as_long_as_the_dictionary(subject, cached):
    """The work of a step must not follow d_sae: neither the module's trained numbers nor any tensor made is so long."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Longest(TorchDispatchMode):
        longest = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for part in out if isinstance(out, tuple | list) else [out]:
                if isinstance(part, torch.Tensor):
                    self.longest = max(self.longest, *part.shape, 0)
            return out

    d_sae = 100_000
    decoder = torch.randn(d_sae, subject.dictionary.d_in, generator=torch.Generator().manual_seed(0))
    adapter = make_adapter("bias", d_sae, {})
    wide = replace(subject, dictionary=replace(subject.dictionary, W_dec=decoder))
    module = RowSpace(adapter, adapter.bias, wide)
    optimizer = Optimizer(module, config.Adapter())
    batch = cached[0].batch(torch.arange(2))
    with Longest() as seen:
        OBJECTIVES["sft"](subject, batch, module(batch)).backward()
        optimizer.step()
        optimizer.clear()
    assert 0 < seen.longest < d_sae
    module.write_back()
    assert adapter.bias.detach().any()


def test_early_stopping_hands_back_the_constant_of_the_best_step(subject, cached):
    adapters = [make_adapter("bias", subject.dictionary.d_sae, {}) for _ in range(2)]
    options = config.Adapter(learning_rate=0.4, steps=12, evaluate_every=2, patience=2, batch_size=4)
    with trainable(adapters[0], subject, options) as (module, adapt):
        one = train(subject, module, adapt, *cached, options, seed=0, batch_size=4)
    plain = adapters[1]
    two = train(subject, plain, lambda b: adapted(subject, plain, b), *cached, options, seed=0, batch_size=4)
    assert (one.best_step, one.steps) == (two.best_step, two.steps)
    assert one.best_step > 0
    assert one.heldout_loss_adapted == pytest.approx(two.heldout_loss_adapted, rel=1e-5)
    torch.testing.assert_close(adapters[0].bias, plain.bias, atol=1e-5, rtol=1e-5)


def test_an_error_in_training_still_hands_the_parameter_back(subject):
    adapter = make_adapter("bias", subject.dictionary.d_sae, {})
    with pytest.raises(InputError), trainable(adapter, subject, config.Adapter()):
        raise InputError("stop")
    assert adapter.bias.requires_grad


@pytest.mark.parametrize(
    ("kind", "options", "found"),
    [
        ("bias", {}, "bias"),
        ("affine", {}, "bias"),
        ("scale", {}, None),
        ("lerp", {}, None),
        ("low_rank", {}, None),
        ("bias", {"nonnegative": True}, None),
    ],
)
def test_only_a_bare_constant_is_trained_so(subject, kind, options, found):
    adapter = make_adapter(kind, subject.dictionary.d_sae, options)
    expected = None if found is None else getattr(adapter, found)
    assert constant_parameter(adapter) is expected
    adam = config.Adapter(optimizer="adam")
    with trainable(adapter, subject, adam) as (module, _):
        assert module is adapter


def test_a_constant_that_also_enters_elsewhere_is_not_trained_so():
    class Twice(LatentAdapter):
        kind = "twice"

        def __init__(self, d_sae):
            super().__init__(d_sae)
            self.bias = nn.Parameter(torch.zeros(d_sae))

        def shift(self, codes):
            return Shift(codes, constant=self.bias, entries=codes.values * self.bias[codes.indices])

    assert constant_parameter(Twice(5)) is None
