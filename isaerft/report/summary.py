"""The page to read first: what was tested, the result, its controls, cautions, and where to look next."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd
from markupsafe import Markup

from isaerft.report import ANSWERS_CAPTION
from isaerft.report.cautions import cautions
from isaerft.report.figures import FIGURES
from isaerft.report.findings import (
    P_LEVEL,
    Q_LEVEL,
    Line,
    audit_lines,
    audit_note,
    headlines,
    judge_lines,
    judge_sentence,
    overall_sentences,
    result_sentences,
    source_sentences,
    specificity_sentences,
)
from isaerft.report.provenance import provenance_sentences
from isaerft.report.selection import Tables, find_primary, real, table
from isaerft.report.template import grid, page, render
from isaerft.report.text import DASH, count, fixed, plural, visible, words
from isaerft.table import Table

ANSWERS, LATENTS = "answers", "latents"
"""Names of the page of answers, and of the page of single latents."""

_BODY = """
<div class="page">
<h1>{{ study }}: are the explanations right?</h1>
<p class="note">Fine-tuning changed some latents. Are they the ones whose explanations said they should change? Every
number here comes from the study's tables; a dash means undefined.</p>
{% if provenance %}
<h2>Whose labels are these?</h2>
{% for sentence in provenance %}<p>{{ sentence }}</p>
{% endfor %}
{% endif %}
<h2>Primary result</h2>
{% if primary %}
<p>Tested, as named before the run: the latents changed by adapter <b>{{ primary.adapter }}</b>, by the measure
<b>{{ primary.measure }}</b>, against explanations from <b>{{ primary.source }}</b>, read by judge
<b>{{ primary.judge }}</b>. Statistic: {{ primary.title }}.</p>
{% endif %}
{% for sentence in sentences %}<p class="big">{{ sentence }}</p>
{% endfor %}
{{ result_table }}
{% for sentence in further %}<p>{{ sentence }}</p>
{% endfor %}
{% if audits %}
<h2>What the suspect data also teaches</h2>
<p>Each audit trains on clean and on suspect data of one kind. <b>First</b> is the behavior whose latents rose most
under the suspect data beyond their rise under the clean data{{ audit_statistic }}. Some behavior is always first. It
is <b>found</b> only if q &lt; {{ q_level }}: other rows of the same origin would not explain it. Behaviors related to
the first rise with it. The latents that differ most are listed too, whatever they are about, to show what no candidate
covers.</p>
{% if audit_note %}<p class="note">{{ audit_note }}</p>
{% endif %}
{{ audits }}
{% endif %}
<h2>Read with care</h2>
{% if cautions %}<ul class="cautions">
{% for sentence in cautions %}<li>{{ sentence }}</li>
{% endfor %}</ul>{% else %}<p>The tables show none of the weaknesses that this page checks for.</p>{% endif %}
{% if next_steps %}
<h2>Where to look next</h2>
<ul class="next">
{% for step in next_steps %}<li>{{ step.question }}
{%- for name, link in step.links %} <a href="{{ link }}">{{ name }}</a>{{ "" if loop.last else "," }}
{%- endfor %}</li>
{% endfor %}</ul>
{% endif %}
<details><summary>How to read this page</summary>
<dl>
<dt>Result</dt><dd>One number per behavior: how well the changes of the latents match what their explanations lead the
judge to expect{{ chance }}.</dd>
<dt>Controls</dt><dd>The same number where explanations should not matter: exchanged between latents, judged for another
behavior, replaced by firing rate, decoder norm or length, or on a random dictionary. A result counts only as
far as it exceeds all of them.</dd>
<dt>p and q</dt><dd>p: how often a training on another behavior would yield so high a number, judged by how far the
trainings on the other behaviors spread. q: the same, adjusted for the number of tests; of all tests with
q &lt; 0.05, about 5 % are expected to be false.</dd>
<dt>No agreement</dt><dd>It is a finding only where the minimum detectable effect is low enough that agreement would
have been seen.</dd>
<dt>Noise ceiling</dt><dd>Seeds disagree on what changed, so no explanation can predict changes perfectly. The ceiling
says how well the seeds themselves would let it.</dd>
<dt>Specificity</dt><dd>Explanations of one behavior should fit the changes from training on that behavior, not from
others. It guards against explanations that are right about every training alike, and is the primary test; families
of behaviors that are alike count as one.</dd>
</dl>
</details>
{% if sources %}
<h2>Whose explanations predict changes best</h2>
{% for sentence in sources %}<p>{{ sentence }}</p>
{% endfor %}
{% endif %}
{% if judges %}
<h2>How good are the judges?</h2>
<p>{{ judge_sentence }}</p>
{{ judges }}
{% endif %}
{% if subjects %}
<h2>Subjects</h2>
{{ subjects }}
{% endif %}
{% if seconds %}
<h2>Where the time went</h2>
{{ seconds }}
{% endif %}
<h2>Figures</h2>
{% for figure in figures %}
<figure id="figure-{{ figure.name }}"><img src="data:image/svg+xml;base64,{{ figure.data }}" alt="{{ figure.caption }}">
<figcaption><b>{{ figure.title }}.</b> {{ figure.caption }}</figcaption></figure>
{% else %}<p>There are none.</p>
{% endfor %}
<h2>Tables</h2>
<dl>
{% for row in tables %}<dt>
{%- if row.link %}<a href="{{ row.link }}">{{ row.name }}</a>{% else %}{{ row.name }}{% endif %}</dt>
<dd>{{ row.text }}</dd>
{% endfor %}</dl>
</div>
"""

_NEXT = (
    ("Which behaviors carry the result?", "agreement"),
    ("Does the result depend on the adapter, measure, source or judge?", "agreement_grid"),
    ("Does agreement fall as explanations are made wrong?", "dose_response"),
    ("Do changes fit the explanations of their own behavior best?", "specificity"),
    ("Which explanations held, and which did not?", "explanation_verdicts"),
    ("What is known of one latent?", LATENTS),
    ("Does steering do what explanations claim?", "steering_latents"),
    ("Which latents changed most?", "most_changed_latents"),
    ("Did training work?", "training"),
    ("Did the behavior move?", "behavior_check"),
    ("Does training work through the latents that changed most?", "causal_check"),
    ("What does the suspect data teach?", "audit_latents"),
)


class _Step(NamedTuple):
    """A reader's next question, and (name, address) of the pages that answer it."""

    question: str
    links: list[tuple[str, str]]


