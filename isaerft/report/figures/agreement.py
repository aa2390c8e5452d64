"""Agreement of expected and measured changes: the primary result, every combination, every source of explanations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from isaerft.report.figures.canvas import (
    BLUE,
    DOTTED,
    GREY,
    INK,
    SERIES,
    Drawing,
    NoRowsError,
    Style,
    beside,
    chance_handles,
    chance_line,
    control_style,
    legend_below,
    new_drawing,
    primary_of,
    result_style,
    title,
)
from isaerft.report.figures.forest import Lines, dodge, frame, points, stack
from isaerft.report.findings import known_worse
from isaerft.report.selection import (
    RESULT,
    SOURCES,
    Primary,
    Tables,
    controls_in,
    controls_to_exceed,
    matching,
    primary_rows,
    real,
    subjects_of,
    table,
    with_controls,
)
from isaerft.report.text import count, fixed, number, plural, shorten, words

MAX_LABEL = 34
SIDE = (8, 42, 80, 118)
"""Columns of text to the right of the agreement figure, in points from the axes."""
MAX_COMBINATIONS = 240
HIGHLIGHT = "#FFF3C4"
BAND = "#E3E3E8"
SIDES = {"input": ("o", SERIES[0]), "output": ("s", SERIES[1]), "both": ("D", SERIES[3])}

Combination = tuple[str, str, str, str]
_COMBINATION = ["subject", "source", "judge", "adapter"]


def draw_agreement(tables: Tables) -> Drawing:
    """Draw one line per behavior: the result with its interval, and each control below it."""
    primary = primary_of(tables)
    rows = primary_rows(table(tables, "agreement"), primary)
    subjects, controls = subjects_of(rows), controls_in(rows)
    n_lines = [rows.loc[rows["subject"] == name, "behavior"].nunique() + 1.4 for name in subjects]
    line_height = (0.14 + 0.085 * (1 + len(controls))) * (1.0 if max(n_lines) < 30 else 0.75)
    drawing = new_drawing(8.2, 1.9 + 0.5 * len(subjects) + line_height * sum(n_lines))
    panels = drawing.subplots(len(subjects), 1, squeeze=False, sharex=True, height_ratios=n_lines)[:, 0]
    for axes, subject in zip(panels, subjects, strict=True):
        _behaviors(axes, rows[rows["subject"] == subject], primary, controls)
        if len(subjects) > 1:
            axes.set_title(shorten(subject, 60), pad=24)
    panels[-1].set_xlim(*_limits(rows, primary))
    panels[-1].set_xlabel(
        f"{primary.title} of expected against measured change, over latents (result adjusted for confounds)"
    )
    title(drawing, f"Agreement at the primary combination: {primary}")
    handles: list[Artist] = [result_style("result, with its interval").handle()]
    handles += [control_style(name, position).handle() for position, name in enumerate(controls)]
    handles += chance_handles(primary.facts.chance)
    result = rows[rows["control"] == RESULT]
    if result["null_sd"].notna().any():
        which = "placebo trainings" if result["placebo_sd"].notna().any() else "other trainings"
        handles.append(Line2D([], [], color=BAND, lw=9, label=f"{which}: mean ± 2 sd"))
    if result["noise_ceiling"].notna().any():
        handles.append(Line2D([], [], color=INK, marker="|", ms=9, mew=1.4, ls="", label="noise ceiling (seeds)"))
    if result["minimum_detectable_effect"].notna().any():
        handles.append(Line2D([], [], color=INK, lw=1.4, ls=DOTTED, label="minimum detectable effect"))
    handles.append(Line2D([], [], color=GREY, lw=1.2, ls=DOTTED, label="overall: range over behaviors"))
    legend_below(drawing, handles)
    return drawing


def draw_agreement_grid(tables: Tables) -> Drawing:
    """Draw the median over behaviors of every combination and of its controls, in the primary statistic.

    Sources that are wrong on purpose are left to the dose-response figure.
    """
    primary = primary_of(tables)
    rows = with_controls(table(tables, "agreement"))
    rows = rows[(rows["statistic"] == primary.statistic).astype(bool)]
    if SOURCES in tables:
        facts = tables[SOURCES]
        wrong = facts.loc[(facts["wrong_share"] > 0) & (facts["source"] != primary.source), "source"]
        rows = rows[~rows["source"].isin(wrong).astype(bool)]
    medians = rows.groupby([*_COMBINATION, "measure", "control"], sort=False, observed=True)["estimate"].median()
    medians = medians.dropna().reset_index()
    combinations = _in_order(medians)
    n_more = max(len(combinations) - MAX_COMBINATIONS, 0)
    several = medians["subject"].nunique() > 1
    lines = stack(combinations[:MAX_COMBINATIONS], lambda key: f"{key[0]}: {key[1]}" if several else key[1])
    measures, controls = list(dict.fromkeys(medians["measure"])), controls_in(medians)
    drawing = new_drawing(2.6 + 2.4 * max(len(measures), 2), 1.7 + 0.165 * (lines.end + 1))
    panels = drawing.subplots(1, max(len(measures), 1), squeeze=False, sharex=True, sharey=True)[0]
    for axes, measure in zip(panels, measures, strict=False):
        _combinations(axes, medians[medians["measure"] == measure], lines, controls, primary)
        axes.set_title(words(measure))
    for axes in panels:
        axes.set_xlabel(f"median {primary.title}")
    text = f"Agreement of every combination: median over {plural(rows['behavior'].nunique(), 'behavior')}"
    more = f" (the first {MAX_COMBINATIONS}; {n_more:,} more in the table)" if n_more else ""
    title(drawing, text + more)
    handles: list[Artist] = [result_style().handle()]
    handles += [control_style(name, position).handle() for position, name in enumerate(controls)]
    handles.append(Line2D([], [], color=BLUE, lw=2.6, alpha=0.35, label="result above its highest control"))
    handles.append(Line2D([], [], color=GREY, lw=2.6, alpha=0.35, label="result below its highest control"))
    handles.append(Patch(color=HIGHLIGHT, label="primary combination"))
    legend_below(drawing, [*handles, *chance_handles(primary.facts.chance)])
    return drawing


def draw_source_comparison(tables: Tables) -> Drawing:
    """Draw agreement and specificity of every source, judge by judge, the best source first."""
    primary = primary_of(tables)
    rows = matching(real(table(tables, "source_comparison")), primary, without=("source", "judge"))
    rows = rows[rows["estimate"].notna()]
    subjects, quantities = subjects_of(rows), list(dict.fromkeys(rows["quantity"]))
    if not subjects:
        raise NoRowsError("no judge reads several sources that can be compared")
    stacks = [_ranked(rows[rows["subject"] == name], name if len(subjects) > 1 else "") for name in subjects]
    heights = [lines.end + 1 for lines in stacks]
    drawing = new_drawing(2.6 + 3.4 * len(quantities), 1.4 + 0.22 * sum(heights) + 0.4 * len(subjects))
    panels = drawing.subplots(
        len(subjects), len(quantities), squeeze=False, sharex="col", sharey="row", height_ratios=heights
    )
    for row_of_panels, subject, lines in zip(panels, subjects, stacks, strict=True):
        for axes, quantity in zip(row_of_panels, quantities, strict=True):
            own = rows[(rows["subject"] == subject) & (rows["quantity"] == quantity)]
            _sources(axes, own, lines, primary, quantity)
    title(drawing, f"Whose explanations predict changes best: {primary.adapter} · {primary.measure}")
    handles = [
        Style(f"explanations of {side}", colour, marker, size=5.5).handle()
        for side, (marker, colour) in SIDES.items()
        if (rows["side"] == side).any()
    ]
    legend_below(drawing, [*handles, Style("worse than the judge's best", GREY, "o", filled=False).handle()])
    return drawing


def _behaviors(axes: Axes, rows: pd.DataFrame, primary: Primary, controls: list[str]) -> None:
    """Draw one subject's behaviors, the highest result first, and the median over behaviors below them."""
    result = rows[rows["control"] == RESULT]
    estimates = _drawn(result)[0].set_axis(result["behavior"]).fillna(-np.inf)
    behaviors = sorted(dict.fromkeys(rows["behavior"]), key=lambda name: (-estimates.get(name, -np.inf), name))
    lines = stack(behaviors)
    overall = lines.footer("overall (median)")
    frame(axes, lines, width=MAX_LABEL)
    axes.axhline(overall - 0.7, color=GREY, lw=0.8)
    chance_line(axes, primary.facts.chance)
    _chance_of_trainings(axes, result, lines)
    looks = [result_style(), *(control_style(name, position) for position, name in enumerate(controls))]
    for name, look, offset in zip([RESULT, *controls], looks, dodge(len(looks)), strict=True):
        own = rows[(rows["control"] == name) & rows["estimate"].notna()]
        if own.empty:
            continue
        values, low, high = _drawn(own)
        points(axes, values, lines.at(own["behavior"], offset), look, low=low, high=high)
        axes.hlines(overall + offset, values.min(), values.max(), color=look.colour, lw=0.9, ls=DOTTED, zorder=3)
        points(axes, [values.median()], [overall + offset], look)
    for column, linestyle in (("noise_ceiling", "-"), ("minimum_detectable_effect", DOTTED)):
        known = result[result[column].notna()]
        at = lines.at(known["behavior"])
        axes.vlines(known[column], at - 0.44, at + 0.44, color=INK, lw=1.4, ls=linestyle, zorder=2)
    _side_columns(axes, rows, lines, overall)


