"""How far do the changes of latents differ between two runs of one study, say on a CPU and on a GPU?

$ python benchmarks/compare_machines.py results/smollm2 elsewhere/smollm2 --subject smollm2 --adapter bias

For each behavior: correlation of the latents' changes (means over seeds), how many of the 50 most changed latents are
the same, and the held-out losses. For scale, also how two seeds of the first run correlate.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from page import markdown

from isaerft.io import read_json
from isaerft.layout import Results

N_MOST = 50


def main() -> None:
    """Print the table and the mean of each column."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--subject", required=True)
    parser.add_argument("--adapter", required=True)
    parser.add_argument("--measure", default="contribution")
    options = parser.parse_args()
    runs = [Results(options.first), Results(options.second)]
    names = sorted(path.stem for path in runs[1].changes(options.subject, "x").parent.glob("*.parquet"))
    table = pd.DataFrame([row(runs, name, options) for name in names])
    table.loc[len(table)] = {"behavior": "mean", **table.mean(numeric_only=True)}
    print(markdown(table.round(4)))


def row(runs: list[Results], behavior: str, options: argparse.Namespace) -> dict[str, object]:
    """Compare one behavior."""
    first, second = (changes(results, behavior, options) for results in runs)
    means = [run.mean(axis="columns") for run in (first, second)]
    most = [set(mean.abs().nlargest(N_MOST).index) for mean in means]
    losses = [heldout(results, behavior, options) for results in runs]
    return {
        "behavior": behavior,
        "correlation": np.corrcoef(*means)[0, 1],
        f"same of {N_MOST}": float(len(most[0] & most[1])),
        "two seeds": first.corr().iloc[0, 1] if first.shape[1] > 1 else np.nan,
        "held-out loss, first": losses[0],
        "held-out loss, second": losses[1],
    }


def changes(results: Results, behavior: str, options: argparse.Namespace) -> pd.DataFrame:
    """Return the changes, (d_sae, n_seeds)."""
    rows = pd.read_parquet(results.changes(options.subject, behavior))
    rows = rows[(rows.adapter == options.adapter) & (rows.measure == options.measure)]
    return rows.pivot(index="latent_index", columns="seed", values="change")


def heldout(results: Results, behavior: str, options: argparse.Namespace) -> float:
    """Return the mean held-out loss after training, in nats per token."""
    trainings = read_json(results.adapter(options.subject, behavior, options.adapter) / "training.json")
    return float(np.mean([training["heldout_loss_adapted"] for training in trainings]))


if __name__ == "__main__":
    main()
