"""claims.csv"""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from isaerft.errors import InputError
from tests.analysis.planted_noise import left_out, made, planted, study

SEEDS = np.array([-0.01, 0.0, 0.01, 0.0])


def claims(tmp_path, specificity, agreement=None, plan=None):
    plan = plan or study(x=("", {}, 0))
    return made(planted(plan, tmp_path, specificity, agreement), "claims").set_index(["claim", "second"])


def test_a_difference_below_its_noise_gets_a_warning_and_one_above_does_not(tmp_path):
    near, far = 0.3 + SEEDS[::-1], 0.2 + SEEDS
    bias = 0.31 + SEEDS
    for scale, is_noise in ((near, True), (far, False)):
        row = claims(tmp_path / str(is_noise), {("x", "bias"): bias, ("x", "scale"): scale}).loc[("adapter", "scale")]
        assert row.difference == pytest.approx((bias - scale).mean())
        sd = (bias - scale).std(ddof=1) / 2
        assert row.least_difference == pytest.approx(t.ppf(0.975, 3) * sd, abs=1e-9)
        assert row.reliable != is_noise
        assert pd.isna(row.warning) != is_noise
    assert row.of == "x"


def test_the_warning_names_both_sides_the_difference_and_what_explains_it(tmp_path):
    row = claims(tmp_path, {("x", "bias"): 0.30 + SEEDS, ("x", "scale"): 0.31 - SEEDS}).loc[("adapter", "scale")]
    assert row.warning == (
        "specificity of bias lies 0.010 below that of scale; drawing the training seed again may move that by "
        f"{row.least_difference:.3f}."
    )


def test_a_tie_claims_no_difference(tmp_path):
    row = claims(tmp_path, {("x", "bias"): 0.3 + SEEDS, ("x", "scale"): 0.3 + SEEDS}).loc[("adapter", "scale")]
    assert not row.reliable
    assert pd.isna(row.warning)


def test_luck_that_two_adapters_share_is_not_held_against_them(tmp_path):
    luck = np.array([-0.2, 0.1, 0.1, 0.0])
    rows = claims(tmp_path, {("x", "bias"): 0.4 + luck, ("x", "scale"): 0.39 + luck})
    assert rows.loc[("adapter", "scale")].reliable
    assert not rows.loc[("chance", "chance")].least_difference < 0.1


def test_the_result_is_compared_with_the_highest_control(tmp_path):
    controls = {("x", "none"): 0.62 + SEEDS, ("x", "mismatched_behavior"): 0.6 - SEEDS, ("x", "genericity"): [0.5] * 4}
    rows = claims(tmp_path, {("x", "bias"): 0.4 + SEEDS}, controls)
    row = rows.loc[("control", "mismatched_behavior")]
    assert (row.first_value, row.second_value, row.difference) == pytest.approx((0.62, 0.6, 0.02))
    assert not row.reliable
    assert row.warning.startswith("the median over behaviors lies 0.020 above that of the control mismatched_behavior")
    assert ("control", "genericity") not in rows.index
    assert rows.loc[("chance", "chance")].reliable


def test_with_one_seed_nothing_is_known_and_nothing_warned_of(tmp_path):
    row = claims(tmp_path, {("x", "bias"): [0.3], ("x", "scale"): [0.3]}).loc[("adapter", "scale")]
    assert pd.isna(row.least_difference)
    assert pd.isna(row.reliable)
    assert pd.isna(row.warning)
    assert row.n_replicates == 1


def test_subjects_that_repeat_each_other_make_their_claims_together(tmp_path):
    plan = study(x=("g", {}, 0), y=("g", {}, 1), z=("g", {}, 2))
    bias, scale = np.array([0.4, 0.3, 0.5]), np.array([0.38, 0.33, 0.46])
    values = {
        (name, adapter): [one] * 2
        for adapter, level in (("bias", bias), ("scale", scale))
        for name, one in zip("xyz", level, strict=True)
    }
    rows = claims(tmp_path, values, plan=plan)
    assert set(rows.of) == {"g"}
    row = rows.loc[("adapter", "scale")]
    difference = bias - scale
    least = t.ppf(0.975, 2) * difference.std(ddof=1) / np.sqrt(3)
    assert (row.over, row.n_replicates) == ("testbed.seed", 3)
    assert (row.difference, row.least_difference) == pytest.approx((difference.mean(), least))
    assert "drawing the testbed.seed again" in row.warning


def test_subjects_of_no_group_are_compared_with_the_best_of_them(tmp_path):
    plan = study(x=("a", {}, 0), y=("b", {}, 1), z=("c", {}, 2))
    values = {("x", "bias"): 0.3 + SEEDS, ("y", "bias"): 0.31 + SEEDS, ("z", "bias"): 0.1 + SEEDS}
    rows = claims(tmp_path, values, plan=plan)
    assert rows.loc["subject"]["first"].unique().tolist() == ["y"]
    assert rows.loc["subject"].reliable.to_dict() == {"x": False, "z": True}
    # Welch's with equal noise, wider since the best of three was picked.
    sd = SEEDS.std(ddof=1) / 2
    assert rows.loc[("subject", "x")].least_difference > t.ppf(0.975, 6) * np.sqrt(2) * sd


@pytest.mark.slow
def test_equal_adapters_are_warned_of_in_95_percent_of_studies(tmp_path):
    rng, warned, n_studies = np.random.default_rng(0), 0, 60
    for number in range(n_studies):
        values = {("x", adapter): rng.normal(0.3, 0.02, 4) for adapter in ("bias", "scale")}
        warned += pd.notna(claims(tmp_path / str(number), values).loc[("adapter", "scale")].warning)
    # Binomial with 0.95: 57 expected, standard deviation 1.7.
    assert abs(warned - 57) <= 5


def test_rows_of_an_earlier_version_are_refused_with_what_to_do(tmp_path):
    plan = study(x=("", {}, 0))
    analysis = planted(plan, tmp_path, {("x", "bias"): [0.3, 0.4]})
    for path in tmp_path.rglob("overall.parquet"):
        pd.read_parquet(path).drop(columns="reseeded").to_parquet(path)
    with pytest.raises(InputError, match=r"earlier version.*isaerft agreement"):
        made(analysis, "claims")


def test_leaving_out_is_the_mean_of_the_others():
    assert left_out([1, 2, 3]) == [2.5, 2.0, 1.5]
