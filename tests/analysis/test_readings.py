"""The universe of latents, and what is read for it."""

import numpy as np
import pandas as pd
import pytest

from isaerft import io
from isaerft.analysis.placebos import read_placebos
from isaerft.analysis.readings import Expectation, alive_latents, by_latent, read_changes, readings
from isaerft.errors import InputError
from isaerft.judges import read_judgements, write_judgements
from isaerft.layout import Results
from tests.analysis.small_study import DEAD, UNEXPLAINED, N, make_study


def test_the_universe_leaves_out_the_dead_and_the_unexplained(finished):
    parts, tables = finished
    plan = make_study()
    reading, wrong = readings(plan, Results(parts.folder), "toy")
    assert (reading.source, wrong.source, reading.judge) == ("said", "wrong", "lexical")
    assert set(reading.latents) == set(range(N)) - set(DEAD) - set(UNEXPLAINED)
    assert [row.sum() for row in reading.expectation.expected] == [10, 10, 6, 6, 6, 0]
    assert reading.left_out == {"dead": 2, "not sampled": 0, "unexplained or unjudged": 3}
    assert reading.explanation_length.tolist() == [len(f"latent {i}") for i in reading.latents]
    assert (tables["agreement"].n_latents == N - 5).all()


def test_a_change_that_is_not_finite_is_refused_by_its_file(parts):
    def broken(table):
        table.loc[7, "change"] = np.nan

    parts.changes("toy", "b", broken)
    with pytest.raises(InputError, match=r"b\.parquet: parameter of adapter 'bias' holds changes that are not finite"):
        read_changes(make_study(), Results(parts.folder), "toy", "bias")


def test_a_behavior_that_was_not_judged_is_refused_by_name(parts):
    parts.judgements("toy", "said", ("a", "b", "c", "d", "e"))
    with pytest.raises(InputError, match=r"judges no latent for \['silent'\]"):
        _ = next(readings(make_study(), Results(parts.folder), "toy")).latents


def test_a_latent_that_is_not_judged_for_every_behavior_leaves_the_universe_and_no_other_does(parts):
    plan, path = make_study(), parts.folder / "judgements/toy/said/lexical.parquet"
    before = [len(reading.latents) for reading in readings(plan, Results(parts.folder), "toy")]
    judged = read_judgements(path)
    failed, half = judged.latent_index == 10, (judged.latent_index == 20) & (judged.behavior == "a")
    write_judgements(judged[~failed & ~half].reset_index(drop=True), path)
    after = [len(reading.latents) for reading in readings(plan, Results(parts.folder), "toy")]
    assert after == [before[0] - 2, before[1]]
    parted = judged.behavior.eq("a") ^ judged.latent_index.lt(30)
    write_judgements(judged[parted].reset_index(drop=True), path)
    with pytest.raises(InputError, match=r"judges no latent for every behavior; .*tested: false"):
        _ = next(readings(plan, Results(parts.folder), "toy")).latents


def test_an_expectation_is_taken_latent_by_latent_to_part_of_the_universe():
    whole = Expectation(np.array([2, 5, 9]), np.array([[True, False, True]]), np.array([[0.5, 0.0, 1.0]]))
    part = whole.on(np.array([5, 9]))
    assert part.latents.tolist() == [5, 9]
    assert part.expected.tolist() == [[False, True]]
    assert part.effect.tolist() == [[0.0, 1.0]]


def test_a_latent_that_fires_too_rarely_is_dead(parts):
    facts = pd.read_parquet(parts.folder / "subjects/toy/latents.parquet")
    assert set(range(N)) - set(alive_latents(make_study(), facts)) == set(DEAD)


def test_changes_are_laid_out_by_seed_and_latent_whatever_the_order_of_the_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(io, "PARQUET_PART_ROWS", 7)
    rng, path = np.random.default_rng(0), tmp_path / "changes.parquet"
    wide = rng.normal(size=(3, 10))
    rows = pd.DataFrame(
        {"seed": np.repeat([4, 0, 2], 10), "latent_index": np.tile(range(10), 3), "change": wide.ravel()}
    )
    rows = pd.concat([rows.assign(measure="m", adapter="a"), rows.assign(measure="m", adapter="b", change=7.0)])
    rows.sample(frac=1, random_state=0).to_parquet(path)
    assert np.array_equal(by_latent(path, ["seed"], adapter="a")["m"], wide[[1, 2, 0]])
    assert np.array_equal(by_latent(path, ["seed"], np.array([7, 3]), adapter="a")["m"], wide[[1, 2, 0]][:, [7, 3]])
    assert (by_latent(path, ["adapter", "seed"])["m"][3:] == 7).all()
    missing = by_latent(path, ["seed"], np.array([3, 12]), adapter="a")["m"]
    assert np.array_equal(np.isnan(missing), [[False, True]] * 3)
    assert by_latent(path, ["seed"], adapter="c") == {}
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"changes\.parquet"):
        by_latent(path, ["seed"])


def test_only_changes_that_are_asked_for_are_kept(parts):
    plan, results = make_study(), Results(parts.folder)
    everything = read_changes(plan, results, "toy", "bias")
    latents = np.array([8, 11, 40])
    some = read_changes(plan, results, "toy", "bias", ["a"], latents=latents)
    assert set(some) == {("a", "parameter"), ("a", "contribution")}
    assert all(np.array_equal(changes, everything[key][:, latents]) for key, changes in some.items())
    placebos = read_placebos(plan, results, "toy", latents=latents)["parameter"]
    assert np.array_equal(placebos, read_placebos(plan, results, "toy")["parameter"][:, :, latents])
    with pytest.raises(InputError, match="not finite"):
        read_changes(plan, results, "toy", "bias", latents=np.array([N]))


@pytest.mark.parametrize("part_rows", [1, 10**6])
def test_a_change_that_is_listed_twice_is_refused(tmp_path, monkeypatch, part_rows):
    rows = {"adapter": "bias", "measure": "m", "seed": 0, "latent_index": [0, 1, 1], "change": [1.0, 2.0, 3.0]}
    path = tmp_path / "changes.parquet"
    pd.DataFrame(rows).to_parquet(path, index=False)
    monkeypatch.setattr(io, "PARQUET_PART_ROWS", part_rows)
    with pytest.raises(InputError, match=r"changes\.parquet lists a change of one latent twice"):
        by_latent(path, ["seed"], adapter="bias")
