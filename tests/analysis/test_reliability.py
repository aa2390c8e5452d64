"""reliability.csv and discriminability.csv"""

import json

import numpy as np
import pandas as pd
import pytest

from isaerft import stats
from isaerft.analysis import TABLES, tables_of
from isaerft.analysis.replicates import Reported
from isaerft.registry import SCORES
from tests.analysis.planted_noise import left_out, made, planted, study
from tests.analysis.small_study import make_study

NOISE = ["sd", "sd_ci_low", "sd_ci_high", "coefficient_of_variation", "reliable_difference"]


def one(rows, **names):
    for name, value in names.items():
        rows = rows[rows[name] == value]
    (row,) = rows.itertuples()
    return row


def test_every_run_of_a_seed_is_a_replicate(finished):
    row = one(
        finished[1]["reliability"],
        table="training",
        column="heldout_loss_adapted",
        adapter="bias",
        behavior="a",
        of="toy",
    )
    assert (row.over, row.method, row.n_replicates) == ("training seed", "replicates", 2)
    assert json.loads(row.replicates) == [2.6, 2.8]
    assert (row.mean, row.sd) == pytest.approx((2.7, 0.2 / np.sqrt(2)), rel=1e-5)  # as written
    assert row.reliable_difference == pytest.approx(12.7062 * np.sqrt(2) * row.sd, rel=1e-4)


def test_numbers_from_all_seeds_have_the_reliable_difference_of_overall_csv(finished):
    reliability, overall = finished[1]["reliability"], finished[1]["overall"]
    keys = ["adapter", "measure", "source", "judge", "quantity"]
    rows = reliability[reliability.table == "overall"]
    assert (rows.method == "jackknife").all()
    ours = rows.set_index(keys).reliable_difference
    theirs = overall.set_index(keys).reliable_difference
    assert ours.to_dict() == pytest.approx(theirs.to_dict(), rel=1e-4)
    assert rows[rows.primary].adapter.unique().tolist() == ["bias"]
    medians = reliability[reliability.column == "estimate (median over behaviors)"]
    assert (medians.n_replicates == 2).all()
    assert medians[medians.detail == "control none"].sd.item() > 0
    fixed = medians[medians.detail == "control firing_rate_only"]
    assert fixed.sd.tolist() == [0]  # firing rates know no seed


def test_a_table_says_which_of_its_columns_are_numbers_and_each_row_is_about_one_thing(finished):
    numbers = 0
    for name, frame in finished[1].items():
        if TABLES[name].of_role("estimate"):
            numbers += len(TABLES[name].of_role("estimate"))
            assert not frame.duplicated(TABLES[name].of_role("key")).any(), name
    assert numbers > 10
    reported = finished[1]["reliability"][["table", "column"]].drop_duplicates().to_records(index=False).tolist()
    assert set(reported) == {
        ("agreement", "estimate (median over behaviors)"),
        ("diagnostics", "value"),
        ("overall", "estimate"),
        ("training", "heldout_loss_adapted"),
        ("training", "loss_recovered"),
    }


@pytest.mark.parametrize("n_seeds", [1, 2])
def test_one_seed_leaves_the_noise_empty_and_two_do_not(n_seeds, tmp_path):
    rng, plan = np.random.default_rng(0), study(x=("", {}, 0))
    values = {("x", adapter): rng.normal(0.3, 0.01, n_seeds) for adapter in ("bias", "scale")}
    rows = made(planted(plan, tmp_path, values, {("x", "none"): values["x", "bias"]}), "reliability")
    assert len(rows) == 3
    assert (rows.n_replicates == n_seeds).all()
    assert rows[NOISE[:3]].isna().all(axis=None) == (n_seeds == 1)
    assert not (rows[NOISE] == 0).any(axis=None)


