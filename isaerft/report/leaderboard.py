"""The leaderboard as one self-contained page: a table for each test, and how to read it."""

from __future__ import annotations

from typing import Any

import pandas as pd
from markupsafe import Markup

from isaerft.report.selection import statistic_title
from isaerft.report.template import grid, page, render
from isaerft.report.text import DASH, count, fixed, interval, plural, undefined, visible, words

WIDTH, HEIGHT, EDGE = 150, 16, 6
TEST = ("behaviors", "adapter", "measure", "statistic", "judge")

_BODY = """
<h1>Whose explanations hold?</h1>
<p>{{ n_rows }} from {{ n_studies }}. Adapters were trained on behaviors; explanations say which latents should change
with which behavior. The ranking is by <b>specificity</b>: how much better the changes agree with a behavior's own
expectations than with other behaviors' (0 by chance). Only what was measured in one way is ranked together.</p>
{% for group in groups %}
<h2>Read by {{ group.judge }}: {{ group.adapter }}, {{ group.measure }}</h2>
<p class="note">{{ group.statistic }}. Behaviors: {{ group.behaviors }}.</p>
{{ group.table }}
{% endfor %}
<h2>How to read this page</h2>
<dl>
<dt>Provenance</dt><dd>Whether the explanations are known to be of this SAE. Where it is unknown, low numbers may mean
that they belong to another one.</dd>
<dt>Specificity, agreement</dt><dd>Means over independent behaviors, with the interval over them: what other behaviors
like these would give. Agreement alone also rewards explanations that are right about every training alike.</dd>
<dt>±</dt><dd>The smallest difference that is reliable under reseeding. Of two equal results, each with seeds of its
own, only 5 % differ by more (jackknife over seeds, Student's t). With one seed it is unknown. It says nothing about
other behaviors or another SAE.</dd>
<dt>Behind the best</dt><dd>How much less specificity than the best row. <i>Reseeding</i>: the two may be equal, for new
seeds explain as much. <i>Reliably</i>: they do not, even if the best of so many rows is picked (Tukey's range).</dd>
<dt>Same latents</dt><dd>Specificity less that of the best other source of the study, on the latents that all of its
sources explain. If the interval contains 0, neither is known to be better.</dd>
<dt>Supported, contradicted</dt><dd>Verdicts on single explanations, as a share of those that could be tested. The rest
is inconclusive or absorbed. Few verdicts may mean little power, not poor explanations.</dd>
<dt>Wrong on purpose</dt><dd>A control, without rank: explanations whose share of wrong ones is known.</dd>
</dl>
"""

_BAR = """
<svg width="{{ width }}" height="{{ height }}" role="img" aria-label="{{ label }}">
<line x1="{{ zero }}" x2="{{ zero }}" y1="0" y2="{{ height }}" stroke="var(--edge)"/>
{% if low is not none %}<line x1="{{ low }}" x2="{{ high }}" y1="{{ middle }}" y2="{{ middle }}" stroke="var(--blue)"
 stroke-width="2"/>{% endif %}
<circle cx="{{ dot }}" cy="{{ middle }}" r="4" fill="{{ color }}"/></svg>
"""


def leaderboard_page(frame: pd.DataFrame) -> str:
    """Return the page of `isaerft.analysis.leaderboard.LEADERBOARD`, given its rows as read by the table."""
    groups = [
        {
            "judge": visible(names[4]),
            "adapter": visible(names[1]),
            "measure": visible(names[2]),
            "statistic": f"Statistic: {statistic_title(str(names[3]))}",
            "behaviors": visible(names[0]),
            "table": _table(rows),
        }
        for names, rows in frame.groupby(list(TEST), sort=False)
    ]
    studies = plural(frame.study.nunique(), "study", "studies")
    body = render(_BODY, groups=groups, n_rows=plural(len(frame), "result"), n_studies=studies)
    return page("Leaderboard", body)


