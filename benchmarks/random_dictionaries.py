"""Does specificity tell trained dictionaries from random ones?

$ snakemake --cores all --config study=random_dictionaries
$ python benchmarks/random_dictionaries.py results/random_dictionaries --write docs/statistics.md

Each subject of the study is a pair: its dictionary, and one random baseline of each kind. The table has, for each kind,
the mean specificity (lowest to highest), the AUROC of the dictionaries' specificities against the baselines' over all
subjects, with a bootstrap interval over subjects, and in how many subjects the dictionary is above its own baseline.
`behaviors` is the median number that can be tested (lowest to highest): with few, specificity is mostly noise.
Subjects in which either cannot be tested (its explanations name too few latents) are left out of these, and counted.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from page import markdown, shown, write_block

from isaerft import analysis

RESULT = "none"
N_DRAWS = 9999


def separation(own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the share of pairs, (..., n) against (..., n), in which `own` is above `other`; ties count half."""
    difference = own[..., :, None] - other[..., None, :]
    return ((difference > 0) + 0.5 * (difference == 0)).mean((-1, -2))


def table(rows: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Return one row per source and kind of baseline."""
    lines = []
    for source, of_source in rows.groupby("source", sort=False):
        wide = of_source.pivot(index="subject", columns="control", values="estimate")
        means = of_source.groupby("control")[["variance_explained", "l0"]].mean()
        for control in of_source["control"].unique():
            line = {"explanations": source, "dictionary": "trained" if control == RESULT else control}
            line |= {"specificity": shown(wide[control].mean(), wide[control].min(), wide[control].max())}
            untested = wide[control].isna().sum()
            tested = of_source.loc[of_source["control"] == control, "n_behaviors"]
            line["behaviors"] = f"{tested.median():.0f} ({tested.min()} to {tested.max()})"
            line |= {"AUROC of separation": "", "trained is above": "", "not testable": f"{untested} of {len(wide)}"}
            both = wide[[RESULT, control]].dropna().to_numpy().T if control != RESULT else np.empty((2, 0))
            if both.size:
                draws = np.random.default_rng(0).integers(both.shape[1], size=(N_DRAWS, both.shape[1]))
                ends = np.quantile(separation(*both[:, draws]), [(1 - level) / 2, (1 + level) / 2])
                line["AUROC of separation"] = shown(float(separation(*both)), *ends)
                line["trained is above"] = f"{(both[0] > both[1]).sum()} of {both.shape[1]}"
            explained, l0 = means.loc[control]
            lines.append(line | {"variance explained": f"{explained:.2f}", "L0": f"{l0:.1f}"})
    return pd.DataFrame(lines)


def main() -> None:
    """Print the table, or write it into a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="results of the study, such as results/random_dictionaries")
    parser.add_argument("--write", type=Path, help="page to write the table into")
    options = parser.parse_args()
    name = "random_dictionaries"
    text = markdown(table(analysis.table(name).read(options.results / "tables" / f"{name}.csv")))
    if options.write:
        write_block(options.write, name, text)
    else:
        print(text)


if __name__ == "__main__":
    main()
