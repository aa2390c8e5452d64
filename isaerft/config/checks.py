"""What must hold of the causal and the behavior check, and of shuffled completions, before anything runs."""

from __future__ import annotations

from isaerft import registry
from isaerft.config.options import Study
from isaerft.errors import InputError, unknown_name

NEEDS = {"phrases": "phrases", "words": "words", "classifier": "model"}


def check_checks(study: Study) -> None:
    """Refuse checks of parts that are not there, and scores that lack what they need."""
    chosen = study.behavior_check
    for kind, names, valid in [
        ("causal_check.adapters", study.causal_check.adapters, study.analysed_adapters()),
        ("behavior_check.adapters", chosen.adapters, study.adapters),
        ("behavior_check.behaviors", chosen.behaviors, study.behaviors),
    ]:
        for name in names or []:
            if name not in valid:
                raise unknown_name(kind, name, valid)
    for name in chosen.behaviors or []:
        if study.behaviors[name].metric is None and study.behaviors[name].testbed is None:
            raise InputError(
                f"behavior_check.behaviors: {name!r} has no score",
                remedy="give the behavior a `score`, or leave it out",
            )
    if chosen.n_seeds > study.n_seeds:
        raise InputError(f"behavior_check.n_seeds {chosen.n_seeds}", allowed=f"at most n_seeds, {study.n_seeds}")
    for name, behavior in study.behaviors.items():
        if behavior.metric is None:
            continue
        kind = registry.METRICS.check(behavior.metric.kind)
        if kind in NEEDS and not getattr(behavior.metric, NEEDS[kind]):
            raise InputError(f"behavior {name!r}: score {kind!r} without {NEEDS[kind]}", remedy=f"add `{NEEDS[kind]}:`")


def check_shuffled(study: Study) -> None:
    """Refuse shuffled completions for an adapter that no data makes here: it would be the same numbers again."""
    adapter = study.primary.adapter
    kind = study.adapters[adapter].kind or adapter
    if study.shuffled_behaviors and kind in registry.UNTRAINED - registry.CONTRASTED:
        raise InputError(
            f"control 'shuffled_completions' for adapter {adapter!r}, which is given and not trained here",
            remedy="name a trained adapter as `primary.adapter`, or leave the control out",
        )
