"""The result beside its controls, as a table with a picture in each row: one dot per behavior.

The picture is drawn by the page itself, so it follows the page's width and colors, and stays legible on a phone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup

from isaerft.report.selection import RESULT, Primary, Tables, controls_in, primary_rows, subjects_of, table
from isaerft.report.template import render
from isaerft.report.text import fixed, interval, plural, visible, words

MEANINGS = {
    RESULT: "what the latents' own explanations lead one to expect",
    "mismatched_behavior": "the same changes, expectations for each other behavior",
    "shuffled_explanations": "explanations given to random latents",
    "placebo": "the behavior's expectations, training on the model's own answers",
    "random_dictionary": "an SAE with permuted decoder rows, trained alike",
    "frozen_decoder": "an SAE whose decoder stayed random in training, explained and trained alike",
    "frozen_encoder": "an SAE whose encoder stayed random in training, explained and trained alike",
    "untrained_dictionary": "random directions that fire as often, explained and trained alike",
    "random_model": "an SAE of a model with random weights, explained and trained alike",
    "firing_rate_only": "firing rate in place of the change",
    "decoder_norm_only": "decoder norm in place of the change",
    "explanation_length": "length of the explanation in place of the change",
    "genericity": "number of other behaviors that expect the latent, in place of the change",
    "shuffled_completions": "training on replies exchanged between prompts",
    "erased_mean": "training without the behavior's mean difference",
    "erased_leace": "training where the behavior was erased by the least change (LEACE)",
    "erased_iterative": "training where every direction that a reader found was erased",
    "erased_random": "training without as many random directions",
    "among_expected": "only latents that some behavior is expected to change",
}
PLACEBO = "placebo"
MEANING = {
    "auroc": "AUROC: how often a latent that was expected to rise rose more than one that was not. Dashed: {at}, what "
    "explanations without meaning reach on average.",
    "spearman": "Spearman: the rank correlation of changes and expected effects. Dashed: {at}, no correlation.",
}
FIRST = (RESULT, "mismatched_behavior", PLACEBO)
N_TICKS = 6
STEPS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
EDGE = 3.0
"""Room at both ends of the picture, in percent of its width."""

_STRIP = """
<table class="strip"><thead><tr><th scope="col">what was compared</th>
<th scope="col" class="picture">{{ title }}: one dot per behavior, the bar is their median</th>
<th scope="col" class="n">median</th><th scope="col" class="n wide">lowest to highest</th></tr></thead>
<tbody>
{% for row in rows %}<tr class="{{ row.css }}"><th scope="row">{{ row.name }}<small>{{ row.meaning }}</small></th>
<td class="picture"><svg width="100%" height="22" role="img" aria-label="{{ row.label }}">
{% for place in ticks %}<line class="tick" x1="{{ place }}%" x2="{{ place }}%" y1="0" y2="22"/>
{% endfor %}
{% if chance is not none %}<line class="chance" x1="{{ chance }}%" x2="{{ chance }}%" y1="0" y2="22"/>
{% endif %}
{% for place, name in row.dots %}<circle cx="{{ place }}%" cy="11" r="4"><title>{{ name }}</title></circle>
{% endfor %}
{% if row.median is not none %}<line class="median" x1="{{ row.median }}%" x2="{{ row.median }}%" y1="2" y2="20"/>
{% endif %}
</svg></td><td class="n">{{ row.number }}</td><td class="n wide">{{ row.range }}</td></tr>
{% endfor %}</tbody>
<tfoot><tr><td></td><td class="picture"><svg width="100%" height="16" aria-hidden="true">
{% for place, text in labels %}<text x="{{ place }}%" y="12" text-anchor="middle">{{ text }}</text>
{% endfor %}</svg></td><td></td><td class="wide"></td></tr></tfoot></table>
<p class="note">{{ meaning }}</p>
"""


@dataclass(frozen=True)
class Scale:
    """From values to places in percent of the picture's width."""

    low: float
    high: float

    def place(self, value: float) -> float:
        """Return where a value lies."""
        return round(EDGE + (100 - 2 * EDGE) * (value - self.low) / (self.high - self.low), 2)

    def ticks(self) -> list[float]:
        """Return the values to label: multiples of the smallest step that gives at most `N_TICKS`."""
        step = next((step for step in STEPS if (self.high - self.low) / step <= N_TICKS), self.high - self.low)
        first, last = int(np.ceil(self.low / step - 1e-9)), int(np.floor(self.high / step + 1e-9))
        return [round(step * k, 6) for k in range(first, last + 1)]


def strips(tables: Tables, primary: Primary) -> dict[str, Markup]:
    """Return, for each subject, the table of the result and its controls; empty where no estimate is defined."""
    rows = primary_rows(table(tables, "agreement"), primary)
    found = {}
    for subject in subjects_of(rows):
        values = _values(rows[(rows["subject"] == subject).astype(bool)])
        known = np.concatenate([series.dropna().to_numpy(float) for series in values.values()])
        if len(known):
            found[subject] = _strip(values, known, primary)
    return found


def _values(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """Return the estimates by behavior of the result and of each control, in the order of the picture."""
    found = {name: rows.loc[rows["control"] == name] for name in (RESULT, *controls_in(rows))}
    values = {name: own.set_index("behavior")["estimate"] for name, own in found.items()}
    placebo = found[RESULT].set_index("behavior")["placebo_mean"]
    if placebo.notna().any():
        values[PLACEBO] = placebo
    order = [name for name in (*FIRST, *MEANINGS) if name in values]
    return {name: values[name] for name in dict.fromkeys([*order, *values])}


def _strip(values: Mapping[str, pd.Series], known: np.ndarray, primary: Primary) -> Markup:
    """Return one subject's table."""
    chance = primary.facts.chance
    ends = known if chance is None else np.append(known, chance)
    low, high = float(ends.min()), float(ends.max())
    scale = Scale(low, high if high > low else low + 1)
    rows = [_row(name, series.dropna(), len(series), scale) for name, series in values.items()]
    ticks = scale.ticks()
    return render(
        _STRIP,
        title=primary.title,
        meaning=MEANING.get(primary.statistic, "").format(at="" if chance is None else f"{chance:g}"),
        rows=rows,
        ticks=[scale.place(tick) for tick in ticks],
        labels=[(scale.place(tick), f"{tick:g}".replace("-", "\u2212")) for tick in ticks],
        chance=None if chance is None else scale.place(chance),
    )


def _row(name: str, known: pd.Series, n: int, scale: Scale) -> dict[str, object]:
    """Return the values of one row of the template."""
    is_result = name == RESULT
    shown = {RESULT: "own explanations", PLACEBO: "placebo trainings"}.get(name, words(name))
    shown += f" ({n - len(known)} of {plural(n, 'behavior')} undefined)" if len(known) < n else ""
    median = None if known.empty else float(known.median())
    low, high = (None, None) if known.empty else (float(known.min()), float(known.max()))
    return {
        "css": "result" if is_result else "control",
        "name": shown,
        "meaning": MEANINGS.get(name, ""),
        "dots": [(scale.place(float(v)), f"{visible(k)}: {fixed(v)}") for k, v in known.items()],
        "median": None if median is None else scale.place(median),
        "number": fixed(median),
        "range": interval(low, high),
        "label": f"{shown}: median {fixed(median)}",
    }
