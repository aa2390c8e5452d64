"""changes_over_time.csv and onset.csv, with courses of changes put where they are wanted."""

import json

import numpy as np
import pandas as pd
import pytest

from isaerft.analysis import analysis_of, tables_of
from isaerft.analysis.changes_over_time import Course, onset_rows
from isaerft.layout import Results
from tests.analysis.small_study import BEHAVIORS, EXPECTED, N, make_study

STEPS = (1, 2, 4, 9)
EARLY, LATE = 1.0, 5.0


def followed(**changes):
    """The small study with four checkpoints of the primary adapter."""
    return make_study(adapters={"bias": {"steps": 9, "checkpoints": 4}, "scale": {}, "lora": {}}, **changes)


def constants(behavior, *, planted, rng):
    """Time constant of each latent (N,); with `planted`, the expected ones are the first to change."""
    values = rng.uniform(LATE, 2 * LATE, N)
    if planted:
        values[list(EXPECTED[behavior])] = EARLY
    return values


def write_courses(parts, *, planted=True, best_step=9):
    """Let every change of bias on the real subject grow to its final size, each latent at its own pace."""
    rng, results = np.random.default_rng(1), Results(parts.folder)
    results.changes_over_time("toy", "x").parent.mkdir(parents=True, exist_ok=True)
    for behavior in BEHAVIORS:
        pace = constants(behavior, planted=planted, rng=rng)
        table = pd.read_parquet(results.changes("toy", behavior)).query(
            "adapter == 'bias' and measure == 'contribution'"
        )
        grown = [
            table.assign(step=step, change=table.change * (1 - np.exp(-step / pace[table.latent_index.to_numpy()])))
            for step in STEPS
        ]
        pd.concat(grown).to_parquet(results.changes_over_time("toy", behavior))
        path = results.training("toy", behavior, "bias")
        rows = json.loads(path.read_text())
        path.write_text(json.dumps([row | {"best_step": best_step if row["seed"] else 9} for row in rows]))


def test_only_a_study_with_checkpoints_has_the_tables():
    assert not {"changes_over_time", "onset"} & set(tables_of(make_study()))
    assert {"changes_over_time", "onset"} <= set(tables_of(followed()))


def test_latents_that_are_planted_to_move_first_are_seen_to_move_first(parts):
    write_courses(parts)
    table = parts.table(followed(), "changes_over_time")
    assert set(table.adapter) == {"bias"}
    own = table[table.behavior == "a"]
    assert own.step.tolist()[:-1] == list(STEPS)
    assert own.step.isna().tolist() == [False] * 4 + [True]
    first = own.iloc[0]
    assert first.share_expected == pytest.approx(1 - np.exp(-1 / EARLY), abs=1e-4)
    assert first.share_others < 0.2
    assert first.ci_low <= first.estimate <= first.ci_high
    assert first.estimate > 0.95
    assert first.specificity > 0.3
    kept = own.iloc[-1]
    assert [kept.share_expected, kept.share_others, kept.rank_correlation] == pytest.approx([1, 1, 1])
    seeds = analysis_of(followed(), Results(parts.folder)).frame("seeds").set_index(["adapter", "measure", "behavior"])
    assert kept.estimate == pytest.approx(seeds.estimate["bias", "contribution", "a"], rel=1e-5)
    onset = parts.table(followed(), "onset").set_index("behavior")
    assert set(onset.index.dropna()) == set(BEHAVIORS)
    assert (onset.onset_expected[list("abcde")] < 1.5).all()
    assert (onset.onset_others[list("abcde")] > 2).all()
    assert (onset.estimate[list("abcde")] > 0.8).all()
    assert (onset.pvalue[list("abcde")] < 0.05).all()
    assert np.isnan(onset.estimate["silent"])
    together = onset[onset.index.isna()].iloc[0]
    assert together.estimate > 0.4
    assert together.pvalue < 0.05


def test_without_it_none_is_found(parts):
    write_courses(parts, planted=False)
    onset = parts.table(followed(), "onset").set_index("behavior")
    assert (onset.onset_expected - onset.onset_others).dropna().abs().max() < 2
    assert abs(onset.estimate[list("abcde")].mean() - 0.5) < 0.15
    assert onset[onset.index.isna()].pvalue.iloc[0] > 0.05


def test_checkpoints_after_the_step_that_was_kept_are_left_out(parts):
    write_courses(parts, best_step=3)
    own = parts.table(followed(), "changes_over_time").query("behavior == 'a'")
    assert own.n_seeds.tolist() == [2, 2, 1, 1, 2]
    write_courses(parts, best_step=0)
    own = parts.table(followed(), "changes_over_time").query("behavior == 'a'")
    assert own.n_seeds.tolist() == [1, 1, 1, 1, 1], "a seed that kept its untrained adapter has no course"


def test_a_course_ends_with_what_was_kept():
    steps, changes = np.array([1, 2]), np.array([[0.0, 1.0], [1.0, 1.0]])
    found = Course(steps, changes, 10, np.array([4.0, 2.0])).onsets()
    assert found.tolist() == pytest.approx([2 + 8 / 3, 1.0])
    assert Course(steps, changes, 2, np.array([1.0, 1.0])).onsets().tolist() == pytest.approx([1.5, 0.5])


@pytest.mark.slow
def test_explanations_that_know_nothing_of_the_pace_are_found_first_no_more_often_than_chance(parts):
    """Every latent has a pace of its own, in part the same under every training; p < 0.05 in one of twenty."""
    plan, rng, pvalues, wholes = followed(), np.random.default_rng(0), [], []
    reading = analysis_of(plan, Results(parts.folder)).primary_reading("toy")
    for _ in range(120):
        usual = rng.normal(size=len(reading.latents))
        courses = {}
        for name in reading.behaviors:
            pace = np.exp(1 + 0.7 * usual + 0.7 * rng.normal(size=len(usual)))
            final = rng.normal(size=len(usual))
            seeds = [final + 0.1 * rng.normal(size=len(final)) for _ in range(2)]
            grown = [end * (1 - np.exp(-np.array(STEPS)[:, None] / pace)) for end in seeds]
            courses[name] = [Course(np.array(STEPS), g, 9, end) for g, end in zip(grown, seeds, strict=True)]
        rows = list(onset_rows(plan, reading, courses))
        pvalues += [row["pvalue"] for row in rows if row.get("behavior") == "a"]
        wholes.append(rows[-1]["pvalue"])
    for found in (pvalues, wholes):
        assert np.mean(np.array(found) < 0.05) <= 0.05 + 3 * (0.05 * 0.95 / len(found)) ** 0.5
        assert 0.4 < np.mean(found) < 0.6
