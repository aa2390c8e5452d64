"""Twins that have no meaning: what controls cannot train, said before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isaerft.config.controls import RANDOM_MODEL, UNTRAINED, Twin
from isaerft.config.training import OTHERS
from isaerft.errors import InputError
from isaerft.registry import ADAPTERS

if TYPE_CHECKING:
    from isaerft.config.plan import Plan


def check_twins(plan: Plan) -> None:
    """Raise `InputError` for a control whose twins the study cannot train."""
    adapter = plan.study.primary.adapter
    if plan.shuffled_behaviors and ADAPTERS.facts(plan.kind_of(adapter)).loaded:
        raise InputError(
            f"control 'shuffled_completions' for adapter {adapter!r}, which is not trained here",
            remedy="name a trained adapter as `primary.adapter`, or leave the control out",
        )
    for twin in (*plan.permuted_subjects, *plan.baselines):
        _check_dictionary(plan, twin)
    for twin, (behavior, control) in plan.erased_behaviors.items():
        _check_erasure(plan, twin, behavior, control)


def _check_erasure(plan: Plan, twin: str, behavior: str, control: str) -> None:
    """What is erased is told by a contrast, and what an adapter writes must pass through the decoder."""
    adapter = plan.study.primary.adapter
    if ADAPTERS.facts(plan.kind_of(adapter)).made != "latents" or plan.study.adapters[adapter].trained_on == "pair":
        raise InputError(
            f"control {control!r} for adapter {adapter!r}",
            allowed="an adapter that is trained on latents, on completions (objective sft)",
            remedy="name such an adapter as `primary.adapter`, or leave the control out",
        )
    if plan.behavior_of(twin).contrast == OTHERS and not plan.contrasts_of(twin):
        raise InputError(
            f"control {control!r} of behavior {behavior!r}, which has no other text to be compared with",
            remedy="add a second behavior, give it `contrast: rejected`, or leave the control out",
        )


def _check_dictionary(plan: Plan, twin: str) -> None:
    """A random dictionary is trained on anew, and one of its own explained as any dictionary can be."""
    base, control = plan.baselines.get(twin, Twin(plan.base_subject(twin), "random_dictionary"))
    for name in plan.analyzed_adapters(twin):
        facts = ADAPTERS.facts(plan.kind_of(name))
        if facts.made == "saved" or (control == RANDOM_MODEL and facts.loaded):
            why = "saved: it would repeat the result" if control == "random_dictionary" else "not trained here"
            raise InputError(
                f"control {control!r} for adapter {name!r}, which is {why}",
                remedy="name adapters that are trained under random_dictionary_adapters, or leave the control out",
            )
    if twin not in plan.baselines:
        return
    options = plan.study.subjects[base]
    if control != UNTRAINED and options.testbed is None and options.train_sae is None:
        raise InputError(
            f"control {control!r} for subject {base!r}, whose SAE is not trained here",
            allowed=f"{UNTRAINED} and random_dictionary, for an SAE that comes ready",
            remedy="leave the control out, or let the study train the SAE (`train_sae`)",
        )
    if not plan.sources_of(twin):
        raise InputError(
            f"control {control!r} for subject {base!r}: its explanations are of its own latents, and no other"
            " dictionary can have them",
            allowed="a source of kind local, or files under {subject_dir}, and a judge that reads any explanation"
            " and asks no language model",
            remedy="add such a source and judge, or leave the control out",
        )