def _drawn(rows: pd.DataFrame) -> tuple[pd.Series, pd.Series, pd.Series]:
    """Return the estimates to draw and the ends of their intervals: adjusted for confounds where they are."""
    is_adjusted = rows["adjusted_estimate"].notna()
    names = (("adjusted_estimate", "estimate"), ("adjusted_ci_low", "ci_low"), ("adjusted_ci_high", "ci_high"))
    values, low, high = (rows[adjusted].where(is_adjusted, rows[plain]) for adjusted, plain in names)
    return values, low, high


def _chance_of_trainings(axes: Axes, result: pd.DataFrame, lines: Lines[str]) -> None:
    """Draw, behind each result, where placebo trainings lie, or other trainings where there are no placebos."""
    has_placebos = result["placebo_sd"].notna().any()
    mean, sd = ("placebo_mean", "placebo_sd") if has_placebos else ("null_mean", "null_sd")
    known = result[result[sd].notna()]
    at = lines.at(known["behavior"])
    axes.hlines(at, known[mean] - 2 * known[sd], known[mean] + 2 * known[sd], color=BAND, lw=9, zorder=1)


def _side_columns(axes: Axes, rows: pd.DataFrame, lines: Lines[str], overall: float) -> None:
    """Write result, highest control, p-value and numbers of latents to the right of the lines."""
    for x, heading in zip(SIDE, ("result", "highest\ncontrol", "p", "expected\nof latents"), strict=True):
        beside(axes, -0.95, x, heading)
    result = rows[rows["control"] == RESULT]
    required = controls_to_exceed(rows)
    highest = required.groupby("behavior")["estimate"].max()
    for row in result.itertuples():
        numbers = f"{count(row.n_expected)} of {count(row.n_latents)}"
        adjusted = row.estimate if pd.isna(row.adjusted_estimate) else row.adjusted_estimate
        cells = (fixed(adjusted), fixed(highest.get(row.behavior)), number(row.pvalue, 2), numbers)
        for x, cell in zip(SIDE, cells, strict=True):
            beside(axes, lines.heights[str(row.behavior)], x, cell)
    note = f"over {plural(int(result['estimate'].notna().sum()), 'behavior')}"
    medians = _drawn(result)[0].median(), required.groupby("control")["estimate"].median().max()
    for x, cell in zip(SIDE, (*map(fixed, medians), note), strict=False):
        beside(axes, overall, x, cell, bold=True)


