"""Compare adapters where the right latents are known: data sampled from a model with a few latents changed.

A small random Llama and a random dictionary, eight times as wide as the residual stream. In one world (steering) a
constant is added to a few latents at every token, in the other (gain) a few latents are turned up or off wherever they
fire. Completions are sampled from the changed model; every adapter is trained on them from the unchanged one and asked
which latents changed. Each adapter's learning rate is the one with the lowest held-out loss on a seed of its own.

$ python benchmarks/adapter_recovery.py --out docs/adapter_recovery.csv --write docs/adapters.md
"""

import argparse
import itertools
import logging
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from page import markdown, write_block
from planted_worlds import D_SAE, N_HELDOUT, N_PLANTED, WORLDS, World, world_of
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from isaerft import config
from isaerft.adapters.base import LatentAdapter, make_adapter
from isaerft.adapters.sparsity import sparsity
from isaerft.changes.pullback import Trained
from isaerft.registry import MEASURES
from isaerft.training.loop import Training, train
from isaerft.training.row_space import trainable

N_SEEDS = 3
STEPS, RATE_SEED = 200, 99
# Inner maps multiply what a step does: they need shorter ones.
RATES, INNER_RATES = (0.03, 0.1, 0.3), (0.003, 0.01, 0.03)
ADAPTERS = {
    "bias": ("bias", {}),
    "scale": ("scale", {}),
    "affine": ("affine", {}),
    "lerp": ("lerp", {}),
    "low_rank": ("low_rank", {"rank": 8}),
    "mlp": ("mlp", {"depth": 1, "width": 64}),
}
# How many latents a behavior needs is not known in practice: the main table allows twice as many as were planted.
TARGET, TARGETS = 2 * N_PLANTED, (8, 16, 32)
MEASURED = ("parameter", "contribution", "attribution")


@dataclass(frozen=True)
class Variant:
    """One way of training an adapter.

    Attributes
    ----------
    adapter : str
        A key of `ADAPTERS`.
    sparsity : str
        `none`, `l1`, `l0`, or `lasso`: l1 that shrinks the survivors by the whole threshold.
    """

    adapter: str
    optimizer: str = "sgd"
    sparsity: str = "none"
    target: int = TARGET

    def options(self, rate: float) -> config.Adapter:
        """Return the training's options."""
        sparse = None
        if self.sparsity != "none":
            kind = "l0" if self.sparsity == "l0" else "l1"
            shrinkage = {"shrinkage": 1.0} if self.sparsity == "lasso" else {}
            sparse = config.Sparsity(kind=kind, target=self.target, **shrinkage)
        return config.Adapter(
            optimizer=self.optimizer, learning_rate=rate, steps=STEPS, patience=3, evaluate_every=20, sparsity=sparse
        )


def fit(world: World, variant: Variant, rate: float, seed: int) -> tuple[LatentAdapter, Training]:
    """Train one adapter."""
    kind, options = ADAPTERS[variant.adapter]
    settings = variant.options(rate)
    adapter = make_adapter(kind, D_SAE, options, seed)
    follow = sparsity(adapter, settings.sparsity, STEPS, seed)
    rows = world.train_rows, world.heldout_rows
    with trainable(adapter, world.subject, settings, follow) as (module, adapt):
        result = train(world.subject, module, adapt, *rows, settings, seed=seed, batch_size=N_HELDOUT, sparsity=follow)
    return adapter.requires_grad_(False), result


