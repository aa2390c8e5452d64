"""Write what the study of worlds found, from its tables, into pages of the documentation.

$ snakemake --cores 2 --config study=worlds
$ python benchmarks/worlds_page.py results/worlds --write docs --figure docs/figures/benchmark.svg

Into docs/testbed.md: the result by group of worlds, with the world as the unit, and what a world costs. Into
docs/benchmark.md: how well each score finds wrong explanations, kind by kind, and how far training is ahead.
"""

import argparse
import shutil
from pathlib import Path

import pandas as pd
from page import markdown, shown, write_block

from isaerft import analysis
from isaerft.analysis.replication import ALL

TRAINING, CONTROL, EVERY = "training", "control", "all"
ORDER = ("another", "neighbor", "too_broad", "too_narrow", "half_true", "other_side")
SIDES = ("input", "output")


class Tables:
    """The result tables of a study."""

    def __init__(self, results: Path) -> None:
        self.results = results

    def __getitem__(self, name: str) -> pd.DataFrame:
        return analysis.table(name).read(self.results / "tables" / f"{name}.csv")


def interval(row: pd.Series, name: str = "estimate", prefix: str = "") -> str:
    """Return a value of a row with its interval."""
    return shown(row[name], row[f"{prefix}ci_low"], row[f"{prefix}ci_high"])


def over_worlds(row: pd.Series) -> str:
    """Return a mean with its interval, or of two worlds with both values: an interval says little there."""
    if row.n_subjects > 2:
        return interval(row)
    return f"{row.estimate:.2f} ({row.lowest:.2f}, {row.highest:.2f})"


def groups(tables: Tables) -> str:
    """Return one line per group: quality of its SAEs, and each adapter's specificity by the primary explanations."""
    replication, subjects = tables["replication"], tables["subjects"]
    primary = replication[replication.primary].iloc[0]
    same = ["measure", "source", "judge", "statistic"]
    rows = replication[(replication[same] == primary[same]).all(axis=1)]
    adapters = [primary.adapter, *(name for name in rows.adapter.unique() if name != primary.adapter)]
    explained = subjects.assign(group=subjects.subject.str.replace(r"_\d+$", "", regex=True))
    explained = explained.groupby("group").variance_explained.mean()
    lines = []
    for group, of_group in rows.groupby("group", sort=False):
        found = of_group.set_index(["adapter", "quantity"])
        own = found.loc[(primary.adapter, "specificity")]
        mean = found.loc[(primary.adapter, "agreement")]
        line = {"group": group, "worlds": own.n_subjects}
        line["variance explained"] = f"{explained[group]:.3f}" if group in explained else ""
        line |= {f"AUROC, {primary.adapter}": over_worlds(mean), f"specificity, {primary.adapter}": over_worlds(own)}
        others = [name for name in adapters[1:] if (name, "specificity") in found.index]
        line |= {name: f"{found.loc[(name, 'specificity')].estimate:.2f}" for name in others}
        lines.append(line)
    return markdown(pd.DataFrame(lines).fillna(""))


def ahead(tables: Tables) -> str:
    """Return how far the primary adapter is ahead of each other one, over all worlds with features."""
    replication = tables["replication"]
    primary = replication[replication.primary].iloc[0]
    same = ["measure", "source", "judge", "statistic"]
    rows = replication[(replication[same] == primary[same]).all(axis=1) & (replication.group == ALL)]
    lines: dict[str, dict[str, str]] = {}
    for _, row in rows.dropna(subset="advantage").iterrows():
        line = lines.setdefault(row.adapter, {f"{primary.adapter} minus": row.adapter})
        name = {"agreement": "AUROC"}.get(row.quantity, row.quantity)
        line[name] = interval(row, "advantage", "advantage_")
        line[f"ahead in {name}"] = f"{row.advantage_share:.0%} of worlds"
    return markdown(pd.DataFrame(lines.values()))


def cost(tables: Tables) -> str:
    """Return the seconds of a world's jobs, two of which run at a time."""
    subjects = list(tables["subjects"].subject)
    seconds = dict.fromkeys(subjects, 0.0)
    for path in sorted((tables.results / "benchmarks").rglob("*.tsv")):
        name = path.relative_to(tables.results / "benchmarks").with_suffix("")
        parts = [part for folder in name.parts for part in folder.split(".")]
        (found,) = {part for part in parts[1:] if part in seconds} or {None}
        if found is not None:
            seconds[found] += pd.read_csv(path, sep="\t")["s"].sum()
    each = pd.Series(seconds) / 120
    return (
        f"A world's jobs take {each.median():.1f} minutes on two cores ({each.min():.1f} to {each.max():.1f}; their "
        "seconds by Snakemake's benchmark files, two jobs at a time)."
    )