def _limits(rows: pd.DataFrame, primary: Primary) -> tuple[float, float]:
    """Return limits that hold every value drawn and a tenth around chance, inside the statistic's bounds."""
    drawn = [part.to_numpy(float) for part in _drawn(rows)]
    band = [rows["placebo_mean"] + sign * 2 * rows["placebo_sd"] for sign in (-1, 1)]
    values = np.array([*drawn, *band, *rows[["noise_ceiling", "minimum_detectable_effect"]].to_numpy(float).T])
    chance = primary.facts.chance
    values = np.append(values[np.isfinite(values)], [] if chance is None else [chance - 0.1, chance + 0.1])
    if not values.size:
        return 0.0, 1.0
    margin = 0.03 * max(values.max() - values.min(), 0.1)
    low, high = primary.facts.bounds
    return max(values.min() - margin, low - margin), min(values.max() + margin, high + margin)


def _in_order(medians: pd.DataFrame) -> list[Combination]:
    """Return the combinations, sorted by the order in which their parts first occur."""
    distinct = medians[_COMBINATION].drop_duplicates()
    order = [{value: i for i, value in enumerate(dict.fromkeys(distinct[name]))} for name in _COMBINATION]
    return sorted(
        distinct.itertuples(index=False, name=None),
        key=lambda key: [places[value] for places, value in zip(order, key, strict=True)],
    )


