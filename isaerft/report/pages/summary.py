"""The page that a researcher reads first."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

from isaerft.errors import InputError
from isaerft.report import captions
from isaerft.report.audit_summary import audit_lines, audit_notes
from isaerft.report.cautions import cautions
from isaerft.report.figures.specificity import own_largest, primary_specificity
from isaerft.report.headline import P_LEVEL, Q_LEVEL, Line, Share, headlines
from isaerft.report.judges import judge_lines, judge_sentence
from isaerft.report.overall import overall_sentences
from isaerft.report.pages.template import page, render
from isaerft.report.selection import CHANCE, RESULT, Primary, Tables, find_primary, real, table
from isaerft.report.sources import source_sentences
from isaerft.report.text import DASH, count, fixed, plural, visible, words

_BODY = """
<div class="page">
<h1>{{ study }}: are the explanations right?</h1>
<p class="note">The latents that fine-tuning changed are compared with the latents whose explanations said they should
change. Every number here comes from the study's tables; a dash means undefined.</p>
<h2>Primary result</h2>
{% if primary %}
<p>Named before the run: adapter <b>{{ primary.adapter }}</b>, measure <b>{{ primary.measure }}</b>, explanations from
<b>{{ primary.source }}</b>, judged by <b>{{ primary.judge }}</b>;
statistic {{ primary.statistic_name }}{{ chance }}.</p>
{% endif %}
{% for sentence in sentences %}<p class="big">{{ sentence }}</p>
{% endfor %}
{% if lines %}
<div class="scroll"><table>
<thead><tr>{% if several %}<th>subject</th>{% endif %}<th>what was compared</th><th class="n">median over behaviors</th>
<th class="n">lowest</th><th class="n">highest</th><th class="n">behaviors</th><th class="n">p &lt; {{ p_level }}</th>
<th class="n">q &lt; {{ q_level }}</th></tr></thead>
<tbody>
{% for line in lines %}<tr{% if line.is_result %} class="result"{% endif %}>
{%- if several %}<td>{{ line.subject }}</td>{% endif %}<td>{{ line.name }}</td>
{%- for value in line.numbers %}<td class="n">{{ value }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% endif %}
{% for sentence in specificity %}<p>{{ sentence }}</p>
{% endfor %}
{% if audits %}
<h2>What the suspect data teaches besides</h2>
<p>Each audit trains on a clean and on a suspect set of data of one kind. <b>First</b> is the behavior whose latents
rose most under the suspect data beyond their rise under the clean one{{ audit_statistic }}. Something is always
first; it is found only where q &lt; {{ q_level }}: where neither other rows of one origin nor other explanations would
explain it. The latents that differ most are listed whatever they are about: read them for what nobody thought of.</p>
{% for note in audit_notes %}<p class="note">{{ note }}</p>
{% endfor %}
<div class="scroll tall"><table>
<thead><tr>{% if several %}<th>subject</th>{% endif %}<th>audit</th><th>first</th><th class="n">estimate</th>
<th class="n">interval</th><th class="n">q</th><th>found (q &lt; {{ q_level }})</th><th>latents that differ most</th>
</tr></thead>
<tbody>
{% for line in audits %}<tr>{% if several %}<td>{{ line.names[0] }}</td>{% endif %}<td>{{ line.names[1] }}</td>
<td>{{ line.first }}</td>{% for value in line.numbers %}<td class="n">{{ value }}</td>{% endfor %}
<td>{{ line.found }}</td><td class="long" dir="auto">{% for text in line.latents %}{{ text }}<br>{% endfor %}</td></tr>
{% endfor %}</tbody></table></div>
{% endif %}
<h2>Read with care</h2>
{% if cautions %}<ul class="cautions">
{% for sentence in cautions %}<li>{{ sentence }}</li>
{% endfor %}</ul>{% else %}<p>The tables given raise none of the warnings that this page knows.</p>{% endif %}
{% if best_sources %}
<h2>Whose explanations predict changes best</h2>
{% for sentence in best_sources %}<p>{{ sentence }}</p>
{% endfor %}
{% endif %}
{% if judge_lines %}
<h2>How good are the judges?</h2>
<p>{{ judge_sentence }}</p>
<div class="scroll"><table>
<thead><tr>{% if several %}<th>subject</th>{% endif %}<th>source</th><th>judge</th><th>against</th>
<th class="n">MCC</th><th class="n">kappa</th><th class="n">Spearman</th><th class="n">explanations</th></tr></thead>
<tbody>
{% for line in judge_lines %}<tr>{% if several %}<td>{{ line.subject }}</td>{% endif %}
{%- for name in line.names %}<td>{{ name }}</td>{% endfor %}
{%- for value in line.numbers %}<td class="n">{{ value }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% endif %}
{% if subjects %}
<h2>Subjects</h2>
<div class="scroll"><table>
<thead><tr><th>subject</th><th>model</th><th>SAE</th><th>hook</th><th class="n">latents</th><th class="n">alive</th>
<th class="n">variance explained</th><th class="n">loss</th><th class="n">loss with SAE</th></tr></thead>
<tbody>
{% for row in subjects %}<tr>{% for value in row.names %}<td>{{ value }}</td>{% endfor %}
{%- for value in row.numbers %}<td class="n">{{ value }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% endif %}
<h2>Figures</h2>
{% for figure in figures %}
<figure><img src="data:image/svg+xml;base64,{{ figure.data }}" alt="{{ figure.caption }}">
<figcaption><b>{{ figure.title }}.</b> {{ figure.caption }}</figcaption></figure>
{% else %}<p>None was given.</p>
{% endfor %}
<h2>Tables</h2>
<dl>
{% for row in tables %}<dt>
{%- if row.link %}<a href="{{ row.link }}">{{ row.name }}</a>{% else %}{{ row.name }}{% endif %}</dt>
<dd>{{ row.rows }}. {{ row.caption }}</dd>
{% endfor %}
{%- if answers %}<dt><a href="{{ answers }}">answers</a></dt>
<dd>{{ answers_caption }}</dd>
{% endif %}</dl>
</div>
"""


def summary_page(
    tables: Tables, figures: list[Path], study: str, links: Mapping[str, str] | None = None, answers: str = ""
) -> str:
    """Return the study on one self-contained page.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        Needs `agreement`; every other table that is given adds to the page.
    figures : list of Path
        SVG files, shown in the order of `captions.FIGURES`, others after them.
    study : str
        Name of the study.
    links : mapping of str to str, optional
        Name of a table -> relative address of its page; a table without one is listed without a link.
    answers : str
        Relative address of the page of answers before and after training; empty where there is none.
    """
    primary = find_primary(table(tables, "agreement"))
    lines = headlines(tables)
    chance = f" (chance: {CHANCE[primary.statistic]:g})" if primary and primary.statistic in CHANCE else ""
    body = render(
        _BODY,
        study=visible(study),
        primary=primary,
        chance=chance,
        sentences=_sentences(lines, primary),
        lines=[_shown(line) for line in lines],
        several=len({line.subject for line in lines}) > 1,
        p_level=f"{P_LEVEL:g}",
        q_level=f"{Q_LEVEL:g}",
        specificity=[*overall_sentences(tables), *_specificity(tables)],
        audits=audit_lines(tables),
        audit_notes=audit_notes(tables),
        audit_statistic=f", by {primary.statistic_name}{chance}" if primary else "",
        cautions=cautions(tables),
        best_sources=source_sentences(tables),
        judge_lines=judge_lines(tables),
        judge_sentence=judge_sentence(tables),
        subjects=_subjects(tables),
        figures=[_figure(path) for path in sorted(figures, key=_figure_order)],
        tables=[
            {"name": name, "link": (links or {}).get(name, ""), "rows": plural(len(frame), "row")}
            | {"caption": captions.TABLES.get(name, "")}
            for name, frame in tables.items()
        ],
        answers=answers,
        answers_caption=captions.ANSWERS,
    )
    return page(f"{visible(study)}: summary", body)


def _sentences(lines: list[Line], primary: Primary | None) -> list[str]:
    """Return, for each subject, the headline with every control in the same sentence."""
    if primary is None:
        return []
    sentences = []
    for result in (line for line in lines if line.control == RESULT):
        controls = [line for line in lines if line.subject == result.subject and line.control != RESULT]
        beside = ", ".join(f"{words(line.control)} {fixed(line.median)}" for line in controls)
        sentences.append(
            f"{visible(result.subject)}: median {primary.statistic_name} {fixed(result.median)} over "
            f"{plural(result.n_behaviors, 'behavior')}; controls: {beside or 'none was run'}. "
            f"p < {P_LEVEL:g} in {_share(result.significant)} behaviors."
        )
    return sentences


def _shown(line: Line) -> dict[str, object]:
    """Return one line of the headline table as text."""
    is_result = line.control == RESULT
    behaviors = count(line.n_behaviors) + (f" (+ {line.n_missing} undefined)" if line.n_missing else "")
    numbers = [fixed(line.median), fixed(line.low), fixed(line.high), behaviors]
    return {
        "is_result": is_result,
        "subject": visible(line.subject),
        "name": "result" if is_result else f"control: {words(line.control)}",
        "numbers": [*numbers, _share(line.significant), _share(line.discovered)],
    }


def _share(share: Share) -> str:
    """Return 'k of n'; a dash when no value is defined."""
    return f"{share.k} of {share.n}" if share.n else DASH


def _specificity(tables: Tables) -> list[str]:
    """Say how often a behavior's changes fit its own explanations best, with what chance alone would give."""
    if "specificity" not in tables:
        return []
    sentences = []
    for subject, matrix in primary_specificity(tables)[1].items():
        k, n = own_largest(matrix)
        by_chance = f"; if explanations said nothing, about {n / matrix.shape[1]:.1f} of {n}" if n else ""
        sentences.append(
            f"{visible(subject)}: changes from training on a behavior fit that behavior's own explanations better than "
            f"those judged for any other in {k} of {plural(n, 'behavior')}{by_chance}."
        )
    return sentences


def _subjects(tables: Tables) -> list[dict[str, list[str]]]:
    """Return the lines of the subjects table."""
    if "subjects" not in tables:
        return []
    shown = []
    for row in real(tables["subjects"]).itertuples():
        sae = " / ".join(visible(part) for part in (row.release, row.sae_id)).replace(f"{DASH} / {DASH}", DASH)
        losses = [fixed(row.variance_explained), fixed(row.loss_base, 3), fixed(row.loss_spliced, 3)]
        names = [visible(row.subject), visible(row.model), sae, visible(row.hook_name)]
        shown.append({"names": names, "numbers": [count(row.d_sae), count(row.n_alive), *losses]})
    return shown


def _figure(path: Path) -> dict[str, str]:
    """Return a figure as the data of an image (an image cannot run scripts)."""
    if not path.is_file():
        raise InputError(f"figure {str(path)!r} does not exist", remedy="run the rule that draws it")
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    caption = captions.FIGURES.get(path.stem, "")
    return {"data": data, "title": words(path.stem).capitalize(), "caption": caption}


def _figure_order(path: Path) -> tuple[int, str]:
    """Return the place of a figure on the page."""
    known = list(captions.FIGURES)
    return (known.index(path.stem) if path.stem in known else len(known), path.stem)