def scores(tables: Tables) -> str:
    """Return the AUROC of each score over all kinds of wrong, one column for side, share and explanations."""
    rows = tables["benchmark"].query("kind == @EVERY")
    wide: dict[str, dict[str, str]] = {}
    for row in rows.itertuples():
        name = f"{row.scorer}, {row.score}"
        at = f"{row.side}, {row.share:.0%}, {row.among}"
        wide.setdefault(name, {})[at] = shown(row.auroc, row.ci_low, row.ci_high)
    at = [
        f"{side}, {share:.0%}, {among}"
        for side in SIDES
        for share in sorted(rows.share.unique())
        for among in ("testable", "all")
    ]
    seconds = rows.groupby(["scorer", "score"]).seconds.mean()
    lines = []
    for (scorer, score), took in seconds.items():
        line = wide[f"{scorer}, {score}"]
        lines.append(
            {"scorer": scorer, "score": score}
            | {name: line.get(name, "") for name in at}
            | {"seconds": "" if pd.isna(took) else f"{took:.1f}"}
        )
    first = {TRAINING: 0, "combined": 1, CONTROL: 3}
    lines.sort(key=lambda line: (first.get(line["scorer"], 2), line["scorer"], line["score"]))
    return markdown(pd.DataFrame(lines))


def kinds(tables: Tables) -> str:
    """Return the AUROC by kind of wrong among testable explanations, 40 % wrong, of training and every other score."""
    rows = tables["benchmark"].query("among == 'testable' and kind != @EVERY")
    rows = rows[rows.share == rows.share.max()]
    lines = []
    for side in SIDES:
        of_side = rows[(rows.side == side) & (rows.scorer != CONTROL)]
        wide = of_side.pivot(index=["scorer", "score"], columns="kind", values="auroc")
        wide = wide[[kind for kind in ORDER if kind in wide]]
        wide = wide.loc[wide.mean(axis=1).sort_values(ascending=False).index]
        for (scorer, score), row in wide.iterrows():
            found = {kind: "" if pd.isna(row.get(kind)) else f"{row[kind]:.2f}" for kind in ORDER}
            lines.append({"side": side, "scorer": scorer, "score": score} | found)
    return markdown(pd.DataFrame(lines))


def differences(tables: Tables) -> str:
    """Return how far training is ahead of the best other score of each question, over all kinds of wrong."""
    rows = tables["benchmark_differences"].query("kind == @EVERY and scorer not in [@CONTROL, 'combined']")
    lines = []
    for (side, share, among), group in rows.groupby(["side", "share", "among"], sort=False):
        row = group.loc[group.difference.idxmin()]
        lines.append(
            {
                "side": side,
                "wrong": f"{share:.0%}",
                "explanations": among,
                "best other score": f"{row.scorer}, {row.score}",
                "training minus it": interval(row, "difference"),
                "ahead in": f"{row.share_ahead:.0%} of {row.n_worlds} worlds",
                "p": f"{row.pvalue:.2g}",
            }
        )
    return markdown(pd.DataFrame(lines))


def main() -> None:
    """Write the blocks of both pages, or print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="results of the study, such as results/worlds")
    parser.add_argument("--write", type=Path, metavar="DOCS", help="folder with testbed.md and benchmark.md")
    parser.add_argument("--figure", type=Path, help="where to copy the study's figures/benchmark.svg")
    options = parser.parse_args()
    tables = Tables(options.results)
    blocks = {
        "testbed.md": {"groups": groups, "ahead": ahead, "cost": cost},
        "benchmark.md": {"scores": scores, "differences": differences, "kinds": kinds},
    }
    for page, makers in blocks.items():
        for name, make in makers.items():
            if options.write:
                write_block(options.write / page, name, make(tables))
            else:
                print(f"{name}\n{make(tables)}\n")
    if options.figure:
        shutil.copyfile(options.results / "figures" / "benchmark.svg", options.figure)


if __name__ == "__main__":
    main()
