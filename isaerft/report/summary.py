"""The page to read first: what was tested, the verdict, the result beside its controls, cautions, and what is next."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import Markup

from isaerft.report import ANSWERS_CAPTION
from isaerft.report.cautions import cautions
from isaerft.report.figures import FIGURES
from isaerft.report.findings import (
    Q_LEVEL,
    audit_lines,
    audit_note,
    judge_lines,
    judge_sentence,
    single_sentences,
    source_sentences,
    specificity_sentences,
)
from isaerft.report.provenance import provenance_sentences
from isaerft.report.selection import (
    RESULT,
    Primary,
    Setup,
    Tables,
    find_primary,
    primary_rows,
    real,
    subjects_of,
    table,
)
from isaerft.report.strip import strips
from isaerft.report.template import grid, page, render
from isaerft.report.text import DASH, count, fixed, named, plural, undefined, visible, words
from isaerft.report.verdict import looking_sentences, verdicts
from isaerft.table import Table

ANSWERS, LATENTS = "answers", "latents"
"""Names of the page of answers, and of the page of single latents."""
DEFAULT = Setup()
MAX_SUBJECTS = 6
"""Subjects that the first lines name."""

_TOP = """
{% if tested %}
<dl class="tested">
{% for name, lines in tested %}<dt>{{ name }}</dt><dd>{{ lines | join(br) }}</dd>
{% endfor %}</dl>
{% endif %}
{% if verdicts %}
<h2 id="result">Does training on a behavior change the latents whose explanations speak of it, rather than of
another?</h2>
{% for verdict in verdicts %}
<section class="verdict {{ verdict.state }}">
{% if several %}<h3>{{ verdict.about }}</h3>
{% endif %}
<p class="big"><b>{{ verdict.answer }}</b> {{ verdict.claim }}</p>
{% if verdict.control %}<p>{{ verdict.control }}</p>
{% endif %}
{% for reason in verdict.reasons %}<p>{{ reason }}</p>
{% endfor %}
</section>
{{ verdict.strip }}
{% endfor %}
{% endif %}
{% for sentence in further %}<p>{{ sentence }}</p>
{% endfor %}
<h2 id="cautions">Read with care</h2>
{% if cautions %}<ul class="cautions">
{% for sentence in cautions %}<li>{{ sentence }}</li>
{% endfor %}</ul>{% else %}<p>The tables show none of the weaknesses that this page checks for.</p>{% endif %}
"""

_BODY = """
<div class="page summary">
<h1>{{ study }}: are the explanations right?</h1>
<nav>{% for name, link in menu %}<a href="#{{ link }}">{{ name }}</a>{% endfor %}</nav>
{{ top }}
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
<h2 id="next">Where to look next</h2>
<ul class="next">
{% for step in next_steps %}<li>{{ step.question }}
{%- for name, link in step.links %} <a href="{{ link }}">{{ name }}</a>{{ "" if loop.last else "," }}
{%- endfor %}</li>
{% endfor %}
<li>All of it in one file, to send to somebody: <a href="report.html">report.html</a>, which <code>make results</code>
writes after this page</li>
</ul>
<details id="reading"><summary>How to read this page</summary>
<dl>
<dt>Specificity</dt><dd>The primary test: how much better the changes from training on a behavior agree with that
behavior's own explanations than with other behaviors', adjusted for confounds. 0: no better. It guards against
explanations that are right about every training alike. Families of behaviors that are alike count as one.</dd>
<dt>Controls</dt><dd>The same number where explanations should not matter. A result counts only as far as it exceeds all
of them.</dd>
<dt>The answer</dt><dd><b>Yes</b> needs an interval above 0 and a p-value that agrees. <b>No</b> needs an interval below
the smallest effect that the study's config names (<code>smallest_effect</code>). Between them nothing is shown, and
that is no evidence that explanations are wrong.</dd>
<dt>p and q</dt><dd>p of specificity: how often so high a value would come from pairing behaviors with explanations at
random. p of one behavior: how often a training on another behavior would yield so high a number, judged by how far the
trainings on the other behaviors spread. q: the same, adjusted for the number of tests; of all tests with
q &lt; 0.05, about 5 % are expected to be false.</dd>
<dt>Noise ceiling</dt><dd>Seeds disagree on what changed, so no explanation can predict changes perfectly. The ceiling
says how well the seeds themselves would let it.</dd>
<dt>A dash</dt><dd>Undefined. Every number here comes from the study's tables.</dd>
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
<h2 id="figures">Figures</h2>
{% for figure in figures %}
<figure id="figure-{{ figure.name }}"><div class="paper"><img src="data:image/svg+xml;base64,{{ figure.data }}"
 alt="{{ figure.caption }}"></div>
