"""Where a study's time went, from the benchmark files that Snakemake wrote."""

from __future__ import annotations

from pathlib import Path

import pandas as pd


def stage_seconds(folder: Path) -> pd.DataFrame:
    """Return stage (a rule), jobs, mean and total wall-clock seconds, longest first; empty without files.

    Parameters
    ----------
    folder : Path
        The benchmarks folder of a study's results.
    """
    rows = [
        {"stage": path.relative_to(folder).parts[0].removesuffix(".tsv"), "seconds": seconds}
        for path in sorted(folder.rglob("*.tsv"))
        for seconds in pd.read_csv(path, sep="\t")["s"]
    ]
    groups = pd.DataFrame(rows, columns=["stage", "seconds"]).groupby("stage").seconds
    return groups.agg(jobs="count", mean="mean", total="sum").sort_values("total", ascending=False).reset_index()