def test_subjects_of_a_group_repeat_its_numbers_and_the_config_says_in_what(tmp_path):
    plan = study(x=("g", {"seed": 1}, 0), y=("g", {"seed": 2}, 0), z=("h", {"seed": 1}, 3))
    values = {("x", "bias"): [0.3, 0.32], ("y", "bias"): [0.4, 0.4], ("z", "bias"): [0.1, 0.1]}
    rows = made(planted(plan, tmp_path, values), "reliability")
    group = one(rows, of="g")
    assert (group.over, group.method, group.n_replicates) == ("train_sae.seed", "replicates", 2)
    assert (group.mean, group.sd) == pytest.approx((0.355, 0.09 / np.sqrt(2)))
    assert set(rows.of) == {"x", "y", "z", "g"}
    alone = one(rows, of="x")
    assert alone.sd == pytest.approx(stats.jackknife_sd(left_out([0.3, 0.32])))


def test_subjects_that_are_alike_in_every_option_repeat_nothing(tmp_path):
    plan = study(x=("g", {}, 0), y=("g", {}, 0))
    rows = made(planted(plan, tmp_path, {("x", "bias"): [0.3, 0.3], ("y", "bias"): [0.3, 0.3]}), "reliability")
    assert set(rows.of) == {"x", "y"}


def variants(groups):
    return study(
        **{
            f"s{place}": (group, {"d_sae": {"narrow": 64, "usual": 128, "wide": 256}[group], "seed": place}, 0)
            for place, group in enumerate(groups)
        }
    )


@pytest.mark.slow
def test_a_number_separates_variants_of_one_sae_and_not_shuffled_ones(tmp_path):
    rng = np.random.default_rng(0)
    groups = np.repeat(["narrow", "usual", "wide"], 4)
    height = {"narrow": 0.1, "usual": 0.2, "wide": 0.3}
    levels = [height[group] + rng.normal(0, 0.02) for group in groups]
    values = {(f"s{place}", "bias"): [level] * 2 for place, level in enumerate(levels)}
    row = one(made(planted(variants(groups), tmp_path / "true", values), "discriminability"))
    assert (row.over, row.groups, row.n_groups, row.n_subjects) == ("train_sae.d_sae", "narrow, usual, wide", 3, 12)
    assert row.ci_low > 0.5
    assert (row.n_pairs, row.n_pairs_apart) == (3, 3)
    shares = []
    for draw in range(20):
        plan = variants(rng.permutation(groups))
        shares.append(one(made(planted(plan, tmp_path / f"{draw}", values), "discriminability")).share_between)
    assert abs(np.mean(shares)) < 0.15
    assert np.mean(np.array(shares) > row.ci_low) < 0.1


def test_what_shows_nothing_depends_on_statistic_quantity_and_score():
    def chance(name, column, **named):
        return Reported(name, TABLES[name].column(column), [], pd.DataFrame()).chance(named)

    assert chance("overall", "estimate", quantity="agreement", statistic="auroc") == 0.5
    assert chance("overall", "estimate", quantity="agreement", statistic="spearman") == 0
    assert chance("overall", "estimate", quantity="specificity", statistic="auroc") == 0
    assert chance("judge_quality", "estimate", statistic="kappa") == 0
    assert chance("steering_summary", "estimate", quantity="auroc") == 0.5
    for score in SCORES:
        assert chance("explanation_quality", "mean", score=score) == SCORES.facts(score).chance
        assert chance("agreement_by_quality", "estimate", score=score) == 0.5
    assert chance("audit", "estimate") is None


def test_only_groups_that_differ_in_their_saes_alone_are_variants():
    wide = {"d_sae": 256}
    assert "discriminability" in tables_of(study(a=("g", {"seed": 1}, 0), b=("g", {"seed": 2}, 0), c=("h", wide, 0)))
    alone = study(a=("g", {}, 0), b=("h", wide, 0))
    other_world = study(a=("g", {"seed": 1}, 0), b=("g", {"seed": 2}, 0), c=("h", wide, 1))
    same_sae = study(a=("g", {"seed": 1}, 0), b=("g", {"seed": 2}, 0), c=("h", {"seed": 3}, 0))
    for plan in (alone, other_world, same_sae, make_study()):
        assert "discriminability" not in tables_of(plan)
    worlds = study(a=("g", {}, 0), b=("g", {}, 1), c=("h", wide, 0), d=("h", wide, 1))
    assert "discriminability" in tables_of(worlds)
