"""Does the result hold for other dictionaries and for either half of the behaviors?

$ python benchmarks/replicates.py results/smollm2 results/smollm2_replicates --write docs/real_models.md

The first table sets the specificity of local explanations beside that in other dictionaries, the second the primary
specificity in two halves of the behaviors: every other one in alphabetical order, families kept together.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from page import markdown, shown, write_block

from isaerft import analysis, stats
from isaerft.config import Study, load_plan

SOURCE = "local_input"


def read(results: Path, name: str) -> pd.DataFrame:
    """Return a result table of the study whose results are in a folder."""
    return analysis.table(name).read(results / "tables" / f"{name}.csv")


def dictionaries(results: list[Path]) -> pd.DataFrame:
    """Return the specificity of local explanations by adapter and judge (rows) and dictionary (columns)."""
    rows = pd.concat([read(folder, "overall").assign(study=folder.name) for folder in results])
    rows = rows.query("quantity == 'specificity' and measure == 'contribution' and source == @SOURCE")
    rows = rows.assign(
        shown=[shown(*row, digits=3) for row in rows[["estimate", "ci_low", "ci_high"]].itertuples(index=False)],
        dictionary=rows.study + ": " + rows.subject,
    )
    table = rows.pivot(index=["judge", "adapter"], columns="dictionary", values="shown")[list(rows.dictionary.unique())]
    return table.dropna().reset_index()


def halves(results: Path, study: Study) -> pd.DataFrame:
    """Return the specificity of each adapter in two halves of the behaviors."""
    cells = read(results, "specificity")
    keys = ["measure", "source", "judge"]
    cells = cells[(cells[keys] == [getattr(study.primary, key) for key in keys]).all(axis=1)]
    family = {name: behavior.family or name for name, behavior in study.behaviors.items()}
    side = {name: place % 2 for place, name in enumerate(sorted(set(family.values())))}
    table = []
    for adapter, rows in cells.groupby("adapter"):
        matrix = rows.pivot(index="trained_on", columns="judged_for", values="adjusted_estimate")
        row = {"adapter": adapter}
        for half, title in enumerate(("first half", "second half")):
            names = [name for name in matrix.index if side[family[name]] == half]
            square = matrix.loc[names, names].dropna(how="all").dropna(axis="columns", how="all")
            kept = [name for name in square.index if name in square.columns]
            codes = np.unique([family[name] for name in kept], return_inverse=True)[1]
            found = stats.overall_specificity(square.loc[kept, kept], families=codes, rng=0)
            interval = shown(found.statistic, *found.confidence_interval, digits=3)
            row[title] = f"{interval}, p = {found.pvalue:.2g}, {len(kept)} behaviors"
        table.append(row)
    return pd.DataFrame(table)


def main() -> None:
    """Print both tables, or write them into a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="results of the study, such as results/smollm2")
    parser.add_argument("replicates", type=Path, nargs="+", help="results of studies with other dictionaries")
    parser.add_argument("--write", type=Path, help="page to write the tables into")
    options = parser.parse_args()
    study = load_plan(Path("config") / f"{options.results.name}.yaml").study
    text = markdown(dictionaries([options.results, *options.replicates]))
    text += "\n\n" + markdown(halves(options.results, study))
    if options.write:
        write_block(options.write, "replicates", text)
    else:
        print(text)


if __name__ == "__main__":
    main()
