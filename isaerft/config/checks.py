"""What must hold of the causal and the behavior check, and of shuffled completions, before anything runs."""

from __future__ import annotations

from isaerft import registry
from isaerft.config.plan import Plan
from isaerft.errors import InputError, unknown_name

NEEDS = {"phrases": "phrases", "words": "words", "classifier": "model"}


def check_checks(plan: Plan) -> None:
    """Refuse checks of parts that are not there, and scores that lack what they need."""
    chosen = plan.study.behavior_check
    for kind, names, valid in [
        ("causal_check.adapters", plan.study.causal_check.adapters, plan.analysed_adapters()),
        ("behavior_check.adapters", chosen.adapters, plan.study.adapters),
        ("behavior_check.behaviors", chosen.behaviors, plan.study.behaviors),
    ]:
        for name in names or []:
            if name not in valid:
                raise unknown_name(kind, name, valid)
    for name in chosen.behaviors or []:
        if plan.study.behaviors[name].metric is None and plan.study.behaviors[name].testbed is None:
            raise InputError(
                f"behavior_check.behaviors: {name!r} has no score",
                remedy="give the behavior a `score`, or leave it out",
            )
    if chosen.n_seeds > plan.study.n_seeds:
        raise InputError(f"behavior_check.n_seeds {chosen.n_seeds}", allowed=f"at most n_seeds, {plan.study.n_seeds}")
    for name, behavior in plan.study.behaviors.items():
        if behavior.metric is None:
            continue
        kind = registry.METRICS.check(behavior.metric.kind)
        if kind in NEEDS and not getattr(behavior.metric, NEEDS[kind]):
            raise InputError(f"behavior {name!r}: score {kind!r} without {NEEDS[kind]}", remedy=f"add `{NEEDS[kind]}:`")


def check_shuffled(plan: Plan) -> None:
    """Refuse shuffled completions for an adapter that no data makes here: it would be the same numbers again."""
    adapter = plan.study.primary.adapter
    kind = plan.study.adapters[adapter].kind or adapter
    if plan.shuffled_behaviors and registry.ADAPTERS.facts(kind).loaded:
        raise InputError(
            f"control 'shuffled_completions' for adapter {adapter!r}, which is given and not trained here",
            remedy="name a trained adapter as `primary.adapter`, or leave the control out",
        )
