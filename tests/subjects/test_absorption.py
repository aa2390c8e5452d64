"""Absorbed latents and their absorbers, in dictionaries whose latents are set by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from isaerft.subjects import absorption
from isaerft.subjects.absorption import NOBODY, find_absorbers, standing_out
from isaerft.subjects.dictionary import Dictionary

N, PARENT, CHILD, TWIN = 40, 3, 11, 20


@pytest.fixture
def dictionary():
    """Make CHILD write PARENT's direction, too, and PARENT stay silent on it; TWIN overlaps evenly."""
    noise = torch.randn(N, N, generator=torch.Generator().manual_seed(0))
    writes = torch.eye(N) + 0.02 * noise
    reads = torch.eye(N) + 0.02 * noise.T
    writes[CHILD] += torch.eye(N)[PARENT]
    reads[PARENT] -= 1.5 * torch.eye(N)[CHILD]
    writes[TWIN] += 0.5 * torch.eye(N)[TWIN + 1]
    writes[TWIN + 1] += 0.5 * torch.eye(N)[TWIN]
    return Dictionary(
        W_enc=reads.T,
        b_enc=torch.zeros(N),
        W_dec=writes,
        b_dec=torch.zeros(N),
        threshold=None,
        gate=None,
        k=None,
        apply_b_dec_to_input=True,
        center=False,
        hook_name="",
        neuronpedia_id="",
    )


def test_the_absorbed_latent_stands_out_and_its_absorber_is_named(dictionary):
    latents, cosines, scores = find_absorbers(dictionary, np.ones(N, bool))
    assert scores.argmax() == PARENT
    assert latents[PARENT] == CHILD
    direction = torch.nn.functional.normalize(dictionary.W_dec, dim=1)
    assert cosines[PARENT] == pytest.approx(float(direction[PARENT] @ direction[CHILD]), abs=1e-6)
    assert scores[PARENT] > 2 * np.delete(scores, PARENT).max()


def test_the_absorber_is_not_called_absorbed(dictionary):
    scores = find_absorbers(dictionary, np.ones(N, bool)).scores
    assert scores[CHILD] < np.quantile(scores, 0.9)


def test_scores_are_those_of_the_formula(dictionary):
    reads = torch.nn.functional.normalize(dictionary.W_enc.T, dim=1).double().numpy()
    writes = torch.nn.functional.normalize(dictionary.W_dec, dim=1).double().numpy()
    pair = np.array(
        [
            [max(0, writes[i] @ writes[j]) * (reads[j] @ writes[i] - reads[i] @ writes[j]) for j in range(N)]
            for i in range(N)
        ]
    )
    np.fill_diagonal(pair, -np.inf)
    found = find_absorbers(dictionary, np.ones(N, bool))
    assert found.latents.tolist() == pair.argmax(1).tolist()
    np.testing.assert_allclose(found.scores, standing_out(pair.max(1)), rtol=1e-3, atol=1e-3)


def test_scales_of_encoder_and_decoder_do_not_count(dictionary):
    scale = torch.linspace(0.1, 10, N)
    scaled = replace(dictionary, W_enc=dictionary.W_enc * scale, W_dec=dictionary.W_dec / scale[:, None])
    alive = np.ones(N, bool)
    np.testing.assert_allclose(
        find_absorbers(scaled, alive).scores, find_absorbers(dictionary, alive).scores, rtol=1e-3, atol=1e-3
    )


def test_latents_that_never_fire_absorb_nothing_and_have_no_score(dictionary):
    alive = np.ones(N, bool)
    alive[CHILD] = False
    found = find_absorbers(dictionary, alive)
    assert found.latents[CHILD] == NOBODY
    assert np.isnan(found.scores[CHILD])
    assert CHILD not in found.latents
    assert found.scores[PARENT] < 5
    assert (find_absorbers(dictionary, np.zeros(N, bool)).latents == NOBODY).all()


def test_a_transcoder_has_none(dictionary):
    found = find_absorbers(replace(dictionary, hook_name_out="blocks.0.hook_mlp_out"), np.ones(N, bool))
    assert (found.latents == NOBODY).all()
    assert np.isnan(found.scores).all()


def test_absorbers_do_not_depend_on_the_block_size(dictionary, monkeypatch):
    whole = find_absorbers(dictionary, np.ones(N, bool))
    monkeypatch.setattr(absorption, "BLOCK", 7)
    parts = find_absorbers(dictionary, np.ones(N, bool))
    np.testing.assert_array_equal(parts.latents, whole.latents)
    np.testing.assert_allclose(parts.scores, whole.scores, rtol=1e-4, atol=1e-4)


def test_a_normal_sample_stands_out_by_its_standard_deviation():
    values = np.random.default_rng(0).normal(5, 2, 100_000)
    found = standing_out(values)
    assert found.std() == pytest.approx(1, abs=0.02)
    assert np.median(found) == pytest.approx(0, abs=1e-9)
    assert (standing_out(np.full(5, 3.0)) == 0).all()