def summary_page(
    study: str,
    tables: Tables,
    *,
    catalogue: Mapping[str, Table],
    figures: Mapping[str, bytes],
    links: Mapping[str, str],
    seconds: pd.DataFrame | None = None,
) -> str:
    """Return the study on one self-contained page.

    Parameters
    ----------
    study : str
        Name of the study.
    tables : mapping of str to DataFrame
        Needs `agreement`; each other table adds to the page.
    catalogue : mapping of str to Table
        Captions of the tables.
    figures : mapping of str to bytes
        Name -> SVG, in the order of the page.
    links : mapping of str to str
        Name of a table, `ANSWERS` or `LATENTS` -> relative address of its page.
    seconds : DataFrame, optional
        What `stage_seconds` returns; without it the page is the same for every run.
    """
    primary = find_primary(table(tables, "agreement"))
    lines = headlines(tables)
    several = len({line.subject for line in lines}) > 1
    known_chance = primary is not None and primary.facts.chance is not None
    chance = f" (chance: {primary.facts.chance:g})" if primary and known_chance else ""
    listed = [
        {"name": name, "link": links.get(name, ""), "text": f"{plural(len(frame), 'row')}. {catalogue[name].caption}"}
        for name, frame in tables.items()
        if name in catalogue
    ]
    if ANSWERS in links:
        listed.append({"name": ANSWERS, "link": links[ANSWERS], "text": ANSWERS_CAPTION})
    # Specificity, the primary test, comes first.
    overall, results = list(overall_sentences(tables)), list(result_sentences(lines, primary)) if primary else []
    n_first = sum("specificity" in sentence for sentence in overall)
    body = render(
        _BODY,
        study=visible(study),
        primary=primary,
        chance=chance,
        provenance=list(provenance_sentences(tables, primary)) if primary else [],
        sentences=[*overall[:n_first], *results],
        result_table=_result_table(lines, several=several),
        further=[*overall[n_first:], *(specificity_sentences(tables, primary) if primary else ())],
        q_level=f"{Q_LEVEL:g}",
        audits=_audits(tables, several=several),
        audit_note=audit_note(tables),
        audit_statistic=f", by {primary.title}{chance}" if primary else "",
        cautions=cautions(tables),
        next_steps=_next_steps(figures, links),
        sources=list(source_sentences(tables)),
        judges=_judges(tables, several=several),
        judge_sentence=judge_sentence(tables),
        subjects=_subjects(tables),
        seconds="" if seconds is None else _seconds(seconds),
        figures=[_figure(name, svg) for name, svg in figures.items()],
        tables=listed,
    )
    return page(f"{visible(study)}: summary", body)


