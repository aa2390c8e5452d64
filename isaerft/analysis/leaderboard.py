"""The leaderboard over studies: one row per SAE, source of explanations and judge, from the tables of finished studies.

Only what was measured in one way is ranked together: the same behaviors, adapter, measure, statistic and judge. The
numbers are those of each study's primary adapter and measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from isaerft import stats
from isaerft.analysis.columns import ADAPTER, JUDGE, MEASURE, PROVENANCE, SOURCE, STATISTIC, SUBJECT, ci_columns
from isaerft.errors import InputError, shown
from isaerft.layout import Results
from isaerft.table import Column, Table

TEST = ("behaviors", "adapter", "measure", "statistic", "judge")
"""Columns that say how a row was measured; rows that are alike in them are ranked together."""
QUANTITIES = ("specificity", "agreement")
_OWN = ("estimate", "ci_low", "ci_high", "reliable_difference")
_TABLES = ("overall", "agreement", "subjects", "explained_latents")


def leaderboard(catalogue: dict[str, Table], folders: Sequence[Path]) -> pd.DataFrame:
    """Return the rows of `LEADERBOARD`, the best of each test first.

    Parameters
    ----------
    catalogue : dict of str to Table
        The result tables, by name.
    folders : sequence of Path
        Results folders of finished studies, each with its folder `tables`.

    Raises
    ------
    InputError
        A folder is given twice, or lacks a table that every study has.
    """
    places = [folder.resolve() for folder in folders]
    twice = sorted({str(folder) for folder in places if places.count(folder) > 1})
    if twice or not places:
        raise InputError(
            f"studies given twice: {shown(twice)}" if twice else "a leaderboard of no study",
            allowed="results folders of finished studies, each once",
        )
    names = [folder.name for folder in places]
    rows = []
    for folder, name in zip(places, names, strict=True):
        study = name if names.count(name) == 1 else "/".join(folder.parts[-3:])
        rows += _rows_of(catalogue, Results(folder), study)
    return ranked(pd.DataFrame(rows, columns=LEADERBOARD.column_names))


def _rows_of(catalogue: dict[str, Table], results: Results, study: str) -> list[dict[str, object]]:
    """Return the rows of one study, not yet ranked."""
    read = {name: _read(catalogue[name], results) for name in _TABLES}
    others = ("explanation_verdicts", "source_comparison")
    read |= {name: _read(catalogue[name], results) for name in others if results.table(name).is_file()}
    overall = read["overall"]
    primary = overall[overall.primary.fillna(False).astype(bool)]
    if primary.empty:
        raise InputError(f"{results.table('overall')} marks no primary result", remedy="run the study again")
    test = primary.iloc[0][["adapter", "measure", "statistic"]].to_dict()
    own = overall[(overall[list(test)] == pd.Series(test)).all(axis=1)]
    behaviors = ", ".join(sorted(read["agreement"].behavior.unique()))
    runs = read["agreement"]
    n_seeds = int(runs.n_seeds[(runs[list(test)] == pd.Series(test)).all(axis=1)].max())
    subjects = read["subjects"].set_index("subject")
    makers = read["explained_latents"].set_index(["subject", "source"]).makers
    rows = []
    for (subject, source, judge), group in own.groupby(["subject", "source", "judge"], sort=False):
        row: dict[str, object] = {"study": study, "subject": subject, "source": source, "judge": judge} | test
        row["provenance"] = group.provenance.iloc[0]
        row |= {"behaviors": behaviors, "makers": makers.get((subject, source))}
        row |= _sae(subjects.loc[subject]) if subject in subjects.index else {}
        by_quantity = group.set_index("quantity")
        for quantity in QUANTITIES:
            if quantity in by_quantity.index:
                found = by_quantity.loc[quantity]
                row |= {quantity if part == "estimate" else f"{quantity}_{part}": found[part] for part in _OWN}
                row["n_behaviors"] = found.n_families
        row["n_seeds"] = n_seeds
        # Explanations that are wrong on purpose make no claim, and so belong to no family of tests.
        row["wrong_on_purpose"] = bool(by_quantity.family.isna().all())
        row |= _shares(read, subject, source, judge) | _paired(read, row)
        rows.append(row)
    return rows


def _read(table: Table, results: Results) -> pd.DataFrame:
    """Read one table of a study; one of another version names its study."""
    try:
        return table.read(results.table(table.name))
    except InputError as error:
        raise InputError(
            f"{results.root}: {error.problem}", remedy="run the study to its end, with this version of isaerft"
        ) from None


def _sae(facts: pd.Series) -> dict[str, object]:
    """Return the columns about model and SAE."""
    sae = " / ".join(str(facts[name]) for name in ("release", "sae_id") if not pd.isna(facts[name]))
    return {"model": facts.model, "sae": sae or None, "hook_name": facts.hook_name, "d_sae": facts.d_sae}


def _shares(read: dict[str, pd.DataFrame], subject: str, source: str, judge: str) -> dict[str, object]:
    """Return the columns about verdicts; none for a study without them."""
    if "explanation_verdicts" not in read:
        return {}
    rows = read["explanation_verdicts"]
    verdicts = rows[(rows.subject == subject) & (rows.source == source) & (rows.judge == judge)].verdict
    tested = verdicts[verdicts != "untestable"]
    counts: dict[str, object] = {"n_explanations": len(verdicts), "n_tested": len(tested)}
    if len(tested):
        counts |= {f"share_{name}": (tested == name).mean() for name in ("supported", "contradicted", "absorbed")}
    return counts


def _paired(read: dict[str, pd.DataFrame], row: dict[str, object]) -> dict[str, object]:
    """Return the columns of the comparison with the study's other sources, on the same latents."""
    if "source_comparison" not in read:
        return {}
    rows = read["source_comparison"]
    names = ["subject", "adapter", "measure", "statistic", "judge", "source"]
    same = rows[(rows[names] == pd.Series({name: row[name] for name in names})).all(axis=1)]
    same = same[same.quantity == "specificity"]
    columns = ("rival", "difference", "difference_ci_low", "difference_ci_high")
    return {} if same.empty else {name: same.iloc[0][name] for name in columns}