def _table(rows: pd.DataFrame) -> Markup:
    """Return the rows of one test as a table."""
    numeric = ("rank", "specificity", "agreement", "verdicts")
    head = (
        "rank", "study and SAE", "explanations", "specificity", "", "agreement", "behind the best", "same latents",
        "verdicts",
    )  # fmt: skip
    ends = rows[["specificity", "specificity_ci_low", "specificity_ci_high"]].astype(float)
    low, high = min(0.0, ends.min().min()), max(0.0, ends.max().max())
    cells = [
        [
            count(row.rank), _sae(row), _source(row), _estimate(row, "specificity"), _bar(row, low, high),
            _estimate(row, "agreement"), _behind(row), _paired(row), _verdicts(row),
        ]
        for row in rows.itertuples()
    ]  # fmt: skip
    marked = [place for place, row in enumerate(rows.itertuples()) if _is_best(row)]
    return grid(head, cells, numeric=numeric, marked=marked)


def _is_best(row: Any) -> bool:
    return not undefined(row.rank) and row.rank == 1


def _sae(row: Any) -> list[str]:
    """Return the lines about a row's study and SAE."""
    sae = visible(row.sae) if not undefined(row.sae) else f"{visible(row.hook_name)}, {count(row.d_sae)} latents"
    model = [visible(row.model)] if visible(row.model) not in (DASH, visible(row.subject)) else []
    return [f"{visible(row.study)}: {visible(row.subject)}", *model, sae]


def _source(row: Any) -> list[str]:
    """Return the lines about a row's explanations."""
    lines = [words(row.source)]
    if not undefined(row.makers):
        lines.append(visible(row.makers))
    return [*lines, "wrong on purpose" if row.wrong_on_purpose else f"provenance {visible(row.provenance)}"]


def _estimate(row: Any, quantity: str) -> list[str]:
    """Return an estimate, its interval over behaviors, and the smallest reliable difference."""
    value, low, high, reliable = (
        getattr(row, f"{quantity}{part}") for part in ("", "_ci_low", "_ci_high", "_reliable_difference")
    )
    lines = [fixed(value), interval(low, high)]
    return [line for line in lines if line] + ([] if undefined(reliable) else [f"± {fixed(reliable)}"])


def _bar(row: Any, low: float, high: float) -> Markup | str:
    """Return specificity and its interval as a small picture; the thin line is 0."""
    if undefined(row.specificity) or not high > low:
        return ""

    def place(value: float) -> float:
        return round(EDGE + (WIDTH - 2 * EDGE) * (value - low) / (high - low), 1)

    known = not (undefined(row.specificity_ci_low) or undefined(row.specificity_ci_high))
    ends = (place(row.specificity_ci_low), place(row.specificity_ci_high)) if known else (None, None)
    return render(
        _BAR, width=WIDTH, height=HEIGHT, middle=HEIGHT / 2, zero=place(0), low=ends[0], high=ends[1],
        dot=place(row.specificity), color="var(--faint)" if row.wrong_on_purpose else "var(--blue)",
        label=f"specificity {fixed(row.specificity)}",
    )  # fmt: skip


def _behind(row: Any) -> list[str]:
    """Return how far a row is behind the best of its test, and whether reseeding explains that."""
    if undefined(row.behind_best) or _is_best(row):
        return [DASH]
    if undefined(row.reliably_behind):
        return [fixed(row.behind_best), "one seed"]
    return [fixed(row.behind_best), "reliably" if row.reliably_behind else "reseeding"]


def _paired(row: Any) -> list[str]:
    """Return the difference from the study's best other source on the same latents."""
    if undefined(row.difference):
        return [DASH]
    ends = interval(row.difference_ci_low, row.difference_ci_high)
    return [line for line in (fixed(row.difference), ends, f"to {words(row.rival)}") if line]


def _verdicts(row: Any) -> list[str]:
    """Return how many explanations could be tested, and the shares of them that are supported and contradicted."""
    if undefined(row.n_tested) or not row.n_tested:
        return ["none tested"]
    shares = (("supported", row.share_supported), ("contradicted", row.share_contradicted))
    return [f"{count(row.n_tested)} tested", *(f"{100 * share:.1f} % {name}" for name, share in shares)]
