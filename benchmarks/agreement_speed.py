"""Time the tests of agreement against scipy's permutation test in one run, and a whole study's tests on two cores.

$ python benchmarks/agreement_speed.py                                    as large as the largest dictionaries
$ python benchmarks/agreement_speed.py --latents 4096 --exchanges 1000    a look

scipy.stats.permutation_test knows no strata, so it exchanges within one; it is given the same statistic, vectorised,
once from changes and once from ranks made beforehand. It is timed on fewer exchanges, and seconds are per exchange.
"""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from scipy.stats import permutation_test, rankdata

from isaerft.stats import agreement_test, agreement_tests, strata_of

BINS = 4
SHARE = 0.1


def world(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return changes (n,), graded expectations (n,) that agree so little that p is neither 0 nor 1, and strata (n,)."""
    confounds = rng.normal(size=(3, n))
    change = rng.normal(size=n)
    effect = rng.normal(size=n) + change / np.sqrt(n)
    return change, effect, strata_of(*confounds, n_bins=BINS)


def slow(kind: str, change: np.ndarray, *, ready: bool):
    """Return the statistic as scipy's test takes it; `ready`: ranks of both sides are made once."""
    n = len(change)
    ranks = rankdata(change)

    def auroc(labels: np.ndarray, axis: int) -> np.ndarray:
        used = ranks if ready else rankdata(np.broadcast_to(change, labels.shape), axis=axis)
        n1 = labels.sum(axis=axis)
        return ((used * labels).sum(axis=axis) - n1 * (n1 + 1) / 2) / (n1 * (n - n1))

    def spearman(effect: np.ndarray, axis: int) -> np.ndarray:
        x = ranks if ready else rankdata(np.broadcast_to(change, effect.shape), axis=axis)
        y = effect if ready else rankdata(effect, axis=axis)
        x, y = x - (n + 1) / 2, y - (n + 1) / 2
        return (x * y).sum(axis=axis) / np.sqrt((x * x).sum(axis=axis) * (y * y).sum(axis=axis))

    return auroc if kind == "auroc" else spearman


def timed(function, *arguments, **options):
    """Return the result and the seconds it took."""
    start = time.perf_counter()
    return function(*arguments, **options), time.perf_counter() - start


def against_scipy(n: int, n_exchanges: int, n_scipy: int) -> None:
    """Print seconds per exchange of ours and of scipy's, their ratio, and both p-values in one stratum."""
    change, effect, strata = world(n, np.random.default_rng(0))
    expected = effect > np.quantile(effect, 1 - SHARE)
    print(f"{n:,} latents, {strata.max() + 1} strata, {n_exchanges:,} exchanges (scipy: {n_scipy:,}, one stratum)")
    for kind, labels in (("auroc", expected), ("spearman", effect)):
        options = {"statistic": kind, "n_resamples": n_exchanges, "rng": 0}
        _, seconds = timed(agreement_test, change, labels, strata=strata, **options)
        ours = agreement_test(change, labels, **options).pvalue
        for ready in (False, True):
            given = rankdata(labels) if ready and kind == "spearman" else labels.astype(float)
            found, slow_seconds = timed(
                permutation_test,
                (given,),
                slow(kind, change, ready=ready),
                permutation_type="pairings",
                vectorized=True,
                n_resamples=n_scipy,
                batch=max(1, 2**24 // n),
                alternative="greater",
                rng=np.random.default_rng(1),
            )
            ratio = (slow_seconds / n_scipy) / (seconds / n_exchanges)
            error = np.sqrt(ours * (1 - ours) * (1 / n_scipy + 1 / n_exchanges)) + 1 / n_scipy
            same = "equal" if abs(found.pvalue - ours) < 4 * error else "DIFFERENT"
            how = "with ranks" if ready else "as given"
            print(
                f"  {kind:8} ours {1e3 * seconds / n_exchanges:7.3f} ms, scipy {how:10}"
                f" {1e3 * slow_seconds / n_scipy:8.3f} ms per exchange: {ratio:6.1f} x;"
                f" p {ours:.3f} and {found.pvalue:.3f}, {same} within 4 standard errors"
            )


def one_adapter(arguments: tuple[int, int, int, int, int]) -> int:
    """Test one adapter's changes on every behavior against every source; return how many results were defined."""
    adapter, n, n_behaviors, n_sources, n_exchanges = arguments
    rng = np.random.default_rng(adapter)
    done = 0
    confounds = rng.normal(size=(3, n))
    strata = strata_of(*confounds, n_bins=BINS)
    changes = rng.normal(size=(n_behaviors, n))
    for _ in range(n_sources):
        pairs = list(zip(changes, rng.random((n_behaviors, n)) < SHARE, strict=True))
        results = agreement_tests(pairs, strata=strata, confounds=confounds, n_resamples=n_exchanges, rng=rng)
        done += sum(hasattr(result, "pvalue") for result in results)
    return done


def whole_study(n: int, n_behaviors: int, n_adapters: int, n_sources: int, n_exchanges: int) -> None:
    """Print the seconds that a study's tests of AUROC take on two cores, one adapter a job."""
    jobs = [(adapter, n, n_behaviors, n_sources, n_exchanges) for adapter in range(n_adapters)]
    with ProcessPoolExecutor(2) as pool:
        done, seconds = timed(lambda: sum(pool.map(one_adapter, jobs)))
    print(
        f"{n_behaviors} behaviors x {n_adapters} adapters x {n_sources} sources on {n:,} latents,"
        f" {n_exchanges:,} exchanges: {done} tests in {seconds:.1f} s on two cores"
    )


def main() -> None:
    """Run both comparisons at the sizes given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", type=int, default=65_536, help="latents in the comparison with scipy")
    parser.add_argument("--exchanges", type=int, default=10_000)
    parser.add_argument("--scipy-exchanges", type=int, default=200, help="exchanges that scipy is timed on")
    parser.add_argument("--study-latents", type=int, default=16_384, help="latents in the whole study; 0: leave it out")
    parser.add_argument("--behaviors", type=int, default=20)
    parser.add_argument("--adapters", type=int, default=5)
    parser.add_argument("--sources", type=int, default=5)
    given = parser.parse_args()
    against_scipy(given.latents, given.exchanges, given.scipy_exchanges)
    if given.study_latents:
        whole_study(given.study_latents, given.behaviors, given.adapters, given.sources, given.exchanges)


if __name__ == "__main__":
    main()
