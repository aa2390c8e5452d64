"""Is a baseline ahead of training only because it is contrasted with the other behaviors?

$ python benchmarks/centered_changes.py results/smollm2

Takes from every change what training on all behaviors changes on average, which is the same contrast, and prints the
specificity before and after: all latents, without taking confounds out, for a judge that is a table.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from page import markdown, shown

from isaerft import analysis, stats
from isaerft.config import load_plan


def expected(study, names: list[str], n_latents: int) -> np.ndarray:
    """Return which latents the primary judge expects to change, (n_behaviors, n_latents) bool."""
    judge = study.judges[study.primary.judge]
    table = pd.read_csv(judge.path)
    table = table[table.behavior.isin(names) & (table.expected_effect > judge.expected_above)]
    labels = np.zeros((len(names), n_latents), dtype=bool)
    labels[[names.index(name) for name in table.behavior], table.latent_index] = True
    return labels


def main() -> None:
    """Print specificity by adapter, as it is and centered."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="results of the study, such as results/smollm2")
    results = parser.parse_args().results
    plan = load_plan(Path("config") / f"{results.name}.yaml")
    primary, names = plan.study.primary, list(plan.tested_behaviors)
    overall = analysis.table("overall").read(results / "tables" / "overall.csv")
    subject = overall[overall.primary].subject.iloc[0]
    changes: dict[str, list[np.ndarray]] = {}
    for name in names:
        path = results / "changes" / subject / f"{name}.parquet"
        for adapter, rows in pd.read_parquet(path, filters=[("measure", "==", primary.measure)]).groupby("adapter"):
            seeds = rows.pivot(index="seed", columns="latent_index", values="change").to_numpy()
            changes.setdefault(str(adapter), []).append(seeds.mean(axis=0))
    lines = []
    for adapter, rows in changes.items():
        stacked = np.array(rows)
        changed = np.ptp(stacked, axis=1) > 0
        labels = expected(plan.study, names, stacked.shape[1])[changed]
        line = {"adapter": adapter}
        for title, values in (("as they are", stacked), ("less the mean", stacked - stacked.mean(axis=0))):
            found = stats.overall_specificity(stats.specificity_matrix(values[changed], labels), rng=0)
            line[title] = shown(found.statistic, *found.confidence_interval, digits=3)
        lines.append(line)
    print(markdown(pd.DataFrame(lines)))


if __name__ == "__main__":
    main()
