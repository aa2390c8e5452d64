"""Time the tests of agreement against scipy's permutation test in one run, and a whole study's tests on two cores.

$ python benchmarks/agreement_speed.py --write docs/speed.md              the tables of the page; some 5 minutes
$ python benchmarks/agreement_speed.py --latents 4096 --exchanges 1000    a look

scipy.stats.permutation_test knows no strata, so it exchanges within one; it is given the same statistic, vectorised,
once from changes and once from ranks made beforehand. It is timed on fewer exchanges, and seconds are per exchange.
Rounds of both alternate, and medians are compared.

The whole study has confounds taken out and studentized exchanges (every behavior of every adapter and source), the
matrix of all trainings with all expectations, and the rotation null of one reading: 999 random directions of an SAE's
decoder, ranked and compared with every behavior's expectations.
"""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
from page import machine, write_block
from scipy.stats import permutation_test, rankdata

from isaerft.calibration.own import N_ROTATIONS, directions_of
from isaerft.stats import agreement_test, agreement_tests, specificity_matrix, strata_of

BINS = 4
SHARE = 0.1
ROUNDS = 5
D_IN, N_SEEDS, ROTATIONS_TOGETHER = 768, 5, 100


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


def against_scipy(n: int, n_exchanges: int, n_scipy: int, *, stratified: bool) -> str:
    """Return rows of a table: seconds of ours and of scipy's per exchange, and their ratio."""
    change, effect, strata = world(n, np.random.default_rng(0))
    expected = effect > np.quantile(effect, 1 - SHARE)
    text = ""
    for kind, labels in (("auroc", expected), ("spearman", effect)):
        options = {"statistic": kind, "n_resamples": n_exchanges, "rng": 0}
        own = options | ({"strata": strata} if stratified else {})
        alone = agreement_test(change, labels, **options).pvalue
        seconds: dict[object, list[float]] = {"ours": [], False: [], True: []}
        for _ in range(ROUNDS):
            seconds["ours"].append(timed(agreement_test, change, labels, **own)[1])
            for ready in (False, True):
                given = rankdata(labels) if ready and kind == "spearman" else labels.astype(float)
                found, took = timed(
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
                seconds[ready].append(took)
        error = np.sqrt(alone * (1 - alone) * (1 / n_scipy + 1 / n_exchanges)) + 1 / n_scipy
        if abs(found.pvalue - alone) > 4 * error:
            raise SystemExit(f"{kind}: p is {alone:.4f} here and {found.pvalue:.4f} in scipy, more than chance allows")
        ours = median(seconds["ours"])
        ratios = [median(seconds[ready]) / n_scipy / (ours / n_exchanges) for ready in (False, True)]
        how = f"{strata.max() + 1} strata" if stratified else "none"
        text += f"\n| {kind} | {n:,} | {how} | {n_exchanges:,} | {1e3 * ours:,.0f} |"
        text += f" {1e3 * median(seconds[True]) / n_scipy * n_exchanges:,.0f} | {ratios[1]:,.0f} | {ratios[0]:,.0f} |"
        print(text.splitlines()[-1], flush=True)
    return text


def one_adapter(arguments: tuple[int, int, int, int, int]) -> tuple[int, float]:
    """Test one adapter's changes on every behavior against every source; return the number of results and CPU time."""
    adapter, n, n_behaviors, n_sources, n_exchanges = arguments
    start = time.process_time()
    rng = np.random.default_rng(adapter)
    done = 0
    confounds = rng.normal(size=(3, n))
    strata = strata_of(*confounds, n_bins=BINS)
    changes = rng.normal(size=(n_behaviors, n))
    for _ in range(n_sources):
        expected = rng.random((n_behaviors, n)) < SHARE
        pairs = list(zip(changes, expected, strict=True))
        results = agreement_tests(pairs, strata=strata, confounds=confounds, n_resamples=n_exchanges, rng=rng)
        done += sum(hasattr(result, "pvalue") for result in results)
        specificity_matrix(changes, expected, strata=strata, confounds=confounds)
    return done, time.process_time() - start


def rotations(arguments: tuple[int, int, int]) -> tuple[int, float]:
    """Compare random directions through a decoder with every behavior's expectations; return CPU time."""
    n, n_behaviors, n_rotations = arguments
    start = time.process_time()
    rng = np.random.default_rng(99)
    confounds = rng.normal(size=(3, n))
    strata = strata_of(*confounds, n_bins=BINS)
    decoder = rng.normal(size=(n, D_IN)) / np.sqrt(D_IN)
    directions = directions_of(decoder, np.ones(n), np.arange(n), N_SEEDS)["isotropic"]
    expected = rng.random((n_behaviors, n)) < SHARE
    for first in range(0, n_rotations, ROTATIONS_TOGETHER):
        changes = directions.changes(min(ROTATIONS_TOGETHER, n_rotations - first), rng)
        specificity_matrix(changes, expected, strata=strata, confounds=confounds)
    return 0, time.process_time() - start


def whole_study(n: int, n_behaviors: int, n_adapters: int, n_sources: int, n_exchanges: int) -> str:
    """Return a sentence: the seconds that a study's tests of AUROC take on two cores, one adapter a job."""
    jobs = [(adapter, n, n_behaviors, n_sources, n_exchanges) for adapter in range(n_adapters)]
    seconds, busy, rotated = [], [], []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        with ProcessPoolExecutor(2) as pool:
            rotation = pool.submit(rotations, (n, n_behaviors, N_ROTATIONS))
            found = list(pool.map(one_adapter, jobs))
            rotated.append(rotation.result()[1])
        seconds.append(time.perf_counter() - start)
        busy.append(sum(cpu for _, cpu in found) + rotated[-1])
        print(f"{seconds[-1]:.1f} s, {busy[-1]:.1f} CPU-seconds, {rotated[-1]:.1f} of rotations", flush=True)
    done = sum(count for count, _ in found)
    return (
        f"{n_behaviors} behaviors × {n_adapters} adapters × {n_sources} sources on {n:,} latents, {n_exchanges:,}"
        f" exchanges, confounds taken out: {done} studentized tests, {n_adapters * n_sources} matrices and a rotation"
        f" null of {N_ROTATIONS} directions took {median(seconds):.0f} s in two processes, {median(busy):.0f}"
        f" CPU-seconds, {median(rotated):.0f} of them for the rotations."
    )


def main() -> None:
    """Run all comparisons at the sizes given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", type=int, default=65_536, help="latents in the stratified comparison with scipy")
    parser.add_argument("--exchanges", type=int, default=10_000)
    parser.add_argument("--scipy-exchanges", type=int, default=200, help="exchanges that scipy is timed on")
    parser.add_argument(
        "--study-latents", type=int, default=16_384, help="latents in the whole study and without strata"
    )
    parser.add_argument("--behaviors", type=int, default=20)
    parser.add_argument("--adapters", type=int, default=5)
    parser.add_argument("--sources", type=int, default=5)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the result into this page, between its marks")
    given = parser.parse_args()
    text = f"Medians of {ROUNDS}; {machine()}. All times are for as many exchanges as ours made.\n\n"
    text += "| statistic | latents | strata | exchanges | ours, ms | scipy given ranks, ms | ratio | as given, ratio |"
    text += "\n|---|---:|---|---:|---:|---:|---:|---:|"
    text += against_scipy(given.latents, given.exchanges, given.scipy_exchanges, stratified=True)
    text += against_scipy(given.study_latents, given.exchanges // 5, given.scipy_exchanges, stratified=False)
    sizes = given.study_latents, given.behaviors, given.adapters, given.sources, given.exchanges
    text += "\n\n" + whole_study(*sizes)
    print(text)
    if given.write:
        write_block(given.write, "agreement_speed", text)


if __name__ == "__main__":
    main()