def _combinations(
    axes: Axes, medians: pd.DataFrame, lines: Lines[Combination], controls: list[str], primary: Primary
) -> None:
    """Draw one measure's column of the grid."""
    frame(axes, lines, labels={key: f"{key[2]} · {key[3]}" for key in lines.heights}, width=40, rules=True)
    chance_line(axes, primary.facts.chance)
    at = medians.assign(height=lines.at(medians[_COMBINATION].itertuples(index=False, name=None)))
    at = at[at["height"].notna()]
    result = at[at["control"] == RESULT]
    chosen = matching(result, primary)
    for height in chosen["height"]:
        axes.axhspan(height - 0.5, height + 0.5, color=HIGHLIGHT, lw=0, zorder=0.5)
    highest = controls_to_exceed(at).groupby("height")["estimate"].max()
    spans = result.set_index("height")["estimate"].to_frame("result").join(highest.rename("control")).dropna()
    for above, colour in ((True, BLUE), (False, GREY)):
        part = spans[(spans["result"] >= spans["control"]) == above]
        axes.hlines(part.index, part["control"], part["result"], color=colour, lw=2.6, alpha=0.35, zorder=2)
    for position, name in enumerate(controls):
        own = at[at["control"] == name]
        points(axes, own["estimate"], own["height"], replace(control_style(name, position), size=3.6))
    points(axes, result["estimate"], result["height"], replace(result_style(), size=5.4))


def _ranked(rows: pd.DataFrame, subject: str) -> Lines[tuple[str, str]]:
    """Return one line for each judge and source, the best source of each judge first."""
    first = rows[rows["quantity"] == rows["quantity"].iloc[0]].sort_values("rank", kind="stable")
    judges = list(dict.fromkeys(rows["judge"]))
    keys = sorted(zip(first["judge"], first["source"], strict=True), key=lambda key: judges.index(key[0]))
    return stack(keys, lambda key: f"judge: {subject}: {key[0]}" if subject else f"judge: {key[0]}")


def _sources(axes: Axes, rows: pd.DataFrame, lines: Lines[tuple[str, str]], primary: Primary, quantity: str) -> None:
    """Draw one quantity of every source; hollow markers are known to be worse than the judge's best."""
    frame(axes, lines, labels={key: words(key[1]) for key in lines.heights}, width=MAX_LABEL)
    chance_line(axes, primary.facts.chance if quantity == "agreement" else 0.0)
    heights = lines.at(zip(rows["judge"], rows["source"], strict=True))
    rows = rows.assign(height=heights, hollow=[known_worse(row) for row in rows.itertuples()])
    for side, own in rows.groupby("side", sort=False):
        marker, colour = SIDES.get(str(side), SIDES["both"])
        look = Style("", colour, marker, size=5.5, alpha=1.0)
        ends = {"low": own["ci_low"], "high": own["ci_high"]}
        points(axes, own["estimate"], own["height"], look, hollow=own["hollow"], **ends)
    for row in rows.itertuples():
        beside(axes, row.height, 6, fixed(row.estimate), bold=row.rank == 1)
    name = primary.title
    axes.set_xlabel(f"mean {name}" if quantity == "agreement" else f"{name}, own behavior minus others")
    axes.set_title(words(quantity))
