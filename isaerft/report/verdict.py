"""The verdict of a study in a sentence: the primary result, its interval before its p-value, and the nearest control.

The primary hypothesis is specificity above 0: changes from training on a behavior agree with that behavior's own
explanations better than with other behaviors' explanations. Sentences are plain text, not yet escaped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import factorial
from typing import Any

import pandas as pd

from isaerft.report.findings import Line, headlines, not_exceeded
from isaerft.report.provenance import EXPLAINED, PROVEN, is_of_another
from isaerft.report.selection import Setup, Tables, find_primary, matching, real, statistic_title, table
from isaerft.report.text import fixed, interval, named, plural, probability, undefined, visible, words

SPECIFICITY = "specificity"
MET, OPEN, UNMET = "met", "open", "unmet"
"""What the evidence says of the hypothesis: that it holds, nothing definite, that it does not."""


@dataclass(frozen=True)
class Verdict:
    """What the primary result of one subject, or of a group of subjects, says.

    Attributes
    ----------
    about : str
        The subject or group.
    state : str
        `MET`, `OPEN` or `UNMET`.
    answer : str
        A few words.
    claim : str
        The effect with its interval, p-value and extent.
    control : str
        What the same explanations reach beside their controls; empty for a group.
    reasons : tuple of str
        What keeps the answer from being plainer.
    """

    about: str
    state: str
    answer: str
    claim: str
    control: str = ""
    reasons: tuple[str, ...] = ()


def verdicts(tables: Tables, setup: Setup) -> list[Verdict]:
    """Return the verdict on each group of subjects, and then on each subject; none without a primary result."""
    lines = headlines(tables)
    found = list(_groups(tables, setup))
    rows = _specificity(tables)
    for result in (line for line in lines if line.is_result):
        row = next((row for row in rows.itertuples() if row.subject == result.subject), None)
        controls = [line for line in lines if line.subject == result.subject and not line.is_result]
        found.append(_verdict(tables, row, result, controls, not_exceeded(lines, result.subject), setup))
    return found


def looking_sentences(tables: Tables, setup: Setup) -> Iterator[str]:
    """Yield, for each subject, the specificity of the adapters that are fitted without training."""
    primary = find_primary(table(tables, "agreement"))
    if primary is None or "overall" not in tables:
        return
    rows = matching(real(tables["overall"]), primary, without=("adapter",))
    rows = rows[(rows["quantity"] == SPECIFICITY) & rows["estimate"].notna() & rows["adapter"].isin(setup.untrained)]
    several = rows["subject"].nunique() > 1
    for subject, own in rows.groupby("subject", sort=False):
        listed = ", ".join(f"{words(row.adapter)} {_estimate(row)}" for row in own.itertuples())
        yield f"{f'{visible(subject)}: ' if several else ''}Specificity by looking, without any training: {listed}."


def _specificity(tables: Tables) -> pd.DataFrame:
    """Return the rows of the primary test."""
    if "overall" not in tables:
        return pd.DataFrame(columns=["subject"])
    frame = real(tables["overall"])
    return frame[frame["primary"].astype(bool) & (frame["quantity"] == SPECIFICITY)]


def _groups(tables: Tables, setup: Setup) -> Iterator[Verdict]:
    """Yield the verdict on each group of subjects that are replicates of one another."""
    if "replication" not in tables:
        return
    frame = tables["replication"]
    for row in frame[frame["primary"].astype(bool) & (frame["quantity"] == SPECIFICITY)].itertuples():
        over = plural(int(row.n_subjects), "subject")
        claim = (
            f"Changes from training on a behavior agree better with that behavior's own explanations than with other "
            f"behaviors' explanations: by {fixed(row.estimate)} {statistic_title(str(row.statistic))}"
            f"{_interval(row, setup)}; {fixed(row.lowest)} in the lowest subject, {fixed(row.highest)} in the highest."
        )
        state, answer, reasons = _answer(row, None, setup)
        yield Verdict(f"{visible(row.group)}, {over}", state, answer, claim, reasons=tuple(reasons))


def _verdict(tables: Tables, row: Any, result: Line, controls: list[Line], higher: list[Line], setup: Setup) -> Verdict:
    """Return the verdict on one subject, given its row of the primary test, if it has one."""
    about, control = visible(result.subject), _control_sentence(tables, result, controls)
    if row is None or undefined(row.estimate):
        n = plural(result.n_behaviors, "behavior")
        claim = (
            f"Specificity, the primary test, needs at least two independent behaviors that change some latents and "
            f"for which some latents are expected to change, but not all. Here {n} can be tested."
        )
        return Verdict(about, OPEN, "Not tested.", claim, control)
    title = statistic_title(str(row.statistic))
    n = plural(int(row.n_behaviors), "behavior")
    independent = f", {int(row.n_families)} of them independent" if row.n_families < row.n_behaviors else ""
    known = interval(row.ci_low, row.ci_high)
    noted = [f"{_level(setup)} interval {known}"] if known else ["no interval"]
    noted += [] if undefined(row.pvalue) else [probability(row.pvalue)]
    state, answer, reasons = _answer(row, row.n_families, setup)
    start = (
        "Changes from training on a behavior agree better with that behavior's own explanations than with other "
        "behaviors' explanations: by"
        if state == MET
        else "How much better changes from training on a behavior agree with that behavior's own explanations than "
        "with other behaviors' explanations:"
    )
    claim = f"{start} {fixed(row.estimate)} {title} ({'; '.join(noted)}), over {n}{independent}."
    if state == MET and higher:
        state, answer = OPEN, "Yes, but a control agrees as well."
        reasons.append(
            f"Agreement is not above {named(line.control for line in higher)}. Specificity takes out what acts alike "
            "on all behaviors, but no more."
        )
    if not controls:
        state, answer = (OPEN, "Yes, but no control was run.") if state == MET else (state, answer)
    labels = next(_labels(tables, result.subject), None)
    if state != MET and labels is not None and labels.provenance != PROVEN:
        if is_of_another(labels):
            state, answer = OPEN, "Cannot be said: the labels look like another SAE's."
        reasons.append("It is not proven that these explanations are of this SAE; those of another one look like this.")
    return Verdict(about, state, answer, claim, control, tuple(reasons))


def _answer(row: Any, n_families: float | None, setup: Setup) -> tuple[str, str, list[str]]:
    """Return state, answer and reasons, by where the interval lies; the p-value, where there is one, must agree."""
    smallest, level = setup.smallest_effect, setup.confidence_level
    matters = "" if smallest is None else f"{smallest:g}, the smallest effect that would matter"
    if undefined(row.ci_low):
        return OPEN, "Cannot be said.", ["There is no interval: too few independent behaviors."]
    pvalue = getattr(row, "pvalue", 0.0)
    if row.ci_low > 0 and not undefined(pvalue) and pvalue < 1 - level:
        if smallest is None or row.ci_low > smallest:
            return MET, "Yes.", []
        if row.ci_high < smallest:
            return UNMET, "Too little to matter.", [f"The interval lies below {matters}."]
        return MET, "Yes, but it may be little.", [f"The interval contains {matters}."]
    if row.ci_high < 0:
        return UNMET, "No: the reverse.", ["Other behaviors' explanations fit better than the behavior's own."]
    if smallest is not None and row.ci_high < smallest:
        return UNMET, "No.", [f"The interval lies below {matters}."]
    if row.ci_low > 0:
        reasons = [f"The interval lies above 0, but p is not below {1 - level:.2g}."]
    elif smallest is None:
        reasons = [
            f"This does not show that explanations are wrong: an effect of up to {fixed(row.ci_high)} is not excluded."
        ]
    else:
        reasons = [f"This does not show that explanations are wrong: the interval contains {matters}."]
    if n_families is not None and n_families <= 3:
        least = 1 / factorial(int(n_families))
        reasons.append(
            f"With {plural(int(n_families), 'independent behavior')} p cannot be below {least:.2g}; train on more."
        )
    return OPEN, "Not shown.", reasons


def _control_sentence(tables: Tables, result: Line, controls: list[Line]) -> str:
    """Return the median agreement with own explanations beside the highest control's."""
    primary = find_primary(table(tables, "agreement"))
    title = primary.title if primary else ""
    own = f"Own explanations reach a median {title} of {fixed(result.median)}"
    known = [line for line in controls if line.required and line.median is not None]
    if not known:
        return f"{own}; no control was run, so nothing says what explanations that mean nothing would reach."
    highest = max(known, key=lambda line: line.median or 0.0)
    chance = primary.facts.chance if primary else None
    by_chance = "" if chance is None else f" (chance: {chance:g})"
    return (
        f"{own}; the highest of {plural(len(known), 'control')}, {words(highest.control)}, reaches "
        f"{fixed(highest.median)}{by_chance}."
    )


def _interval(row: Any, setup: Setup) -> str:
    ends = interval(row.ci_low, row.ci_high)
    return f" ({_level(setup)} interval over subjects {ends})" if ends else ""


def _level(setup: Setup) -> str:
    return f"{100 * setup.confidence_level:g} %"


def _estimate(row: Any) -> str:
    ends = interval(row.ci_low, row.ci_high)
    return f"{fixed(row.estimate)} ({ends})" if ends else fixed(row.estimate)


def _labels(tables: Tables, subject: str) -> Iterator[Any]:
    """Yield the row of explained_latents.csv on the primary source of a subject, if there is one."""
    primary = find_primary(table(tables, "agreement"))
    if primary is not None and EXPLAINED in tables:
        rows = tables[EXPLAINED]
        yield from rows[(rows["subject"] == subject) & (rows["source"] == primary.source)].itertuples()