def ranked(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows ranked within each test by specificity, with what separates them from its best.

    A row is reliably behind if its distance exceeds the root mean square of the two reliable differences, times what
    `stats.factor_among` asks for among so many rows.
    """
    parts = []
    for _, group in frame.groupby(list(TEST), sort=False):
        group = group.sort_values("specificity", ascending=False, kind="stable", na_position="last")
        specificity = group.specificity.astype(float)
        claims = specificity[~group.wrong_on_purpose.astype(bool)]
        best = claims.first_valid_index()
        rank = claims.rank(ascending=False, method="min")
        group = group.assign(rank=rank.reindex(group.index).astype("Int64"), behind_best=np.nan, reliably_behind=None)
        if best is not None:
            behind = specificity[best] - specificity
            noise = group.specificity_reliable_difference.astype(float)
            limit = np.sqrt((noise**2 + noise[best] ** 2) / 2)
            least = group.n_seeds[claims.index].min()
            limit *= stats.factor_among(len(claims), int(least)) if least > 1 else np.nan
            known = behind.notna() & limit.notna() & (group.index != best)
            group = group.assign(behind_best=behind, reliably_behind=(behind > limit).astype("boolean").where(known))
        parts.append(group)
    return pd.concat(parts, ignore_index=True)


def _about(quantity: str, meaning: str) -> tuple[Column, ...]:
    """Return the columns of one quantity."""
    return (
        Column(quantity, "float", meaning, optional=True),
        *ci_columns("its interval over behaviors (Student's t)", prefix=f"{quantity}_"),
        Column(
            f"{quantity}_reliable_difference",
            "float",
            "Smallest difference that reseeding does not explain, as in overall.csv; empty with one seed.",
            optional=True,
        ),
    )


LEADERBOARD = Table(
    "leaderboard",
    "Whose explanations hold, over finished studies: one row per SAE, source of explanations and judge. Ranked among "
    "rows with the same behaviors, adapter, measure, statistic and judge; other rows are not comparable.",
    (
        Column("rank", "int", "Rank by specificity; empty for explanations that are wrong on purpose.", optional=True),
        Column("study", "text", "The study: its results folder."),
        SUBJECT,
        Column("model", "text", "The subject's model.", optional=True),
        Column("sae", "text", "Release and id of the SAE, where it has any.", optional=True),
        Column("hook_name", "text", "Where the SAE reads.", optional=True),
        Column("d_sae", "int", "Latents of the SAE.", optional=True),
        SOURCE,
        Column("makers", "text", "Who made the explanations, as in explained_latents.csv.", optional=True),
        PROVENANCE,
        Column("wrong_on_purpose", "bool", "Whether the explanations are a control, wrong on purpose."),
        JUDGE,
        ADAPTER,
        MEASURE,
        STATISTIC,
        Column("behaviors", "text", "Behaviors that the study tests."),
        Column("n_behaviors", "int", "Independent behaviors in the means.", optional=True),
        Column("n_seeds", "int", "Seeds of each training."),
        *_about("specificity", "Agreement with a behavior's own expectations less that with other behaviors'."),
        *_about("agreement", "Mean agreement of changes with the expectations of their own behavior."),
        Column("behind_best", "float", "Specificity of the best row of the same test less this one's.", optional=True),
        Column(
            "reliably_behind",
            "bool",
            "Whether reseeding explains so much in less than 5 % of cases, given how many rows there are (Tukey's "
            "range); empty for the best row and with one seed.",
            optional=True,
        ),
        Column("rival", "text", "Best other source of the same study and judge.", optional=True),
        Column("difference", "float", "Specificity less the rival's, on the latents that all explain.", optional=True),
        *ci_columns("its interval, paired over behaviors", prefix="difference_"),
        Column("n_explanations", "int", "Explanations.", optional=True),
        Column("n_tested", "int", "Explanations that could be tested one by one.", optional=True),
        Column("share_supported", "float", "Share of them with the verdict supported.", optional=True),
        Column("share_contradicted", "float", "Share of them with the verdict contradicted.", optional=True),
        Column("share_absorbed", "float", "Share of them with the verdict absorbed.", optional=True),
    ),
)
