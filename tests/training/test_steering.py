"""Steering baselines: what they are fitted to, what they find, how far they steer."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from isaerft import config
from isaerft.adapters.base import adapted, make_adapter
from isaerft.adapters.baselines import completion_means
from isaerft.changes.measures import attribution, contribution, parameter
from isaerft.changes.pullback import Trained
from isaerft.errors import InputError
from isaerft.subjects.dictionary import Codes
from isaerft.training.loop import heldout_loss
from isaerft.training.steering import STRENGTHS, fit_steering, score_steering

PLANTED, ABSENT = 5, 9


KINDS = ["mean_difference", "probe"]


OPTIONS = config.Adapter()


def completion_tokens(rows):
    """Which tokens of a cache belong to a completion, said the slow way."""
    inside = torch.zeros(len(rows.tokens), dtype=torch.bool)
    for row in range(len(rows)):
        for token in range(int(rows.starts[row]) + 1, int(rows.starts[row + 1])):
            inside[token] = rows.predicts[token - 1]
    return inside


def changed(rows, change):
    """The same rows with other activations; `change` gets the dense activations and which tokens are completions."""
    dense = rows.codes.dense().clone()
    change(dense, completion_tokens(rows))
    return replace(rows, codes=Codes.from_dense(dense))


def plant(dense, inside):
    dense[inside, PLANTED] += 2.0
    dense[inside, ABSENT] = 0.0


def unplant(dense, inside):
    dense[inside, PLANTED] = 0.0
    dense[inside, ABSENT] += 1.0
    dense[~inside, 7] += 50.0


@pytest.fixture
def behavior(cached):
    return tuple(changed(rows, plant) for rows in cached)


@pytest.fixture
def contrast(cached):
    return tuple(changed(rows, unplant) for rows in cached)


@pytest.fixture
def fitted(subject, behavior, contrast):
    """Fit a baseline and give it with the strength that was chosen."""

    def make(kind, *, seed=0, train=behavior[0], others=(contrast[0],), options=None, on=subject, **more):
        adapter = make_adapter(kind, on.dictionary.d_sae, options or {})
        strength = fit_steering(on, adapter, train, others, replace(OPTIONS, **more), seed=seed, batch_size=5)
        return adapter, strength

    return make


def test_a_texts_activation_is_the_mean_over_its_completions_tokens_alone(cached):
    rows = cached[0]
    dense, inside = rows.codes.dense(), completion_tokens(rows)
    chosen = torch.tensor([7, 0, 3])
    expected = []
    for row in chosen:
        own = torch.zeros(len(rows.tokens), dtype=torch.bool)
        own[rows.starts[row] : rows.starts[row + 1]] = True
        expected.append(dense[own & inside].mean(0))
    found = torch.from_numpy(completion_means(rows, chosen).toarray())
    torch.testing.assert_close(found, torch.stack(expected).double(), atol=1e-6, rtol=1e-5)


def test_a_mean_difference_is_the_difference_of_means(fitted, behavior, contrast):
    adapter, _ = fitted("mean_difference", subsample=1.0)
    means = [completion_means(rows, torch.arange(len(rows))).toarray().mean(0) for rows in (behavior[0], contrast[0])]
    np.testing.assert_allclose(adapter.latent_parameter().numpy(), means[0] - means[1], atol=1e-5)
    assert adapter.latent_parameter()[7] == 0, "tokens of the prompt play no role"


@pytest.mark.parametrize("kind", KINDS)
def test_baselines_find_the_latents_that_tell_the_texts_apart(subject, fitted, behavior, contrast, kind):
    adapter, _ = fitted(kind)
    found = adapter.latent_parameter()
    assert set(found.abs().topk(2).indices.tolist()) == {PLANTED, ABSENT}
    assert found[PLANTED] > 0 > found[ABSENT]
    others = [latent for latent in range(adapter.d_sae) if latent not in (PLANTED, ABSENT)]
    assert found[others].abs().max() < 0.3 * found[ABSENT].abs()
    held = score_steering(adapter, behavior[1], [contrast[1]])
    assert held["heldout_auroc"] == 1.0
    assert held["heldout_accuracy"] == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_baseline_between_texts_alike_is_no_better_than_chance(fitted, cached, kind):
    adapter, _ = fitted(kind, train=cached[0], others=(cached[0],), subsample=1.0)
    assert float(adapter.latent_parameter().abs().max()) < 1e-4
    held = score_steering(adapter, cached[1], [cached[1]])
    assert held["heldout_auroc"] == pytest.approx(0.5)
    assert held["heldout_accuracy"] == pytest.approx(0.5)


def test_a_heavier_penalty_makes_smaller_weights(fitted):
    weights = [float(fitted("probe", options={"regularization": w})[0].direction.norm()) for w in (0.001, 0.1, 10.0)]
    assert weights[0] > 2 * weights[1] > 4 * weights[2]
    for wrong in (0, -1, "much", True):
        with pytest.raises(InputError, match="regularization"):
            fitted("probe", options={"regularization": wrong})


def test_the_probe_does_not_depend_on_the_scale_of_the_activations(fitted, behavior, contrast):
    """Ten times the activations need a tenth of the weights for the same log-odds."""
    own, _ = fitted("probe")
    larger = [
        replace(rows, codes=replace(rows.codes, values=10 * rows.codes.values)) for rows in (behavior[0], contrast[0])
    ]
    other, _ = fitted("probe", train=larger[0], others=(larger[1],))
    torch.testing.assert_close(10 * other.direction, own.direction, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_length_is_the_one_of_all_tried_with_the_lowest_training_loss(subject, fitted, behavior, kind):
    adapter, strength = fitted(kind, subsample=1.0)
    kept = behavior[0]
    found = float(adapter.length)

    def loss():
        return heldout_loss(subject, lambda batch: adapted(subject.dictionary, adapter, batch), kept, 5)

    best = loss()
    losses = {}
    for other in STRENGTHS:
        adapter.length.fill_(found / strength * other)
        losses[other] = loss()
    assert best == pytest.approx(losses[strength], rel=1e-5)
    assert best == pytest.approx(min(losses.values()), rel=1e-5)
    pushed = float((found * adapter.direction @ subject.dictionary.W_dec).norm())
    norm = torch.cat([batch.residual[batch.predicts].norm(dim=1) for batch in kept.batches(5)]).mean()
    assert pushed == pytest.approx(strength * float(norm), rel=1e-4)


def test_every_measure_applies_to_a_baseline(subject, fitted, behavior):
    adapter, _ = fitted("mean_difference")
    trained = Trained(subject, adapter, behavior[1], 3)
    assert torch.equal(parameter(trained), adapter.direction)
    constant = adapter.length * adapter.direction
    torch.testing.assert_close(contribution(trained), constant * subject.dictionary.decoder_norm, rtol=1e-4, atol=1e-6)
    before = heldout_loss(subject, lambda batch: batch.residual, behavior[1], 3)
    after = heldout_loss(subject, lambda batch: adapted(subject.dictionary, adapter, batch), behavior[1], 3)
    assert float(attribution(trained).sum()) == pytest.approx(before - after, rel=1e-2, abs=1e-4)


def test_seeds_fit_different_rows_and_always_the_same(fitted):
    once, again, other = (fitted("mean_difference", seed=seed, subsample=0.5)[0].direction for seed in (0, 0, 1))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_a_random_dictionary_keeps_the_direction_and_finds_its_own_length(subject, fitted):
    twin = subject.with_random_dictionary(3)
    own, _ = fitted("mean_difference")
    other, _ = fitted("mean_difference", on=twin)
    assert torch.equal(own.direction, other.direction)
    assert float(own.length) != float(other.length)


def test_a_direction_that_reaches_nothing_is_not_steered_along(fitted, cached):
    adapter, strength = fitted("mean_difference", train=cached[0], others=(cached[0],), subsample=1.0)
    assert not adapter.direction.any()
    assert strength == 0
    assert float(adapter.length) == 0
