import numpy as np
import pytest
from scipy.stats import t, ttest_rel

from isaerft.errors import InputError
from isaerft.stats import auroc_of_wrong, mean_of_ranks, over_worlds


def by_pairs(values, wrong):
    told = [
        0.5 if np.isnan(a) or np.isnan(b) or a == b else float(a < b) for a in values[wrong] for b in values[~wrong]
    ]
    return np.mean(told)


@pytest.mark.parametrize("seed", range(5))
def test_auroc_counts_pairs_and_those_without_a_score_half(seed):
    rng = np.random.default_rng(seed)
    values, wrong = rng.integers(0, 6, 30).astype(float), rng.random(30) < 0.3
    values[rng.random(30) < 0.3] = np.nan
    wrong[:2] = True, False
    assert auroc_of_wrong(values, wrong) == pytest.approx(by_pairs(values, wrong))


def test_a_perfect_score_finds_all_and_its_reverse_none_and_a_constant_half():
    wrong = np.array([True, False, True, False, False])
    assert auroc_of_wrong(-wrong.astype(float), wrong) == 1
    assert auroc_of_wrong(wrong.astype(float), wrong) == 0
    assert auroc_of_wrong(np.ones(5), wrong) == auroc_of_wrong(np.full(5, np.nan), wrong) == 0.5


def test_without_wrong_or_right_explanations_there_is_no_auroc():
    assert np.isnan(auroc_of_wrong([1.0, 2.0], [True, True]))
    assert np.isnan(auroc_of_wrong([1.0, 2.0], [False, False]))


def test_infinite_scores_are_refused():
    with pytest.raises(InputError, match="infinite"):
        auroc_of_wrong([1.0, np.inf], [True, False])


def test_ranks_are_averaged_and_an_explanation_without_a_score_is_in_the_middle():
    assert mean_of_ranks([[10.0, 20.0, 30.0, 40.0]]).tolist() == [0.125, 0.375, 0.625, 0.875]
    assert mean_of_ranks([[1.0, 2.0, np.nan], [3.0, 1.0, 2.0]]).tolist() == pytest.approx(
        [(0.25 + 5 / 6) / 2, (0.75 + 1 / 6) / 2, 0.5]
    )


def test_two_independent_scores_find_more_together_than_each_alone():
    rng = np.random.default_rng(0)
    wrong = rng.random(4000) < 0.4
    scores = [rng.normal(size=4000) - wrong for _ in range(2)]
    together = auroc_of_wrong(mean_of_ranks(scores), wrong)
    assert together > max(auroc_of_wrong(values, wrong) for values in scores) + 0.05


def test_means_over_worlds_are_those_of_students_t():
    values = np.array([0.6, 0.7, 0.75, 0.9])
    found = over_worlds(values)
    half = t.ppf(0.975, 3) * values.std(ddof=1) / 2
    assert found.mean == pytest.approx(values.mean())
    assert found.confidence_interval == pytest.approx((values.mean() - half, values.mean() + half))
    other = np.array([0.5, 0.72, 0.6, 0.7])
    assert over_worlds(values - other).pvalue == pytest.approx(ttest_rel(values, other).pvalue)


def test_one_world_has_neither_interval_nor_pvalue():
    found = over_worlds([0.8])
    assert (found.n_worlds, found.mean) == (1, 0.8)
    assert np.isnan([*found.confidence_interval, found.pvalue]).all()


def test_worlds_that_all_agree_differ_from_zero_or_not_at_all():
    assert over_worlds([0.2, 0.2]).pvalue == 0
    assert over_worlds([0.0, 0.0]).pvalue == 1


def test_no_world_is_refused():
    with pytest.raises(InputError, match="one or more worlds"):
        over_worlds([])
