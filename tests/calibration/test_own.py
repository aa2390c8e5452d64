"""A study's own false-positive rates: random directions through its dictionary."""

import numpy as np
import pytest

from isaerft.calibration.nulls import Evidence, results_of
from isaerft.calibration.own import Directions, directions_of, own_rows
from isaerft.stats import strata_of
from isaerft.stats.checks import NullOptions

N, D, B = 240, 12, 6
N_DRAWS = 40


def dictionary(rng):
    """Return decoder rows (N, D) in concepts of 8 latents, and each latent's concept."""
    concepts = np.repeat(np.arange(N // 8), 8)
    return rng.normal(size=(N // 8, D))[concepts] + rng.normal(size=(N, D)), concepts


@pytest.fixture(scope="module")
def study():
    rng = np.random.default_rng(0)
    decoder, concepts = dictionary(rng)
    expected = np.array([np.isin(concepts, rng.choice(N // 8, 3, replace=False)) for _ in range(B)])
    confounds = rng.normal(size=(1, N))
    groups = NullOptions(strata=strata_of(*confounds, n_bins=2), clusters=np.arange(N), confounds=confounds)
    directions = directions_of(decoder, rng.uniform(size=N), np.arange(N), n_seeds=2)
    changes = directions["isotropic"].changes(B, rng)
    return Evidence(changes, np.empty((0, N)), expected, concepts, groups), directions


def test_a_change_is_the_product_of_a_direction_and_the_decoder_row_by_its_length():
    rng = np.random.default_rng(1)
    decoder, _ = dictionary(rng)
    found = directions_of(decoder, rng.uniform(size=N), np.arange(0, N, 2), n_seeds=3)
    lengths = np.linalg.norm(decoder, axis=1, keepdims=True)
    assert np.allclose(found["isotropic"].rows, (decoder * lengths)[::2])


def test_directions_have_the_covariance_of_the_reconstructed_residual_stream():
    rng = np.random.default_rng(2)
    decoder, _ = dictionary(rng)
    power = np.zeros(N)
    power[:3] = 1.0
    rows = directions_of(decoder, power, np.arange(N), n_seeds=2)["residual_covariance"].rows
    assert np.linalg.matrix_rank(rows, tol=1e-5) == 3
    scaled = decoder * np.linalg.norm(decoder, axis=1, keepdims=True)
    assert np.allclose(rows @ rows.T, scaled @ (decoder[:3].T @ decoder[:3]) @ scaled.T)


def test_seeds_of_a_training_share_its_direction_and_trainings_do_not():
    rng = np.random.default_rng(3)
    drawn = Directions(rng.normal(size=(500, 400)), 5).changes(3, rng)
    found = np.corrcoef(drawn)
    assert np.abs(found[np.triu_indices(3, 1)]).max() < 0.2


def test_rates_are_counted_for_every_test_of_the_study_and_for_rotation_and_the_exchange_of_latents(study, monkeypatch):
    monkeypatch.setattr("isaerft.calibration.own.N_ROTATIONS", 99)
    evidence, directions = study
    rows = own_rows(evidence, directions, list("abcdef"), n_draws=N_DRAWS, n_placebos=9, n_resamples=99, seed=0)
    rates = {}
    for row in rows:
        parts = dict(part.split("=") for part in row.setting.split("; "))
        if row.quantity == "false_positive_rate" and parts["level"] == "0.05":
            rates.setdefault(parts["test"], {})[parts["directions"]] = row.value
    reported = {test for test, _ in results_of(evidence, 0, n_resamples=99, rng=np.random.default_rng(0))}
    assert set(rates) == reported | {"rotation", "naive_exchange_of_latents"}
    # 0.05 within about 4 standard deviations.
    assert all(rates[test]["isotropic"] < 0.2 for test in (*reported, "rotation")), rates
    of_result = [row for row in rows if row.quantity == "pvalue" and "test=rotation" in row.setting]
    assert [row.setting for row in of_result] == [f"test=rotation; behavior={name}" for name in "abcdef"]


@pytest.mark.slow
def test_random_directions_deceive_the_exchange_of_latents_and_not_rotation(study):
    evidence, directions = study
    rows = own_rows(
        evidence,
        {"isotropic": directions["isotropic"]},
        list("abcdef"),
        n_draws=300,
        n_placebos=9,
        n_resamples=99,
        seed=1,
    )
    rates = {row.setting.split(";")[0][5:]: row.value for row in rows if "level=0.05" in row.setting}
    assert rates["rotation"] < 0.1 < rates["naive_exchange_of_latents"]