def measure(name: str, variant: Variant) -> list[dict[str, object]]:
    """Train all seeds of one variant in one world and return a row for each measure of change."""
    torch.set_num_threads(1)
    logging.getLogger("isaerft").setLevel(logging.WARNING)
    world = world_of(name)
    rates = INNER_RATES if variant.adapter in ("low_rank", "mlp") or variant.optimizer == "adam" else RATES
    rate = min(rates, key=lambda rate: fit(world, variant, rate, RATE_SEED)[1].heldout_loss_adapted)
    trained = [fit(world, variant, rate, seed) for seed in range(N_SEEDS)]
    base, losses = trained[0][1].heldout_loss_base, [result.heldout_loss_adapted for _, result in trained]
    planted = np.isin(np.arange(D_SAE), world.planted)
    rows = []
    for label in MEASURED:
        sizes = [
            MEASURES[label](Trained(world.subject, adapter, world.heldout_rows, N_HELDOUT)).abs().numpy()
            for adapter, _ in trained
        ]
        top = [most_changed(size) for size in sizes]
        pairs = list(itertools.combinations(range(N_SEEDS), 2))
        rows.append(
            {"world": name, "adapter": variant.adapter, "optimizer": variant.optimizer, "sparsity": variant.sparsity}
            | {"target": variant.target if variant.sparsity != "none" else None, "learning_rate": rate}
            | {
                "n_active": np.mean([adapter.n_active() for adapter, _ in trained]),
                "heldout_loss": np.mean(losses),
                "loss_recovered": (base - np.mean(losses)) / (base - world.best_loss),
                "measure": label,
                "precision_at_k": np.mean([planted[one].sum() / N_PLANTED for one in top]),
                "recall": np.mean([(size[planted] > 0).mean() for size in sizes]),
                "auroc": np.mean([roc_auc_score(planted, size) for size in sizes]),
                "top_k_overlap": np.mean([overlap(top[a], top[b]) for a, b in pairs]),
                "rank_correlation": np.mean([rank_correlation(sizes[a], sizes[b]) for a, b in pairs]),
            }
        )
    return rows


def most_changed(size: np.ndarray) -> np.ndarray:
    """Return as many latents as were planted, the most changed; fewer where fewer changed at all."""
    return np.argsort(-size, kind="stable")[: min(N_PLANTED, np.count_nonzero(size))]


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Return the share of `N_PLANTED` that two seeds' most changed latents have in common, NaN without any."""
    return len(np.intersect1d(one, other)) / N_PLANTED if len(one) and len(other) else np.nan


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return Spearman's correlation, NaN where one seed changed nothing."""
    return spearmanr(one, other).statistic if one.any() and other.any() else np.nan


def jobs_of(adapters: list[str]) -> list[tuple[str, Variant]]:
    """Return every adapter, dense and sparse, in both worlds; for the one that fits a world other ways of training."""
    jobs = [
        (world, Variant(adapter, sparsity=sparse))
        for sparse, world, adapter in itertools.product(("none", "l1", "l0"), WORLDS, adapters)
    ]
    for world, adapter in zip(WORLDS, ("bias", "scale"), strict=True):
        if adapter in adapters:
            jobs += [(world, Variant(adapter, optimizer="adam")), (world, Variant(adapter, sparsity="lasso"))]
            others = [(sparse, target) for target in TARGETS if target != TARGET for sparse in ("l1", "l0")]
            jobs += [(world, Variant(adapter, sparsity=sparse, target=target)) for sparse, target in others]
    return jobs


def run(adapters: list[str], n_jobs: int) -> pd.DataFrame:
    """Train all that is compared and return a row for each world, variant and measure."""
    jobs, rows = jobs_of(adapters), []
    with ProcessPoolExecutor(n_jobs, mp_context=get_context("spawn")) as pool:
        for part in tqdm(pool.map(measure, *zip(*jobs, strict=True)), total=len(jobs), mininterval=30):
            rows += part
    return pd.DataFrame(rows).astype({"target": "Int64"}).round(3)


def page_table(table: pd.DataFrame) -> str:
    """Return the table of docs/adapters.md in Markdown: precision by contribution, and the loss recovered."""
    is_main = (table.optimizer == "sgd") & (table.sparsity != "lasso") & table.target.fillna(TARGET).eq(TARGET)
    part = table[is_main & (table.measure == "contribution")]
    cells = part.precision_at_k.map("{:.2f}".format) + part.loss_recovered.map(" ({:.2f})".format)
    columns = part.world + ", " + part.sparsity.replace("none", "dense")
    shown = pd.crosstab(part.adapter, columns, values=cells, aggfunc="first")
    order = [name for name in ADAPTERS if name in shown.index]
    return markdown(shown.reindex(order, columns=sorted(columns.unique(), reverse=True)).reset_index())


def main() -> None:
    """Run every adapter in both worlds, and write the table and its summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="CSV file for the table, besides printing it")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the summary into this page, between its marks")
    parser.add_argument("--read", type=Path, help="CSV file of an earlier run, in place of a new one")
    parser.add_argument("--adapters", nargs="*", default=list(ADAPTERS), choices=list(ADAPTERS))
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time, one thread each")
    options = parser.parse_args()
    table = pd.read_csv(options.read) if options.read else run(options.adapters, options.jobs)
    print(table.to_string(index=False))
    if options.out:
        table.to_csv(options.out, index=False)
    if options.write:
        write_block(options.write, "recovery", page_table(table))


if __name__ == "__main__":
    main()
