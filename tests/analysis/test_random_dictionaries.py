"""A random baseline beside the result, in agreement.csv and random_dictionaries.csv."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from isaerft.config import CONTROLS
from isaerft.report.cautions import cautions
from tests.analysis.small_study import BEHAVIORS, Parts, make_study

CONTROL, TWIN = "untrained_dictionary", "toy-untrained-dictionary"
DEAD_IN_TWIN = 59


def plan_with_baseline():
    return make_study(controls=[*CONTROLS, CONTROL])


def files_of(parts, name):
    """Return the files of a subject that differ between dictionaries, relative to the results."""
    found = [path.relative_to(parts.folder) for path in parts.folder.rglob("*") if path.is_file()]
    return [path for path in found if name in path.parts]


def add_baseline(parts):
    """Write the parts of a baseline whose changes follow no explanation; one more of its latents is dead."""
    parts.subject(TWIN)
    facts = parts.folder / "subjects" / TWIN / "latents.parquet"
    table = pd.read_parquet(facts)
    table.loc[DEAD_IN_TWIN, "firing_rate"] = 0.0
    table.to_parquet(facts)
    for behavior in BEHAVIORS:
        parts.changes(TWIN, behavior)
        for adapter in ("bias", "scale"):
            parts.training(TWIN, behavior, adapter)
    parts.explanations(TWIN, "said")
    parts.judgements(TWIN, "said")
    one_card(parts)


def one_card(parts):
    path = parts.folder / "subjects" / TWIN / "subject.json"
    (card, _) = json.loads(path.read_text())
    path.write_text(json.dumps([card | {"subject": TWIN, "l0": 2.5}]))


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    parts = Parts(tmp_path_factory.mktemp("baseline"))
    add_baseline(parts)
    return parts.tables(plan_with_baseline())


def test_a_baseline_has_a_row_beside_every_result_that_any_dictionary_can_have(tables):
    agreement = tables["agreement"]
    keys = ["behavior", "adapter", "measure", "source", "judge", "statistic"]
    result = agreement[(agreement.control == "none") & (agreement.source == "said")].set_index(keys)
    rows = agreement[agreement.control == CONTROL].set_index(keys)
    assert set(agreement.subject) == {"toy"}
    assert set(rows.index) == set(result.index)
    assert (rows.n_latents == result.n_latents.loc[rows.index] - 1).all(), "its own latents are tested"
    auroc = rows.xs("auroc", level="statistic").estimate
    assert result.xs("auroc", level="statistic").estimate.median() > 0.9
    assert abs(auroc.median() - 0.5) < 0.15
    assert not rows.primary.any()
    assert rows[["qvalue", "family", "pvalue_placebo"]].isna().all(axis=None)
    assert agreement[agreement.control == "none"].primary.any()


def test_without_a_baseline_the_other_rows_are_the_same(tables, finished):
    _, before = finished
    left = tables["agreement"][tables["agreement"].control != CONTROL].reset_index(drop=True)
    pd.testing.assert_frame_equal(left, before["agreement"])
    for name in ("overall", "specificity", "explanation_verdicts"):
        pd.testing.assert_frame_equal(tables[name], before[name])
    assert "random_dictionaries" not in before
    assert tables["subjects"].subject.tolist() == ["toy", "toy-permuted", TWIN]


def specificity(cells):
    """Return the mean of own cells minus the mean of the others, over the behaviors that can be tested."""
    wide = cells.pivot(index="trained_on", columns="judged_for", values="adjusted_estimate")
    square = wide.dropna(how="all").dropna(axis="columns", how="all")
    square = square.loc[square.columns].to_numpy()
    own = np.eye(len(square), dtype=bool)
    return square[own].mean() - square[~own].mean()


def test_the_specificity_of_the_dictionary_is_set_beside_that_of_random_ones(tables):
    rows = tables["random_dictionaries"].set_index(["adapter", "control"])
    assert rows.index.tolist() == [
        (adapter, control) for adapter in ("bias", "scale") for control in ("none", "random_dictionary", CONTROL)
    ]
    overall = tables["overall"].query("quantity == 'specificity' and source == 'said' and measure == 'contribution'")
    for row in overall.itertuples():
        own = rows.loc[row.adapter, "none"]
        assert (own.estimate, own.ci_low, own.ci_high) == (row.estimate, row.ci_low, row.ci_high)
        cells = tables["specificity"].query(
            "adapter == @row.adapter and source == 'said' and measure == 'contribution'"
        )
        assert own.estimate == pytest.approx(specificity(cells), abs=1e-3)
        for control in ("random_dictionary", CONTROL):
            other = rows.loc[row.adapter, control]
            assert other.difference == pytest.approx(own.estimate - other.estimate, abs=2e-3)
            assert other.difference_ci_low < other.difference < other.difference_ci_high
            assert other.difference_ci_low > 0
    assert rows.difference.isna().tolist() == 2 * [True, False, False]
    assert (rows.n_behaviors == len(BEHAVIORS) - 1).all(), "no latent is expected for the silent one"
    assert rows.l0.tolist() == 2 * [3.0, 3.0, 2.5]
    assert not [text for text in cautions(tables) if "baseline" in text]


def test_a_baseline_that_equals_its_subject_shows_as_no_difference_and_the_summary_says_so(tmp_path):
    parts = Parts(tmp_path)
    for path in files_of(parts, "toy"):
        copy = parts.folder.joinpath(*[TWIN if name == "toy" else name for name in path.parts])
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(parts.folder / path, copy)
    for behavior in BEHAVIORS:
        for kind in ("parquet", "json"):
            target = parts.folder / "changes" / TWIN / f"{behavior}.{kind}"
            assert target.is_file()
    one_card(parts)
    tables = parts.tables(plan_with_baseline())
    rows = tables["random_dictionaries"].query("control == @CONTROL")
    assert rows.difference.tolist() == [0.0, 0.0]
    (said,) = [text for text in cautions(tables) if "baseline" in text]
    assert "the baseline untrained dictionary has a specificity of" in said
    assert "is not known to be less specific than the dictionary" in said
