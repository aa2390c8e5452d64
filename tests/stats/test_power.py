import math

import numpy as np
import pytest
from scipy import stats as sp

from isaerft.errors import InputError
from isaerft.stats import agreement_test, auroc, hanley_mcneil_sd, minimum_detectable_effect


def test_simulated_power_at_the_minimum_detectable_effect_is_the_power_asked_for():
    n, n_expected, power = 300, 45, 0.8
    effect = minimum_detectable_effect(n, n_expected, power=power)
    shift = math.sqrt(2) * sp.norm.ppf(effect)
    expected = np.arange(n) < n_expected
    rng = np.random.default_rng(0)
    found = [
        sp.mannwhitneyu(c[expected], c[~expected], alternative="greater").pvalue <= 0.05
        for c in rng.normal(size=(2000, n)) + shift * expected
    ]
    assert np.mean(found) == pytest.approx(power, abs=0.04)


def test_hanley_mcneil_at_chance_is_the_rank_sum_standard_deviation():
    assert hanley_mcneil_sd(0.5, 30, 70) == pytest.approx(math.sqrt(101 / (12 * 30 * 70)))


def test_hanley_mcneil_is_exact_for_exponential_and_close_for_normal_scores():
    rng = np.random.default_rng(1)
    expected = np.arange(100) < 30
    exponential = [auroc(rng.exponential(size=100) * np.where(expected, 3, 1), expected) for _ in range(3000)]
    assert hanley_mcneil_sd(0.75, 30, 70) == pytest.approx(np.std(exponential), rel=0.05)
    normal = [auroc(rng.normal(size=100) + expected, expected) for _ in range(3000)]
    assert hanley_mcneil_sd(sp.norm.cdf(1 / math.sqrt(2)), 30, 70) == pytest.approx(np.std(normal), rel=0.15)


def test_given_null_sd_replaces_the_independent_one():
    n, n_expected = 400, 60
    own = minimum_detectable_effect(n, n_expected)
    sd = math.sqrt((n + 1) / (12 * n_expected * (n - n_expected)))
    assert minimum_detectable_effect(n, n_expected, null_sd=sd) == pytest.approx(own)
    assert minimum_detectable_effect(n, n_expected, null_sd=2 * sd) > own + 0.05
    result = agreement_test(np.random.default_rng(0).normal(size=n), np.arange(n) < n_expected, rng=0)
    assert minimum_detectable_effect(n, n_expected, null_sd=result.null_sd) == pytest.approx(own, abs=0.003)


def test_sides():
    greater = minimum_detectable_effect(200, 40)
    assert minimum_detectable_effect(200, 40, alternative="less") == pytest.approx(1 - greater)
    assert minimum_detectable_effect(200, 40, alternative="two-sided") > greater
    assert minimum_detectable_effect(200, 40, power=0.9) > greater
    assert minimum_detectable_effect(200, 40, alpha=0.01) > greater
    assert minimum_detectable_effect(200, 40, null_mean=0.6) > greater + 0.05


@pytest.mark.parametrize(("n", "n_expected"), [(50, 0), (50, 50), (3, 1), (0, 0)])
def test_what_no_effect_could_show_is_nan(n, n_expected):
    assert math.isnan(minimum_detectable_effect(n, n_expected))


def test_impossible_designs_are_refused():
    with pytest.raises(InputError, match="60 expected of 50"):
        minimum_detectable_effect(50, 60)
    with pytest.raises(InputError, match="power is 80"):
        minimum_detectable_effect(50, 10, power=80)
    with pytest.raises(InputError, match="null_sd is -1"):
        minimum_detectable_effect(50, 10, null_sd=-1)
