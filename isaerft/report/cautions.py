"""What a reader must know before believing the headline: one sentence for each weakness that the tables show."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from isaerft.config import ASKED_CONTROLS, CONTROLS
from isaerft.report.headline import P_LEVEL, headlines
from isaerft.report.selection import (
    RESULT,
    Primary,
    Tables,
    find_primary,
    matching,
    primary_rows,
    real,
    subjects_of,
    table,
)
from isaerft.report.text import fixed, plural, visible, words

LOW_VARIANCE_EXPLAINED = 0.7
FEW_EXPECTED = 10
MAX_NAMED = 8
MAJORITY = 0.5


def cautions(tables: Tables) -> list[str]:
    """Return the warnings that the given tables call for, gravest first; plain text, not yet escaped."""
    primary = find_primary(table(tables, "agreement"))
    if primary is None:
        return ["agreement.csv marks no primary result, so this page has no headline."]
    rows = primary_rows(table(tables, "agreement"), primary)
    found = [*_controls(tables)]
    for subject in subjects_of(rows):
        result = rows[(rows["subject"] == subject).astype(bool) & (rows["control"] == RESULT)]
        found += [f"{visible(subject)}: {text}" for text in _power(result)]
    found += [*_subjects(tables, rows), *_training(tables, primary), *_behavior(tables, primary)]
    found += [*_seeds(tables), *_stability(tables, primary), *_scores(tables, primary)]
    return found


def _controls(tables: Tables) -> Iterable[str]:
    """Warn of controls that are missing, as high as the result, or themselves significant."""
    lines = headlines(tables)
    for subject in dict.fromkeys(line.subject for line in lines):
        own = {line.control: line for line in lines if line.subject == subject}
        missing = [name for name in CONTROLS if name not in own]
        if missing:
            yield f"{visible(subject)}: no rows for the control {_named(missing)}; the result stands without it."
        result = own[RESULT].median
        for name, line in own.items():
            if name in (RESULT, *ASKED_CONTROLS):
                continue
            if result is not None and line.median is not None and line.median >= result:
                yield (
                    f"{visible(subject)}: the control {words(name)} reaches a median of {fixed(line.median)}, "
                    f"not below the result's {fixed(result)}."
                )
            if line.significant.k:
                yield (
                    f"{visible(subject)}: the control {words(name)} has p < {P_LEVEL:g} in {line.significant.k} of "
                    f"{plural(line.significant.n, 'behavior')}; chance alone would give about "
                    f"{P_LEVEL * line.significant.n:.2g}."
                )


def _power(result: pd.DataFrame) -> Iterable[str]:
    """Warn where a test could not have seen its own estimate, or where nothing says what it could see."""
    undefined = result[result["estimate"].isna()]
    if len(undefined):
        yield f"no estimate for {_named(undefined['behavior'])}."
    unknown = result[result["minimum_detectable_effect"].isna()]
    if len(unknown):
        yield (
            f"no minimum detectable effect in {len(unknown)} of {plural(len(result), 'behavior')}; "
            "there, agreement near chance is no evidence that explanations are wrong."
        )
    blind = result[(result["minimum_detectable_effect"] > result["estimate"]).fillna(False)]
    if len(blind):
        yield (
            f"the minimum detectable effect is above the estimate in {len(blind)} of "
            f"{plural(len(result), 'behavior')} ({_named(blind['behavior'])}): too little power to say either way."
        )
    few = result[(result["n_expected"] < FEW_EXPECTED).fillna(False)]
    if len(few):
        yield f"fewer than {FEW_EXPECTED} latents are expected to change for {_named(few['behavior'])}."
    if (result["n_seeds"] < 2).any():
        yield "trained with one seed: nothing is known about stability over seeds."


def _subjects(tables: Tables, rows: pd.DataFrame) -> Iterable[str]:
    """Warn of an SAE that explains little, and count the latents that were not tested."""
    if "subjects" not in tables:
        return
    for subject in real(tables["subjects"]).itertuples():
        name = visible(subject.subject)
        if subject.variance_explained < LOW_VARIANCE_EXPLAINED:
            yield (
                f"{name}: the SAE explains {subject.variance_explained:.0%} of the variance at the hook "
                f"(below {LOW_VARIANCE_EXPLAINED:.0%}); what it misses cannot be seen here."
            )
        tested = rows[(rows["subject"] == subject.subject).astype(bool) & (rows["control"] == RESULT)]["n_latents"]
        if len(tested) and int(tested.min()) < int(subject.d_sae):
            yield (
                f"{name}: {int(subject.d_sae) - int(tested.min()):,} of {int(subject.d_sae):,} latents were dropped "
                f"before the test (fire too rarely, or have no explanation)."
            )


def _training(tables: Tables, primary: Primary) -> Iterable[str]:
    """Warn of behaviors whose held-out loss did not fall."""
    if "training" not in tables:
        return
    runs = matching(real(tables["training"]), primary)
    medians = runs.groupby(["subject", "behavior"], sort=False)[["heldout_loss_base", "heldout_loss_adapted"]].median()
    flat = medians[medians["heldout_loss_adapted"] >= medians["heldout_loss_base"]]
    if len(flat):
        named = _named(behavior for _, behavior in flat.index)
        yield f"held-out loss did not fall for {named}: there is no change to explain."


def _behavior(tables: Tables, primary: Primary) -> Iterable[str]:
    """Warn of behaviors that the answers do not show to have moved."""
    if "behavior_check" not in tables:
        return
    checked = real(tables["behavior_check"])
    rows = checked[(checked["adapter"] == primary.adapter).astype(bool)]
    still = rows[(~((rows["ci_low"] > 0) | (rows["ci_high"] < 0)).fillna(False)).astype(bool)]
    if len(still):
        yield (
            f"the answers to held-out prompts do not show that {_named(still['behavior'])} moved: the interval of the "
            "score after less before holds 0, though the loss may have fallen."
        )


def _seeds(tables: Tables) -> Iterable[str]:
    """Warn of adapters whose seeds disagree: they are not to be ranked among others."""
    if "seeds" not in tables:
        return
    rows = real(tables["seeds"]).dropna(subset="seeds")
    noisy = (rows["seeds"] == "disagree").groupby([rows["subject"], rows["adapter"], rows["measure"]], sort=False)
    for (subject, adapter, measure), share in noisy.mean().items():
        if share > MAJORITY:
            yield (
                f"{visible(subject)}: the seeds of {visible(adapter)} disagree on {visible(measure)} in most "
                "behaviors, so its latents are ranked by chance; do not rank it among the others."
            )


def _stability(tables: Tables, primary: Primary) -> Iterable[str]:
    """Warn of most changed latents whose change is not stable over seeds."""
    if "most_changed_latents" not in tables:
        return
    rows = matching(real(tables["most_changed_latents"]), primary)
    unstable = int((rows["verdict"] == "unstable").fillna(False).sum())
    if unstable:
        yield f"{unstable:,} of {plural(len(rows), 'most changed latent')} listed are not stable over seeds."


def _scores(tables: Tables, primary: Primary) -> Iterable[str]:
    """Warn of explanations that score no higher than ones exchanged between latents."""
    if "explanation_quality" not in tables:
        return
    rows = matching(real(tables["explanation_quality"]), primary)
    flat = rows[(rows["ci_low"] <= rows["floor"]).fillna(False).astype(bool)]
    for (subject, scorer), group in flat.groupby(["subject", "scorer"], sort=False):
        yield (
            f"{visible(subject)}: by the scorer {visible(scorer)}, explanations from {visible(primary.source)} are not "
            f"shown to be better than exchanged ones in {_named(group['score'])} (explanations of what a latent reads "
            "need not know what it writes, nor the reverse)."
        )


def _named(names: Iterable[object]) -> str:
    """Return up to `MAX_NAMED` names as words."""
    listed = [words(name) for name in names]
    more = f" and {len(listed) - MAX_NAMED} more" if len(listed) > MAX_NAMED else ""
    return ", ".join(listed[:MAX_NAMED]) + more
