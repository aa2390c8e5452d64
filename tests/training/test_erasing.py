"""Fitting what is erased for each seed of a behavior's twin, and training there."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from isaerft import config
from isaerft.adapters.base import adapted
from isaerft.adapters.fitting import completion_means
from isaerft.adapters.saved import load_adapter
from isaerft.changes.measures import score_changes
from isaerft.io import read_json
from isaerft.subjects.cache import read_cache, write_cache
from isaerft.subjects.erasure import Erasure, read_erasures
from isaerft.training.erasing import fit_erasures, samples_of
from isaerft.training.loop import heldout_loss
from isaerft.training.replicates import train_adapter

CONTROLS = ["erased_mean", "erased_leace", "erased_iterative", "erased_random"]


@pytest.fixture
def plan():
    return config.plan_from_dict(
        {
            "study": "small",
            "subjects": {"toy": {"testbed": {}}},
            "behaviors": {name: {"description": name, "rule": True} for name in ("a", "b")},
            "adapters": {"bias": {"steps": 6, "learning_rate": 0.5, "evaluate_every": 1, "batch_size": 4}},
            "sources": {"local": {}},
            "judges": {"lexical": {}},
            "primary": {"adapter": "bias", "measure": "contribution", "source": "local", "judge": "lexical"},
            "controls": CONTROLS,
            "n_seeds": 2,
        }
    )


@pytest.fixture
def caches(subject, cached, tmp_path):
    """Two behaviors: tokens of the first are moved along one direction of the stream, others along no one."""
    direction = torch.randn(subject.language.d_model, generator=torch.Generator().manual_seed(1))
    for name, shift in (("a", 4 * direction / direction.norm()), ("b", 0 * direction)):
        rows = {}
        for split, part in zip(("train", "heldout"), cached, strict=True):
            moved = part.residual + shift
            codes = subject.dictionary.encode(moved)
            rows[split] = replace(
                part,
                residual=moved,
                codes=codes,
                tokens=part.tokens.clone(),
                predicts=part.predicts.clone(),
                starts=part.starts.clone(),
            )
        write_cache(rows, tmp_path / "cache" / f"{name}.safetensors")
    return tmp_path / "cache"


@pytest.fixture
def fitted(plan, caches, tmp_path):
    """Fit a control's erasures and give them with their facts."""

    def fit(control):
        out, facts = tmp_path / f"{control}.safetensors", tmp_path / f"{control}.json"
        twin = "a" + config.suffix_of(control)
        fit_erasures(plan, twin, caches / "a.safetensors", caches, out, facts)
        return read_erasures(out), read_json(facts)

    return fit


def test_samples_are_the_completions_tokens_and_their_means_those_of_completions(cached):
    """With activations of one latent in the place of the stream, class means are what `completion_means` gives."""
    dense = cached[0].codes.dense()
    rows = replace(cached[0], residual=dense)
    few = replace(cached[1], residual=cached[1].codes.dense())
    samples = samples_of(rows, [few, rows])
    np.testing.assert_allclose(samples.mean(True), completion_means(cached[0]).toarray().mean(0), atol=1e-6)
    others = [completion_means(part).toarray().mean(0) for part in (cached[1], cached[0])]
    np.testing.assert_allclose(samples.mean(False), np.mean(others, axis=0), atol=1e-6)
    assert len(np.unique(samples.text)) == 2 * len(rows) + len(few)


@pytest.mark.parametrize("control", CONTROLS)
def test_only_what_tells_the_behavior_is_erased(fitted, control):
    erasures, facts = fitted(control)
    assert [fact["seed"] for fact in facts] == [0, 1]
    for erasure, fact in zip(erasures, facts, strict=True):
        assert fact["n_directions"] == erasure.write.shape[0] >= 1
        assert 0 < fact["variance_removed"] < 0.9
        assert fact["heldout_accuracy"] == 1
    same = torch.equal(erasures[0].write, erasures[1].write)
    assert same == (control in ("erased_mean", "erased_leace"))
    if control in ("erased_mean", "erased_leace"):
        assert facts[0]["erased_accuracy"] == pytest.approx(0.5, abs=0.15)


def test_random_directions_are_as_many_as_iterative_erasure_takes(fitted):
    counts = [[fact["n_directions"] for fact in fitted(control)[1]] for control in CONTROLS[2:]]
    assert counts[0] == counts[1]


def test_each_seed_is_trained_and_measured_where_its_own_directions_are_erased(plan, subject, caches, tmp_path):
    rng = torch.Generator().manual_seed(5)
    width = subject.language.d_model
    erasures = []
    for _ in range(2):
        basis = torch.linalg.qr(torch.randn(width, 3, generator=rng))[0]
        erasures.append(Erasure(torch.zeros(width), basis, basis.T))
    place = tmp_path / "adapters" / "bias"
    cache = caches / "a.safetensors"
    names = {"behavior": "a-erased-mean", "permuted": False, "erasures": erasures}
    train_adapter(plan, subject, "bias", cache, place, **names)
    heldout = read_cache(cache, "heldout")
    rows = {seed: one.on_rows(subject, heldout) for seed, one in enumerate(erasures)}
    for row in read_json(place / "training.json"):
        seed, used = row["seed"], erasures[row["seed"]].on_subject(subject)
        adapter = load_adapter(place / f"seed_{seed}", 48)
        found = heldout_loss(used, lambda batch, on=used, one=adapter: adapted(on, one, batch), rows[seed], 4)
        assert found == pytest.approx(row["heldout_loss_adapted"], rel=1e-5)
        plain = heldout_loss(used, lambda batch: batch.residual, rows[seed], 4)
        assert plain == pytest.approx(row["heldout_loss_base"], rel=1e-5)
        assert row["heldout_loss_adapted"] < row["heldout_loss_base"]
    score_changes(
        plan,
        subject,
        cache,
        tmp_path / "adapters",
        tmp_path / "changes.parquet",
        measured=["bias"],
        diagnosed=[],
        diagnostics=tmp_path / "changes.json",
        permuted=False,
        erasures=erasures,
    )
    table = pd.read_parquet(tmp_path / "changes.parquet").query("measure == 'contribution'")
    for seed, part in table.groupby("seed"):
        bias = load_adapter(place / f"seed_{seed}", 48).bias.detach()
        norm = erasures[seed].on_subject(subject).dictionary.decoder_norm
        np.testing.assert_allclose(part.change.to_numpy(), (bias * norm).numpy(), rtol=1e-4, atol=1e-6)