<figcaption><b>{{ figure.title }}.</b> {{ figure.caption }}</figcaption></figure>
{% else %}<p>There are none.</p>
{% endfor %}
<h2 id="tables">Tables</h2>
<dl>
{% for row in tables %}<dt>
{%- if row.link %}<a href="{{ row.link }}">{{ row.name }}</a>{% else %}{{ row.name }}{% endif %}</dt>
<dd>{{ row.text }}</dd>
{% endfor %}</dl>
<h2 id="time">Where the time went</h2>
{% if seconds %}{{ seconds }}
{% else %}<p>Not recorded, so that two runs give the same bytes. Set <code>record_seconds: true</code> in the study's
config to see it.</p>
{% endif %}
</div>
"""

_MENU = (
    ("Result", "result"),
    ("Cautions", "cautions"),
    ("Where next", "next"),
    ("How to read", "reading"),
    ("Figures", "figures"),
    ("Tables", "tables"),
    ("Time", "time"),
)

_NEXT = (
    ("Which behaviors carry the result?", "agreement"),
    ("Does the result depend on the adapter, measure, source or judge?", "agreement_grid"),
    ("Does agreement fall as explanations are made wrong?", "dose_response"),
    ("Do changes fit the explanations of their own behavior best?", "specificity"),
    ("Do other adapters agree, and does training tell more than looking?", "overall"),
    ("Which differences are larger than other seeds would make them?", "claims"),
    ("How far would the numbers move with other seeds?", "reliability"),
    ("Do the numbers separate variants of one SAE?", "discriminability"),
    ("Which explanations held, and which did not?", "explanation_verdicts"),
    ("What is known of one latent?", LATENTS),
    ("Does steering do what explanations claim?", "steering_latents"),
    ("Which latents changed most?", "most_changed_latents"),
    ("Did training work?", "training"),
    ("Did the behavior move?", "behavior_check"),
    ("Does training work through the latents that changed most?", "causal_check"),
    ("What do learned maps read and write?", "map_components"),
    ("What are latents composed of?", "latent_composition"),
    ("How few directions does training need, and whose?", "loss_curves"),
    ("Which latents change first?", "changes_over_time"),
    ("How do answers respond to noise in the model?", "noise_probe"),
    ("How few latents carry the effect?", "change_shape"),
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
    setup: Setup = DEFAULT,
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
    setup : Setup, optional
        What the study's config says that the tables do not.
    seconds : DataFrame, optional
        What `stage_seconds` returns; without it the page is the same for every run.
    """
    primary = find_primary(table(tables, "agreement"))
    several = len(subjects_of(tables["agreement"])) > 1
    known_chance = primary is not None and primary.facts.chance is not None
    chance = f" (chance: {primary.facts.chance:g})" if primary and known_chance else ""
    listed = [
        {"name": name, "link": links.get(name, ""), "text": f"{plural(len(frame), 'row')}. {catalogue[name].caption}"}
        for name, frame in tables.items()
        if name in catalogue
    ]
    if ANSWERS in links:
        listed.append({"name": ANSWERS, "link": links[ANSWERS], "text": ANSWERS_CAPTION})
    body = render(
        _BODY,
        study=visible(study),
        menu=[(name, link) for name, link in _MENU if primary or link != "result"],
        top=summary_top(tables, setup),
        q_level=f"{Q_LEVEL:g}",
        audits=_audits(tables, several=several),
        audit_note=audit_note(tables),
        audit_statistic=f", by {primary.title}{chance}" if primary else "",
        next_steps=_next_steps(figures, links),
        sources=_plain(source_sentences(tables), tables),
        judges=_judges(tables, several=several),
        judge_sentence=judge_sentence(tables),
        subjects=_subjects(tables),
        seconds="" if seconds is None else _seconds(seconds),
        figures=[_figure(name, svg) for name, svg in figures.items()],
        tables=listed,
    )
    return page(f"{visible(study)}: summary", body)


