"""Write what a study found, from its tables, into a page of the documentation.

$ python benchmarks/study_page.py results/smollm2 --write docs/real_models.md --figure docs/figures/smollm2.svg

Adapters by specificity, behaviors one by one, controls, verdicts with steering, judges, and five explanations of each
verdict with their strongest context: first those that the verdict is surest of, otherwise drawn with seed 0.
"""

import argparse
from pathlib import Path

import pandas as pd
from page import markdown, shown, write_block

from isaerft import analysis
from isaerft.explanations.contexts import clean_token, read_contexts, without_marks

N_QUOTED = 5
AROUND = 60


class Tables:
    """The result tables of a study and the keys of its primary result."""

    def __init__(self, results: Path) -> None:
        self.results = results
        agreement = self["agreement"]
        self.primary = agreement[agreement.primary].iloc[0]

    def __getitem__(self, name: str) -> pd.DataFrame:
        """Return a table; empty if the study has none of this name."""
        path = self.results / "tables" / f"{name}.csv"
        return analysis.table(name).read(path) if path.exists() else pd.DataFrame()

    def like_primary(self, table: pd.DataFrame, *columns: str) -> pd.DataFrame:
        """Return the rows that are equal to the primary result in some columns."""
        return table[(table[list(columns)] == self.primary[list(columns)]).all(axis=1)]


def adapters(tables: Tables) -> str:
    """Return specificity by adapter, one column for each source and judge, at the primary measure."""
    rows = tables.like_primary(tables["overall"], "subject", "measure").query("quantity == 'specificity'")
    rows = rows[~rows.source.str.contains("wrong")]
    rows = rows.assign(
        reading=rows.source + ", " + rows.judge,
        shown=[shown(*row, digits=3) for row in rows[["estimate", "ci_low", "ci_high"]].itertuples(index=False)],
    )
    first = f"{tables.primary.source}, {tables.primary.judge}"
    main = tables.like_primary(rows, "source", "judge").sort_values("estimate", ascending=False).set_index("adapter")
    wide = rows.pivot(index="adapter", columns="reading", values="shown").loc[main.index].fillna("")
    wide.insert(0, "p", [f"{value:.2g}" for value in main.pvalue])
    wide.insert(0, first, wide.pop(first))
    training = tables.like_primary(tables["training"], "subject")
    recovered = training.groupby("adapter").loss_recovered.median()
    wide.insert(0, "loss recovered", [f"{recovered[name]:.2f}" if name in recovered else "" for name in wide.index])
    return markdown(wide.fillna("").replace("nan", "").reset_index())


def behaviors(tables: Tables) -> str:
    """Return the primary result of each behavior, beside whether training works."""
    keys = ("subject", "adapter", "measure", "source", "judge", "statistic")
    rows = tables.like_primary(tables["agreement"], *keys).query("control == 'none'").set_index("behavior")
    training = tables.like_primary(tables["training"], "subject", "adapter").groupby("behavior").mean(numeric_only=True)
    text = tables["behavior_check"]
    if len(text):
        text = tables.like_primary(text, "subject", "adapter").groupby("behavior").first()
    lines = []
    for name, row in rows.iterrows():
        line = {
            "behavior": name,
            "expected latents": row.n_expected,
            "adjusted AUROC": shown(row.adjusted_estimate, row.adjusted_ci_low, row.adjusted_ci_high),
            "other trainings": f"{row.null_mean:.2f} ± {row.null_sd:.2f}",
            "p": f"{row.pvalue:.2g}",
            "placebos": f"{row.placebo_mean:.2f} ± {row.placebo_sd:.2f}",
            "held-out loss": f"{training.heldout_loss_base[name]:.2f} → {training.heldout_loss_adapted[name]:.2f}",
            "loss recovered": f"{training.loss_recovered[name]:.2f}",
        }
        if name in text.index:
            found = text.loc[name]
            rise = f"{found.ci_low:.2f} to {found.ci_high:.2f}"
            line["shown in text (rise)"] = f"{found.before:.2f} → {found.after:.2f} ({rise})"
        lines.append(line)
    return markdown(pd.DataFrame(lines).fillna(""))


def controls(tables: Tables) -> str:
    """Return median and range over behaviors of the primary result and its controls."""
    keys = ("subject", "adapter", "measure", "source", "judge", "statistic")
    rows = tables.like_primary(tables["agreement"], *keys)
    lines = []
    for control, part in rows.groupby("control", sort=False):
        values = part.adjusted_estimate if control == "none" else part.estimate
        name = "**explanations against changes** (adjusted)" if control == "none" else f"control: {control}"
        lines.append(
            {
                "what": name,
                "median AUROC": f"{values.median():.2f}",
                "range": f"{values.min():.2f} to {values.max():.2f}",
            }
        )
        if control == "none":
            placebos = part.placebo_mean
            interval = f"{placebos.min():.2f} to {placebos.max():.2f}"
            n = part.n_placebos.iloc[0]
            lines.append(
                {
                    "what": f"placebo trainings (mean of {n})",
                    "median AUROC": f"{placebos.median():.2f}",
                    "range": interval,
                }
            )
    return markdown(pd.DataFrame(lines))


def estimates(rows: pd.DataFrame, *columns: str) -> str:
    """Return some columns of a table and its estimates with their intervals."""
    values = [shown(*row) for row in rows[["estimate", "ci_low", "ci_high"]].itertuples(index=False)]
    return markdown(rows[list(columns)].assign(estimate=values))


