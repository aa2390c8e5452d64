"""A page of answers to held-out prompts, before and after training: for the eye, not for a conclusion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from isaerft.report.pages.template import page, render
from isaerft.report.text import ELLIPSIS, fixed, visible, words

MAX_CHARACTERS = 600

_BODY = """
<div class="page">
<h1>Answers before and after training</h1>
<p>A few held-out prompts, answered by the model itself and with each adapter at work, with the behavior's score of each
answer. These are examples; behavior_check.csv compares all of them. The text is the model's own, or the data's.</p>
{% for group in groups %}
<h2>{{ group.name }}</h2>
<div class="scroll"><table>
<thead><tr><th>adapter</th><th>prompt</th><th>before</th><th class="n">score</th>
<th>after</th><th class="n">score</th></tr></thead>
<tbody>
{% for row in group.rows %}<tr><td>{{ row.adapter }}</td><td class="long" dir="auto">{{ row.prompt }}</td>
<td class="long" dir="auto">{{ row.before }}</td><td class="n">{{ row.score_before }}</td>
<td class="long" dir="auto">{{ row.after }}</td><td class="n">{{ row.score_after }}</td></tr>
{% endfor %}</tbody></table></div>
{% else %}<p>No behavior was checked.</p>
{% endfor %}
</div>
"""


def answers_page(groups: Mapping[str, Iterable[Mapping[str, Any]]], shown: int) -> str:
    """Return the page.

    Parameters
    ----------
    groups : mapping of str to iterable of mapping
        What was checked (a behavior, of a subject where there are several) -> its answers: adapter, prompt, before,
        after, score_before, score_after. Text is untrusted.
    shown : int
        Answers shown of each adapter, the first ones.
    """
    return page(
        "Answers before and after training",
        render(_BODY, groups=[{"name": words(name), "rows": _rows(lines, shown)} for name, lines in groups.items()]),
    )


def _rows(lines: Iterable[Mapping[str, Any]], shown: int) -> list[dict[str, str]]:
    """Return the first `shown` answers of each adapter as text."""
    counts: dict[str, int] = {}
    rows = []
    for line in lines:
        adapter = visible(line["adapter"])
        counts[adapter] = counts.get(adapter, 0) + 1
        if counts[adapter] <= shown:
            texts = {name: _text(line[name]) for name in ("before", "after")}
            # The end of a prompt is what is answered; an answer is read from its beginning.
            prompt = visible(line["prompt"])
            texts["prompt"] = prompt if len(prompt) <= MAX_CHARACTERS else ELLIPSIS + prompt[-MAX_CHARACTERS:]
            scores = {name: fixed(line[name]) for name in ("score_before", "score_after")}
            rows.append({"adapter": adapter} | texts | scores)
    return rows


def _text(value: object) -> str:
    shown = visible(value)
    return shown if len(shown) <= MAX_CHARACTERS else shown[:MAX_CHARACTERS] + ELLIPSIS