def summary_top(tables: Tables, setup: Setup) -> Markup:
    """Return the first part of the page: what was tested, the verdict, the result beside its controls, cautions."""
    primary = find_primary(table(tables, "agreement"))
    found = verdicts(tables, setup)
    pictures = strips(tables, primary) if primary else {}
    cards = [{**vars(verdict), "strip": pictures.get(verdict.about, "")} for verdict in found]
    further: list[str] = []
    if primary:
        further += [*single_sentences(tables), *specificity_sentences(tables, primary)]
        further += looking_sentences(tables, setup)
    return render(
        _TOP,
        br=Markup("<br>"),
        tested=_tested(tables, primary, setup) if primary else [],
        verdicts=cards,
        several=len(found) > 1,
        further=_plain(further, tables),
        cautions=_plain(cautions(tables), tables),
    )


def _tested(tables: Tables, primary: Primary, setup: Setup) -> list[tuple[str, list[str]]]:
    """Return what was tested, as named lines."""
    rows = primary_rows(table(tables, "agreement"), primary)
    result = real(rows[rows["control"] == RESULT])
    behaviors, seeds = list(dict.fromkeys(result["behavior"])), plural(int(result["n_seeds"].max()), "seed")
    matters = (
        "" if setup.smallest_effect is None else f"; smallest specificity that would matter {setup.smallest_effect:g}"
    )
    lines = {
        "Model and SAE": [_subject_line(row) for row in _real_subjects(tables)[:MAX_SUBJECTS]],
        "Trained on": [f"{plural(len(behaviors), 'behavior')}, {seeds} each: {named(behaviors)}"],
        "Explanations": [f"{words(primary.source)}, of {count(result['n_latents'].max())} latents"],
        "Named beforehand": [
            f"adapter {words(primary.adapter)}, change {words(primary.measure)}, judge {words(primary.judge)}, "
            f"statistic {primary.title}{matters}"
        ],
        "Whose labels are these?": _plain(provenance_sentences(tables, primary), tables),
    }
    return [(name, text) for name, text in lines.items() if text]


def _subject_line(row: Any) -> str:
    """Return model, SAE and hook in one line."""
    sae = [visible(part) for part in (row.release, row.sae_id) if not undefined(part)]
    model = _model(row)
    name = "" if visible(row.subject) == model else f"{visible(row.subject)}: "
    where = [
        model,
        *sae,
        visible(row.hook_name),
        f"{count(row.d_sae)} latents ({count(row.n_alive)} alive)",
    ]
    return name + ", ".join(where)


def _model(row: Any) -> str:
    """Return a model's id; of a folder its name alone, for the rest is about a machine."""
    return visible(PurePath(row.model).name if str(row.model).startswith("/") else row.model)


def _real_subjects(tables: Tables) -> list[Any]:
    return list(real(tables["subjects"]).itertuples()) if "subjects" in tables else []


def _plain(sentences: Iterable[str], tables: Tables) -> list[str]:
    """Return sentences, each without the name of its subject if there is one subject only."""
    subjects = subjects_of(table(tables, "agreement"))
    if len(subjects) != 1:
        return list(sentences)
    name = visible(subjects[0])
    plain = (text.removeprefix(f"{name}: ").removeprefix(f"{name}, ") for text in sentences)
    return [text[:1].upper() + text[1:] for text in plain]


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
    for row in _real_subjects(tables):
        sae = " / ".join(visible(part) for part in (row.release, row.sae_id)).replace(f"{DASH} / {DASH}", DASH)
        losses = [fixed(row.variance_explained), fixed(row.loss_base, 3), fixed(row.loss_spliced, 3)]
        names = [visible(row.subject), _model(row), sae, visible(row.hook_name)]
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
