"""Cautions: one sentence for each weakness that the tables show, gravest first."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from isaerft.analysis.replicates import TRAINING_SEED
from isaerft.config import CONTROLS
from isaerft.report.findings import P_LEVEL, headlines, not_exceeded
from isaerft.report.provenance import provenance_cautions
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
from isaerft.report.text import fixed, named, plural, undefined, visible, words

LOW_VARIANCE_EXPLAINED = 0.7
READ = ("source", "judge")
FEW_EXPECTED = 10
MAJORITY = 0.5
CLAIMS_SHOWN = 4
"""Claims of one subject or group that are smaller than their noise and said one by one; the table has all."""


def cautions(tables: Tables) -> list[str]:
    """Return the cautions that the tables call for; plain text, not yet escaped."""
    agreement = table(tables, "agreement")
    primary = find_primary(agreement)
    if primary is None:
        return ["agreement.csv marks no primary result, so this page has no headline."]
    rows = primary_rows(agreement, primary)
    result = rows[rows["control"] == RESULT]
    found = [*provenance_cautions(tables, primary), *_controls(tables)]
    for subject in subjects_of(rows):
        own = result[(result["subject"] == subject).astype(bool)]
        found += [f"{visible(subject)}: {text}" for text in _power(own)]
    found += _subjects(tables, result)
    for check in (_random_dictionaries, _claims, _training, _behavior, _seeds, _stability, _scores):
        found += check(tables, primary)
    return found


def _controls(tables: Tables) -> Iterator[str]:
    """Warn of controls that are missing, as high as the result, or significant."""
    lines = headlines(tables)
    for subject in dict.fromkeys(line.subject for line in lines):
        own = [line for line in lines if line.subject == subject]
        missing = [name for name in CONTROLS if name not in {line.control for line in own}]
        if missing:
            which = "control was" if len(missing) == 1 else "controls were"
            yield f"{visible(subject)}: the {which} not run: {named(missing)}. What would be seen there is open."
        (result,) = (line for line in own if line.is_result)
        higher = not_exceeded(lines, subject)
        for line in (line for line in own if line.required):
            if line in higher:
                yield (
                    f"{visible(subject)}: the control {words(line.control)} has a median of {fixed(line.median)}, "
                    f"not below the result's {fixed(result.median)}."
                )
            if line.significant.k:
                yield (
                    f"{visible(subject)}: the control {words(line.control)} has p < {P_LEVEL:g} in "
                    f"{line.significant.k} of {plural(line.significant.n, 'behavior')}; "
                    f"by chance, about {P_LEVEL * line.significant.n:.2g} would."
                )


def _power(result: pd.DataFrame) -> Iterator[str]:
    """Warn where the test could not have seen its own estimate, or where its power is unknown."""
    behaviors = plural(len(result), "behavior")
    undefined = result[result["estimate"].isna()]
    if len(undefined):
        yield f"no estimate for {named(undefined['behavior'])}."
    unknown = result[result["minimum_detectable_effect"].isna()]
    if len(unknown):
        yield (
            f"no minimum detectable effect in {len(unknown)} of {behaviors}. Agreement near chance there does not "
            "show that explanations are wrong."
        )
    blind = result[(result["minimum_detectable_effect"] > result["adjusted_estimate"]).fillna(False)]
    if len(blind):
        yield (
            f"one by one, {len(blind)} of {behaviors} have too little power: the minimum detectable effect is above "
            f"the estimate ({named(blind['behavior'])}). Read them together."
        )
    few = result[(result["n_expected"] < FEW_EXPECTED).fillna(False)]
    if len(few):
        yield f"fewer than {FEW_EXPECTED} latents are expected to change for {named(few['behavior'])}."
    if (result["n_seeds"] < 2).any():
        yield "trained with one seed, so the stability over seeds is unknown."


def _subjects(tables: Tables, result: pd.DataFrame) -> Iterator[str]:
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
        tested = result.loc[(result["subject"] == subject.subject).astype(bool), "n_latents"]
        if len(tested) and int(tested.min()) < int(subject.d_sae):
            yield (
                f"{name}: {int(subject.d_sae) - int(tested.min()):,} of {int(subject.d_sae):,} latents were not "
                "tested (they fire too rarely, or have no explanation)."
            )


def _random_dictionaries(tables: Tables, primary: Primary) -> Iterator[str]:
    """Warn of random dictionaries that are as specific as the trained one, as far as behaviors tell."""
    if "random_dictionaries" not in tables:
        return
    rows = tables["random_dictionaries"]
    # Where the primary explanations are of one dictionary alone, those that any dictionary can have are compared.
    rows = matching(rows, primary) if len(matching(rows, primary)) else matching(rows, primary, without=READ)
    for (subject, source, _), group in rows.groupby(["subject", "source", "judge"], sort=False):
        (own,) = group.loc[group["control"] == RESULT, "estimate"]
        for row in group[group["control"] != RESULT].itertuples():
            if pd.isna(row.estimate):
                yield f"{visible(subject)}: the baseline {words(row.control)} has no specificity to compare with."
            elif not row.difference_ci_low > 0:
                yield (
                    f"{visible(subject)}: the baseline {words(row.control)} has a specificity of {fixed(row.estimate)} "
                    f"and is not known to be less specific than the dictionary ({fixed(own)}; {visible(source)}; "
                    f"compared over {plural(int(row.n_behaviors), 'behavior')}). "
                    "Agreement here is no proof that training the SAE found anything."
                )


def _claims(tables: Tables, primary: Primary) -> Iterator[str]:
    """Warn of differences on this page that drawing seeds, SAEs or worlds again explains."""
    if "claims" not in tables:
        return
    rows = tables["claims"].dropna(subset="warning")
    for of, group in rows.groupby("of", sort=False, dropna=False):
        name = "" if undefined(of) else f"{visible(of)}: "
        for warning in group["warning"].head(CLAIMS_SHOWN):
            yield name + visible(warning) if name else visible(warning)[:1].upper() + visible(warning)[1:]
        if (more := len(group) - CLAIMS_SHOWN) > 0:
            yield f"{name}{plural(more, 'more difference')} in claims.csv may be reseeding alone."
    if len(known := tables["claims"].dropna(subset="reliable")) and (known["over"] == TRAINING_SEED).all():
        yield (
            "Only training seeds were drawn again. How far another SAE, corpus or model would move these numbers is "
            "not known; it is usually more."
        )


def _training(tables: Tables, primary: Primary) -> Iterator[str]:
    """Warn of behaviors whose held-out loss did not fall."""
    if "training" not in tables:
        return
    runs = matching(real(tables["training"]), primary)
    medians = runs.groupby(["subject", "behavior"], sort=False)[["heldout_loss_base", "heldout_loss_adapted"]].median()
    flat = medians[medians["heldout_loss_adapted"] >= medians["heldout_loss_base"]]
    if len(flat):
        behaviors = named(behavior for _, behavior in flat.index)
        yield f"the held-out loss did not fall for {behaviors}, so there is no change to explain."


def _behavior(tables: Tables, primary: Primary) -> Iterator[str]:
    """Warn of behaviors that answers do not show to have moved."""
    if "behavior_check" not in tables:
        return
    rows = matching(real(tables["behavior_check"]), primary)
    still = rows[(~((rows["ci_low"] > 0) | (rows["ci_high"] < 0)).fillna(False)).astype(bool)]
    if len(still):
        yield (
            f"answers to held-out prompts do not show that {named(still['behavior'])} moved: the interval of the "
            "difference in score contains 0, though the loss may have fallen."
        )


def _seeds(tables: Tables, primary: Primary) -> Iterator[str]:
    """Warn of adapters whose seeds disagree, whichever is primary."""
    if "seeds" not in tables:
        return
    rows = real(tables["seeds"]).dropna(subset="seeds")
    disagree = (rows["seeds"] == "disagree").groupby([rows["subject"], rows["adapter"], rows["measure"]], sort=False)
    for (subject, adapter, measure), share in disagree.mean().items():
        if share > MAJORITY:
            yield (
                f"{visible(subject)}: the seeds of {visible(adapter)} disagree on {visible(measure)} in most "
                "behaviors, so the ranking of its latents is mostly noise; do not compare it with other adapters."
            )


def _stability(tables: Tables, primary: Primary) -> Iterator[str]:
    """Warn of most changed latents whose change is not stable over seeds."""
    if "most_changed_latents" not in tables:
        return
    rows = matching(real(tables["most_changed_latents"]), primary)
    unstable = int((rows["verdict"] == "unstable").fillna(False).sum())
    if unstable:
        yield f"{unstable:,} of the {plural(len(rows), 'most changed latent')} are not stable over seeds."


def _scores(tables: Tables, primary: Primary) -> Iterator[str]:
    """Warn of explanations that score no higher than ones exchanged between latents."""
    if "explanation_quality" not in tables:
        return
    rows = matching(real(tables["explanation_quality"]), primary)
    flat = rows[(rows["ci_low"] <= rows["floor"]).fillna(False).astype(bool)]
    for (subject, scorer), group in flat.groupby(["subject", "scorer"], sort=False):
        yield (
            f"{visible(subject)}: the scorer {visible(scorer)} does not show explanations from "
            f"{visible(primary.source)} to be better than exchanged ones in {named(group['score'])}. (Explanations of "
            "what a latent reads need not know what it writes, nor the reverse.)"
        )