def _result_table(lines: list[Line], *, several: bool) -> Markup | str:
    """Return the result and its controls as a table; empty without a primary result."""
    p, q = f"p < {P_LEVEL:g}", f"q < {Q_LEVEL:g}"
    numeric = ("median over behaviors", "lowest", "highest", "behaviors", p, q)
    rows = []
    for line in lines:
        behaviors = count(line.n_behaviors) + (f" (+ {line.n_missing} undefined)" if line.n_missing else "")
        name = "result" if line.is_result else f"control: {words(line.control)}"
        numbers = map(fixed, (line.median, line.low, line.high))
        rows.append([visible(line.subject), name, *numbers, behaviors, str(line.significant), str(line.discovered)])
    marked = [i for i, line in enumerate(lines) if line.is_result]
    return _grid(("what was compared", *numeric), rows, several=several, numeric=numeric, marked=marked)


def _audits(tables: Tables, *, several: bool) -> Markup | str:
    """Return what audits found as a table; empty without audits."""
    last = "latents that differ most"
    head = ("audit", "first", "estimate", "interval", "q", f"found (q < {Q_LEVEL:g})", last)
    rows = [
        [line.subject, line.audit, line.first, line.estimate, line.interval, line.qvalue, line.found, line.latents]
        for line in audit_lines(tables)
    ]
    return _grid(head, rows, several=several, numeric=("estimate", "interval", "q"), long=(last,), tall=True)


def _judges(tables: Tables, *, several: bool) -> Markup | str:
    """Return the judges as a table; empty if none are compared."""
    numeric = ("MCC", "kappa", "Spearman", "explanations")
    rows = [
        [line.subject, line.source, line.judge, line.against, *line.numbers, line.n_explanations]
        for line in judge_lines(tables)
    ]
    return _grid(("source", "judge", "against", *numeric), rows, several=several, numeric=numeric)


def _subjects(tables: Tables) -> Markup | str:
    """Return the subjects as a table; empty without theirs."""
    numeric = ("latents", "alive", "variance explained", "loss", "loss with SAE")
    rows = []
    for row in real(tables["subjects"]).itertuples() if "subjects" in tables else ():
        sae = " / ".join(visible(part) for part in (row.release, row.sae_id)).replace(f"{DASH} / {DASH}", DASH)
        losses = [fixed(row.variance_explained), fixed(row.loss_base, 3), fixed(row.loss_spliced, 3)]
        names = [visible(row.subject), visible(row.model), sae, visible(row.hook_name)]
        rows.append([*names, count(row.d_sae), count(row.n_alive), *losses])
    return _grid(("model", "SAE", "hook", *numeric), rows, several=True, numeric=numeric)


def _seconds(stages: pd.DataFrame) -> Markup | str:
    """Return the seconds of each stage, and of all, as a table; empty without any."""
    if stages.empty:
        return ""
    jobs, total = stages.jobs.sum(), stages.total.sum()
    lines = [*stages.itertuples(index=False, name=None), ("all", jobs, total / jobs, total)]
    rows = [[stage, str(n), f"{mean:.1f}", f"{summed:.0f}"] for stage, n, mean, summed in lines]
    numeric = ("jobs", "mean, s", "total, s")
    return grid(("rule", *numeric), rows, numeric=numeric)


def _grid(
    head: tuple[str, ...],
    rows: Sequence[Sequence[str | Sequence[str]]],
    *,
    several: bool,
    numeric: tuple[str, ...],
    long: tuple[str, ...] = (),
    marked: list[int] | None = None,
    tall: bool = False,
) -> Markup | str:
    """Return rows that begin with their subject as a table, the subject only shown among several."""
    if not rows:
        return ""
    shown = rows if several else [row[1:] for row in rows]
    names = ("subject", *head) if several else head
    return grid(names, shown, numeric=numeric, long=long, marked=marked or (), tall=tall)


def _next_steps(figures: Mapping[str, bytes], links: Mapping[str, str]) -> list[_Step]:
    """Return the questions that a figure or table of this study answers, with their addresses."""
    steps = []
    for question, name in _NEXT:
        found = [("figure", f"#figure-{name}")] if name in figures else []
        found += [("page" if name == LATENTS else "table", links[name])] if name in links else []
        if name == "behavior_check" and ANSWERS in links:
            found.append((ANSWERS, links[ANSWERS]))
        if found:
            steps.append(_Step(question, found))
    return steps


def _figure(name: str, svg: bytes) -> dict[str, str]:
    """Return a figure as the data of an image; an image cannot run scripts."""
    data = base64.b64encode(svg).decode("ascii")
    caption = FIGURES[name].caption if name in FIGURES else ""
    return {"name": name, "data": data, "title": words(name).capitalize(), "caption": caption}
