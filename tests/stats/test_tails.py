"""Tails and concentration of changes."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from benchmarks.change_tails import TRUTHS, kept
from isaerft.errors import InputError
from isaerft.stats import n_carrying, tail_of
from isaerft.stats.tails import FAMILIES, FEWEST, _log_densities

DRAWS = 120


@pytest.mark.parametrize("name", TRUTHS)
def test_the_true_family_is_kept_and_those_of_another_length_of_tail_are_refuted(name):
    family, quantile = TRUTHS[name]
    shares = kept(quantile, 4096, 0.0, DRAWS)
    # Nine in ten at least; a lognormal includes power laws, so a power law is refuted a little more often.
    assert shares[family] >= 0.9 - 2 * (0.9 * 0.1 / DRAWS) ** 0.5
    far = {"normal": ("power_law",), "exponential": ("power_law",)}.get(family, ("normal",))
    assert all(shares[other] <= 0.05 for other in far)
    if family == "lognormal":
        assert shares["power_law"] <= 0.05
    if family == "power_law":
        assert shares["lognormal"] == 1, "its limit cannot be beaten by a power law"


def drawn(family, n=400):
    rng = np.random.default_rng(1)
    x = {"normal": np.abs(rng.normal(size=4 * n)), "lognormal": rng.lognormal(size=4 * n)}[family]
    x = np.sort(x / np.quantile(x, 0.75))
    return x[x > 1]


def test_densities_are_those_of_scipy_at_the_likeliest_parameters():
    x = drawn("normal")
    found = _log_densities(x)
    y, n = np.log(x), len(x)

    def best(log_density, starts):
        from scipy.optimize import minimize

        return -min(
            minimize(lambda p: -log_density(p).sum(), start, method="Nelder-Mead", options={"xatol": 1e-9}).fun
            for start in starts
        )

    def half_normal(p):
        sd = np.exp(p[0])
        return scipy_stats.truncnorm.logpdf(x, 1 / sd, np.inf, scale=sd)

    def lognormal(p):
        sd = np.exp(p[1])
        return scipy_stats.truncnorm.logpdf(y, -p[0] / sd, np.inf, loc=p[0], scale=sd) - y

    assert found["normal"].sum() == pytest.approx(best(half_normal, [[0.0]]), abs=1e-4)
    assert found["lognormal"].sum() == pytest.approx(best(lognormal, [[0.0, 0.0], [0.3, -1.0]]), abs=1e-3)
    assert found["exponential"] == pytest.approx(scipy_stats.expon.logpdf(x, 1, (x - 1).mean()))
    assert found["power_law"] == pytest.approx(scipy_stats.pareto.logpdf(x, 1 / y.mean()))
    assert n > 300


def test_the_power_law_is_the_lognormals_limit_and_never_beats_it():
    x = (1 - (np.arange(500) + 0.5) / 500) ** -1.0
    heavy = np.append(x, [1e8] * 9)
    found = _log_densities(heavy)
    assert (found["lognormal"] == found["power_law"]).all()
    assert tail_of(np.append(np.linspace(0.01, 1, 3 * len(heavy)), heavy)).pvalues["lognormal"] == 1


def test_a_power_law_is_tested_against_the_lognormal_with_a_parameter_at_its_bound():
    sizes = np.sort(np.random.default_rng(2).lognormal(0, 3, 1200))
    tail = tail_of(sizes)
    found = _log_densities(sizes[-tail.n :] / tail.threshold)
    ratio = (found["lognormal"] - found["power_law"]).sum()
    assert ratio > 0
    assert tail.pvalues["power_law"] == pytest.approx(scipy_stats.chi2.sf(2 * ratio, 1) / 2)


def test_sizes_count_without_their_sign_unit_and_zeros():
    rng = np.random.default_rng(0)
    sizes = rng.exponential(size=800)
    signed = np.append(1000 * sizes * rng.choice([-1, 1], 800), np.zeros(500))
    assert tail_of(sizes).pvalues == pytest.approx(tail_of(signed).pvalues)
    assert tail_of(sizes).n == 200
    assert tail_of(signed).threshold == pytest.approx(1000 * tail_of(sizes).threshold)


def test_the_exponent_is_that_of_the_power_law():
    rng = np.random.default_rng(0)
    assert tail_of(rng.pareto(1.5, 40_000) + 1).exponent == pytest.approx(2.5, abs=0.06)


def test_a_short_tail_or_one_of_equal_sizes_is_not_described():
    rng = np.random.default_rng(0)
    assert tail_of(rng.normal(size=4 * FEWEST)) is not None
    assert tail_of(rng.normal(size=4 * FEWEST - 1)) is None
    assert tail_of(np.append(rng.normal(size=10), np.zeros(5000))) is None
    assert tail_of(np.ones(1000)) is None
    with pytest.raises(InputError, match="sizes"):
        tail_of([np.nan] * 1000)


def test_the_fewest_values_that_reach_half_are_counted():
    assert n_carrying([4, 3, 2, 1]) == 2
    assert n_carrying([5, 3, 2]) == 1
    assert n_carrying([1, 1, 1, 1]) == 2
    assert n_carrying([3, 1, 1, -4, 2], share=1.0) == 1, "what raises the loss counts against the whole"
    assert n_carrying([1, -1]) is None
    assert n_carrying([]) is None


def test_all_families_are_compared():
    assert tuple(tail_of(np.random.default_rng(0).normal(size=1000)).pvalues) == FAMILIES