def verdicts(tables: Tables) -> str:
    """Return how many explanations of the primary source have each verdict, and what steering says of them."""
    found = tables.like_primary(tables["explanation_verdicts"], "subject", "source", "judge")
    counts = found.verdict.value_counts().rename_axis("verdict").reset_index(name="explanations")
    text = markdown(counts)
    summary = tables["steering_summary"]
    if len(summary):
        text += "\n\n" + estimates(summary.rename(columns={"n_latents": "latents"}), "quantity", "of", "latents")
    return text


def judges(tables: Tables) -> str:
    """Return how far judges agree on the primary source."""
    rows = tables.like_primary(tables["judge_quality"], "subject", "source")
    return estimates(rows, "judge", "against", "statistic")


def quoted(tables: Tables) -> str:
    """Return some explanations of each verdict with their strongest context and what training did."""
    found = tables.like_primary(tables["explanation_verdicts"], "subject", "source", "judge")
    contexts = read_contexts(tables.results / "subjects" / tables.primary.subject / "contexts.parquet")
    strongest = contexts[contexts.side == "input"].groupby("latent_index").first()
    promoted = contexts[contexts.side == "amplified"].groupby("latent_index").token
    tokens = promoted.apply(lambda group: ", ".join(filter(None, map(clean_token, group.head(4)))))
    keys = ("subject", "adapter", "measure")
    changes = pd.concat(
        pd.read_parquet(path, filters=[(key, "==", tables.primary[key]) for key in keys[1:]]).assign(behavior=path.stem)
        for path in sorted((tables.results / "changes" / tables.primary.subject).glob("*.parquet"))
    )
    standing = changes.groupby(["behavior", "latent_index"]).change.mean().groupby("behavior").rank(pct=True)
    lines = []
    for verdict, rows in found.groupby("verdict"):
        sure = {"supported": "qvalue", "contradicted": "contradiction_qvalue"}.get(str(verdict))
        some = rows.sort_values(sure) if sure else rows.sample(min(N_QUOTED, len(rows)), random_state=0)
        for row in some.head(N_QUOTED).itertuples():
            at = strongest.loc[row.latent_index]
            before, token, after = (plain(part) for part in (at.before, at.token, at.after))
            ranks = standing.xs(row.latent_index, level="latent_index")
            lines.append(
                {
                    "verdict": verdict,
                    "latent": row.latent_index,
                    "explanation": plain(row.explanation),
                    "strongest context": f"{before[-AROUND:]}**{token.strip() or token}**{after[:AROUND]}",
                    "promotes": plain(tokens.get(row.latent_index, "")),
                    "by change": f"{place(ranks, ranks.idxmax())} to {place(ranks, ranks.idxmin())}",
                    "why": plain(row.reason),
                }
            )
    return markdown(pd.DataFrame(lines))


def place(ranks: pd.Series, behavior: str) -> str:
    """Return a behavior with a latent's place among all latents by what training on it changed, in percent."""
    return f"{behavior} ({100 * ranks[behavior]:.0f} %)"


def plain(text: str) -> str:
    """Return text as a cell of a Markdown table, on one line."""
    line = " ".join(without_marks(str(text)).split())
    for mark in "\\`*_|<>[]":
        line = line.replace(mark, f"\\{mark}")
    return line


def draw(tables: Tables, path: Path) -> None:
    """Draw specificity by adapter, for every judge of the primary source."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams |= {"svg.hashsalt": "isaerft", "font.size": 9}
    import matplotlib.pyplot as plt

    rows = tables.like_primary(tables["overall"], "subject", "measure", "source").query("quantity == 'specificity'")
    main = tables.like_primary(rows, "judge").sort_values("estimate")
    names = list(main.adapter)
    figure, axes = plt.subplots(figsize=(7, 0.45 * len(names) + 1.3), layout="constrained")
    judges = [tables.primary.judge, *sorted(set(rows.judge) - {tables.primary.judge})]
    for place, judge in enumerate(judges):
        part = rows[rows.judge == judge].set_index("adapter").loc[names]
        heights = [number + 0.15 * (len(judges) / 2 - place) for number in range(len(names))]
        errors = [part.estimate - part.ci_low, part.ci_high - part.estimate]
        axes.errorbar(part.estimate, heights, xerr=errors, fmt="osD^v"[place], markersize=5 - 0.5 * place, label=judge)
    axes.axvline(0, color="0.3", linestyle="--", linewidth=1)
    axes.set_yticks(
        range(len(names)), [f"{name} (primary)" if name == tables.primary.adapter else name for name in names]
    )
    axes.set_xlabel("specificity: AUROC for the behavior's own explanations less that for other behaviors'")
    axes.legend(title="explanations judged by", frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="svg", metadata={"Date": None})


BLOCKS = {
    "adapters": adapters,
    "behaviors": behaviors,
    "controls": controls,
    "verdicts": verdicts,
    "judges": judges,
    "quoted": quoted,
}


def main() -> None:
    """Print the blocks, or write them into a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="results of the study, such as results/smollm2")
    parser.add_argument("--write", type=Path, help="page with a block for each table, such as <!-- adapters -->")
    parser.add_argument("--figure", type=Path, help="SVG file for specificity by adapter")
    options = parser.parse_args()
    tables = Tables(options.results)
    if options.figure:
        draw(tables, options.figure)
    for name, make in BLOCKS.items():
        text = make(tables)
        if options.write:
            write_block(options.write, name, text)
        else:
            print(f"\n## {name}\n\n{text}")


if __name__ == "__main__":
    main()
