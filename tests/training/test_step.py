import math
from dataclasses import replace

import pytest
import torch

from isaerft import config
from isaerft.adapters.base import adapted, make_adapter
from isaerft.errors import InputError
from isaerft.registry import OBJECTIVES
from isaerft.training.loop import add_gradients, train
from isaerft.training.objectives import PreferenceRows, make_objective


@pytest.fixture
def adapter(subject):
    adapter = make_adapter("affine", subject.dictionary.d_sae, {})
    with torch.no_grad():
        adapter.bias[2] = 0.5
    return adapter


@pytest.fixture
def adapt(subject, adapter):
    return lambda batch: adapted(subject.dictionary, adapter, batch)


def gradients(subject, rows, adapter, adapt, cuts, objective=None):
    adapter.zero_grad()
    parts = [rows.batch(part) for part in torch.arange(len(rows)).tensor_split(cuts)]
    loss = add_gradients(subject, objective or OBJECTIVES["sft"], adapt, parts)
    return loss, [parameter.grad.clone() for parameter in adapter.parameters()]


@pytest.mark.parametrize("cuts", [[1], [2, 3, 9], list(range(1, 12))])
def test_the_gradient_of_a_step_does_not_depend_on_how_its_rows_are_cut(subject, cached, adapter, adapt, cuts):
    """The rows' completions differ in length, so a mean of the parts' means would be another number."""
    loss, whole = gradients(subject, cached[0], adapter, adapt, [])
    loss_in_parts, parts = gradients(subject, cached[0], adapter, adapt, cuts)
    assert loss_in_parts == pytest.approx(loss, rel=1e-5)
    for one, other in zip(parts, whole, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
        assert one.any()
    batch = cached[0].batch(torch.arange(len(cached[0])))
    assert loss == pytest.approx(float(OBJECTIVES["sft"](subject, batch, adapt(batch)).detach()))


def test_a_step_on_pairs_does_not_depend_on_how_they_are_cut(subject, cached, adapter, adapt):
    replies = replace(cached[0], residual=cached[0].residual.flip(0))
    pairs = PreferenceRows(cached[0], replies, torch.linspace(-9, -5, 2 * len(replies)).view(-1, 2))
    objective = make_objective(config.Adapter(objective="dpo"))
    _, whole = gradients(subject, pairs, adapter, adapt, [], objective)
    _, parts = gradients(subject, pairs, adapter, adapt, [2, 3, 9], objective)
    for one, other in zip(parts, whole, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
        assert one.any()


def test_accumulation_takes_the_same_steps_with_fewer_rows_at_a_time(subject, cached):
    biases, sizes = [], []
    for n in (1, 3):
        adapter = make_adapter("bias", subject.dictionary.d_sae, {})

        def adapt(batch, adapter=adapter):
            if torch.is_grad_enabled():
                sizes.append(len(batch.mask))
            return adapted(subject.dictionary, adapter, batch)

        options = config.Adapter(
            learning_rate=0.3, steps=4, batch_size=6, subsample=1, evaluate_every=4, gradient_accumulation=n
        )
        result = train(subject, adapter, adapt, *cached, options, seed=0, batch_size=4)
        assert (result.steps, result.best_step) == (4, 4)
        biases.append(adapter.bias.detach())
    assert sizes == [6] * 4 + [2] * 12
    torch.testing.assert_close(*biases, atol=1e-5, rtol=1e-5)


def test_a_loss_that_is_not_finite_stops_at_its_own_step_and_not_at_the_next_evaluation(subject, cached):
    calls = []

    @OBJECTIVES("breaks_early")
    def breaks(subject, batch, residual):
        calls.extend([1] if torch.is_grad_enabled() else [])
        return OBJECTIVES["sft"](subject, batch, residual) * (math.inf if len(calls) == 4 else 1)

    adapter = make_adapter("bias", subject.dictionary.d_sae, {})
    try:
        options = config.Adapter(objective="breaks_early", learning_rate=0.1, steps=50, evaluate_every=50)
        with pytest.raises(InputError, match=r"toy: loss is inf at step 4; lower the adapter's learning_rate"):
            train(
                subject,
                adapter,
                lambda batch: adapted(subject.dictionary, adapter, batch),
                *cached,
                options,
                seed=0,
                batch_size=4,
                description="toy",
            )
    finally:
        del OBJECTIVES._parts["breaks_early"]
    assert len(calls) == 4
    assert adapter.bias.isfinite().all()
