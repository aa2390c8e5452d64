"""Write what the calibration study found into its page.

$ snakemake --cores all calibration
$ python benchmarks/calibration_page.py results/calibration/tables/calibration.csv --write docs/calibration.md
"""

import argparse
from pathlib import Path

import pandas as pd
from page import markdown, write_block

from isaerft import analysis
from isaerft.report.figures.calibration import with_settings

NAIVE = "naive_"


def wide(rows: pd.DataFrame, index: str, columns: str, digits: int = 3) -> str:
    """Return a table in Markdown of the values of `rows`, in their order."""
    table = rows.pivot_table(index=index, columns=columns, values="value", sort=False)
    table = table.reindex(index=list(dict.fromkeys(rows[index])), columns=list(dict.fromkeys(rows[columns])))
    shown = table.map(lambda value: "" if pd.isna(value) else f"{value:.{digits}f}")
    shown.columns = [str(column).replace("_", " ") for column in shown.columns]
    shown.insert(0, index, [f"`{name}`" for name in shown.index])
    return markdown(shown)


def with_interval(rows: pd.DataFrame, digits: int = 3) -> pd.DataFrame:
    """Return `rows` with a column `shown`: value and interval."""
    ends = rows[["value", "ci_low", "ci_high"]].itertuples(index=False)
    return rows.assign(shown=[f"{v:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})" for v, low, high in ends])


def audits(rows: pd.DataFrame) -> str:
    """Return how often audits of two sets of one origin are wrong, by world and share of the rows that a seed sees."""
    found = rows[rows["quantity"].str.startswith("audit_")]
    rates = found["test"] + " p ≤ " + found["level"]
    shown = rates.fillna(found["quantity"].map({"audit_any_found": "any q < 0.05", "audit_coverage": "coverage"}))
    at = found["world"] + ", " + found["rows"].astype(float).map("{:.0%}".format) + " of the rows"
    return wide(found.assign(at=at, shown=shown), "at", "shown")


def blocks(table: pd.DataFrame) -> dict[str, str]:
    """Return the page's blocks by name."""
    rows = with_settings(table)
    rates = rows[rows["quantity"] == "false_positive_rate"]
    ours = ~rates["test"].str.startswith(NAIVE)
    rates = rates.assign(test=rates["test"].str.removeprefix(NAIVE).str.replace("_", " "))
    at = {level: rates["level"].astype(float) == level for level in (0.05, 0.01)}
    power = rows[rows["quantity"] == "power"]
    power = power.assign(at=power["n"] + " latents, odds " + power["odds_ratio"])
    coverage = with_interval(rows[rows["quantity"] == "coverage"])
    in_null = coverage["world"].notna()
    coverage = coverage.assign(odds=("odds " + coverage["odds_ratio"]).fillna("of a judge's quality"))
    covered = coverage[~in_null].pivot(index="interval", columns="odds", values="shown")
    covered = covered.reindex(list(dict.fromkeys(coverage.loc[~in_null, "interval"]))).fillna("").reset_index()
    wrong = with_interval(rows[rows["quantity"] == "wrong_explanations_auroc"], 2)
    wrong = wrong.assign(odds="odds " + wrong["odds_ratio"], share=[f"{float(w):.0%}" for w in wrong["wrong"]])
    order = list(dict.fromkeys(wrong["odds"]))
    found = wrong.pivot(index="share", columns="odds", values="shown").reindex(list(dict.fromkeys(wrong["share"])))
    return {
        "rates at 0.05": wide(rates[ours & at[0.05]], "world", "test"),
        "rates at 0.01": wide(rates[ours & at[0.01]], "world", "test"),
        "naive": wide(rates[~ours & at[0.05]], "world", "test", 2),
        "coverage of 0": wide(coverage[in_null], "world", "interval"),
        "coverage": markdown(covered),
        "power": wide(power, "at", "test", 2),
        "audits": audits(rows),
        "wrong": markdown(found[order].reset_index().rename(columns={"share": "wrong"})),
    }


def main() -> None:
    """Fill the blocks of the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--write", type=Path, required=True, metavar="PAGE")
    arguments = parser.parse_args()
    for name, text in blocks(analysis.table("calibration").read(arguments.table)).items():
        write_block(arguments.write, name, text)


if __name__ == "__main__":
    main()
