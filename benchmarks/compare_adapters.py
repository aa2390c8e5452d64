"""Compare the adapters of a finished study: how well they train, how stable they are, what they agree with.

$ python benchmarks/compare_adapters.py results/testbed --write docs/adapters.md

Every value is the median over behaviors (specificity: the mean), of the study's primary measure, judge and statistic.
"""

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from page import markdown, write_block
from scipy.stats import spearmanr

from isaerft import analysis

TOP = 20


def stability(results: Path, subject: str, measure: str) -> pd.DataFrame:
    """Return, by adapter, Spearman's correlation of seeds and what their `TOP` most changed latents share."""
    rows = []
    for path in sorted((results / "changes" / subject).glob("*.parquet")):
        table = pd.read_parquet(path, filters=[("measure", "==", measure)])
        for adapter, part in table.groupby("adapter"):
            seeds = part.pivot(index="seed", columns="latent_index", values="change").to_numpy()
            top = [set(np.argsort(-np.abs(seed), kind="stable")[:TOP].tolist()) for seed in seeds]
            rows += [
                (adapter, spearmanr(seeds[i], seeds[j])[0], len(top[i] & top[j]) / TOP)
                for i, j in combinations(range(len(seeds)), 2)
            ]
    names = ["adapter", "rank correlation of seeds", f"overlap of their {TOP}"]
    return pd.DataFrame(rows, columns=names).groupby("adapter").median()


def comparison(results: Path) -> pd.DataFrame:
    """Return one row per adapter of the primary subject."""
    tables = {path.stem: analysis.table(path.stem).read(path) for path in sorted((results / "tables").glob("*.csv"))}
    agreement = tables["agreement"]
    primary = agreement[agreement.primary].iloc[0]
    same = (agreement.control == "none") & (agreement.subject == primary.subject)
    for column in ("measure", "judge", "statistic"):
        same &= agreement[column] == primary[column]
    exact = agreement[same & ~agreement.source.str.contains("wrong")]
    columns = {}
    training = tables["training"][tables["training"].subject == primary.subject]
    columns["loss recovered"] = training.groupby("adapter").loss_recovered.median()
    columns |= stability(results, primary.subject, primary.measure).to_dict("series")
    for source, rows in exact.groupby("source"):
        columns[f"{primary.statistic}, {source}"] = rows.groupby("adapter").estimate.median()
    whole = tables["overall"].query("quantity == 'specificity'")
    whole = whole[(whole[["subject", "measure", "judge"]] == primary[["subject", "measure", "judge"]]).all(axis=1)]
    for source, rows in whole[~whole.source.str.contains("wrong")].groupby("source"):
        columns[f"specificity, {source}"] = rows.set_index("adapter").estimate
    if "causal_check" in tables:
        causal = tables["causal_check"].query("latents == 'most_changed'")
        for k, rows in causal.groupby("k"):
            columns[f"loss left without its {k}"] = rows.groupby("adapter").loss_recovered.median()
    table = pd.DataFrame(columns).dropna(subset=[f"{primary.statistic}, {primary.source}"])
    return table.sort_values(f"{primary.statistic}, {primary.source}", ascending=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="folder of a finished study")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into this page, between its marks")
    options = parser.parse_args()
    found = comparison(options.results)
    shown = found.map("{:.2f}".format).replace("nan", "").reset_index()
    print(shown.to_string(index=False))
    if options.write:
        write_block(options.write, "comparison", markdown(shown))
