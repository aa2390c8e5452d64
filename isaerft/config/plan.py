"""What a study runs, derived from its options: its twins, seeds, analyzed adapters, and sources of each subject.

Both the package and the Snakefile use it, so they cannot disagree.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isaerft.config.base import read_options, validated, with_included
from isaerft.config.controls import RANDOM_MODEL, UNTRAINED, Twin
from isaerft.config.noise import NoiseProbe
from isaerft.config.steering import SteeringCheck
from isaerft.config.study import Study
from isaerft.config.training import OTHERS, REJECTED, Poison
from isaerft.config.twins import Twins
from isaerft.errors import InputError, from_here, unknown_name
from isaerft.layout import Results
from isaerft.registry import ADAPTERS, JUDGES, SCORERS, SCORES, SOURCES


@dataclass(frozen=True)
class Plan(Twins):
    """What follows from a study's options.

    Raises
    ------
    InputError
        The options ask for something that has no meaning, such as a control that would repeat the result.
    """

    def __post_init__(self) -> None:
        adapter = self.study.primary.adapter
        if self.shuffled_behaviors and ADAPTERS.facts(self.kind_of(adapter)).loaded:
            raise InputError(
                f"control 'shuffled_completions' for adapter {adapter!r}, which is not trained here",
                remedy="name a trained adapter as `primary.adapter`, or leave the control out",
            )
        for twin in (*self.permuted_subjects, *self.baselines):
            self._check_dictionary(twin)
        for twin in self.erased_behaviors:
            self._check_erasure(twin)
        if "mismatched_behavior" in self.study.controls and len(self.tested_behaviors) < 2:
            raise InputError(
                "control 'mismatched_behavior' with one behavior",
                remedy="add a second behavior, or leave the control out",
            )
        if self.study.steering_check is not None:
            self._check_steering(self.study.steering_check)
        if self.study.map_components is not None and not self.mapped_adapters:
            raise InputError(
                "map_components in a study without an adapter that is a linear map",
                allowed="low_rank, residual, lora, or mlp with `options: {depth: 0}`",
                remedy="add one of these adapters, or leave the option out",
            )
        if self.study.noise_probe is not None:
            self._check_noise(self.study.noise_probe)
        self._check_checkpoints()
        for name, behavior in self.study.behaviors.items():
            for adapter in self.instructed_adapters:
                is_asked = behavior.elicit is not None and behavior.elicit.instruction.strip()
                if not is_asked or behavior.poison is not None:
                    what = "has rows of another behavior" if is_asked else "has no instruction"
                    raise InputError(
                        f"adapter {adapter!r} reads replies under an instruction, and behavior {name!r} {what}",
                        allowed="elicited behaviors, each with an instruction of its own (`elicit:`)",
                        remedy="leave the adapter out, or the behavior",
                    )
            for adapter in self.study.adapters:
                contrasted = ADAPTERS.facts(self.kind_of(adapter)).contrasted
                if contrasted and behavior.contrast == OTHERS and not self.contrast_behaviors(name, adapter):
                    raise InputError(
                        f"adapter {adapter!r} compares behavior {name!r} with others, and there are none",
                        remedy="add a second behavior, or leave the adapter out",
                    )

    def _check_dictionary(self, twin: str) -> None:
        """A random dictionary is trained on anew, and one of its own explained as any dictionary can be."""
        base, control = self.baselines.get(twin, Twin(self.base_subject(twin), "random_dictionary"))
        for name in self.analyzed_adapters(twin):
            facts = ADAPTERS.facts(self.kind_of(name))
            if facts.made == "saved" or (control == RANDOM_MODEL and facts.loaded):
                why = "saved: it would repeat the result" if control == "random_dictionary" else "not trained here"
                raise InputError(
                    f"control {control!r} for adapter {name!r}, which is {why}",
                    remedy="name adapters that are trained under random_dictionary_adapters, or leave the control out",
                )
        if twin not in self.baselines:
            return
        options = self.study.subjects[base]
        if control != UNTRAINED and options.testbed is None and options.train_sae is None:
            raise InputError(
                f"control {control!r} for subject {base!r}, whose SAE is not trained here",
                allowed=f"{UNTRAINED} and random_dictionary, for an SAE that comes ready",
                remedy="leave the control out, or let the study train the SAE (`train_sae`)",
            )
        if not self.sources_of(twin):
            raise InputError(
                f"control {control!r} for subject {base!r}: its explanations are of its own latents, and no other"
                " dictionary can have them",
                allowed="a source of kind local, or files under {subject_dir}, and a judge that reads any explanation"
                " and asks no language model",
                remedy="add such a source and judge, or leave the control out",
            )

    def _check_erasure(self, twin: str) -> None:
        """What is erased is told by a contrast, and what an adapter writes must pass through the decoder."""
        (behavior, control), adapter = self.erased_behaviors[twin], self.study.primary.adapter
        if ADAPTERS.facts(self.kind_of(adapter)).made != "latents" or self.study.adapters[adapter].trained_on == "pair":
            raise InputError(
                f"control {control!r} for adapter {adapter!r}",
                allowed="an adapter that is trained on latents, on completions (objective sft)",
                remedy="name such an adapter as `primary.adapter`, or leave the control out",
            )
        if self.behavior_of(twin).contrast == OTHERS and not self.contrasts_of(twin):
            raise InputError(
                f"control {control!r} of behavior {behavior!r}, which has no other text to be compared with",
                remedy="add a second behavior, give it `contrast: rejected`, or leave the control out",
            )

    def _check_noise(self, options: NoiseProbe) -> None:
        """Noise is added to adapters of the study, and answers on behaviors with a metric are scored under it."""
        if not self.scored_behaviors:
            raise InputError(
                "noise_probe in a study whose behaviors have no metric",
                remedy="give a behavior a `metric`, or leave the probe out",
            )
        for kind, names, valid in (
            ("adapters", options.adapters, list(self.study.adapters)),
            ("behaviors", options.behaviors, self.scored_behaviors),
        ):
            for name in names or []:
                if name not in valid:
                    raise unknown_name(f"noise_probe.{kind}", name, valid)

    def _check_checkpoints(self) -> None:
        """Adapters with checkpoints are trained, and hold at every step what the loss sees."""
        for name, adapter in self.study.adapters.items():
            if not adapter.checkpoints:
                continue
            gated = adapter.sparsity is not None and adapter.sparsity.kind == "l0"
            if gated or name == self.study.reference or not ADAPTERS.facts(self.kind_of(name)).trained:
                why = "whose gates are not in its parameters" if gated else "whose changes are not followed"
                raise InputError(
                    f"adapter {name!r} has checkpoints, {why}",
                    allowed="trained adapters other than the reference, without sparsity of kind l0",
                    remedy="leave its `checkpoints` out",
                )

    def _check_steering(self, options: SteeringCheck) -> None:
        """Steering is compared with verdicts, which need several behaviors, and scored by metrics."""
        if len(self.tested_behaviors) < 2:
            raise InputError(
                "steering_check in a study of one behavior, which gives no verdicts on explanations",
                remedy="add a second behavior, or leave the check out",
            )
        if not self.steering_scored:
            raise InputError(
                "steering_check in a study whose behaviors have no metric",
                remedy="give a behavior a `metric`, or leave the check out",
            )
        if options.prompts is not None and not os.path.isfile(options.prompts):
            raise InputError(
                f"steering_check.prompts: {options.prompts!r} does not exist",
                remedy=f"check the path{from_here(options.prompts)}",
            )

    def kind_of(self, adapter: str) -> str:
        """Return the registered kind of an adapter."""
        return self.study.adapters[adapter].kind or adapter

    @property
    def audited_behaviors(self) -> list[str]:
        """Behaviors whose data audits compare."""
        return sorted({name for audit in self.study.audits.values() for name in (audit.clean, audit.suspect)})

    def samples(self, sources: list[str]) -> bool:
        """Return whether any of these sources explains only the case-control sample."""
        return any(self.design_of(source) == "case_control" for source in sources)

    @property
    def results(self) -> Results:
        """Paths of the study's results."""
        return Results(f"results/{self.study.study}")

    def replicate_seed(self, seed: int) -> int:
        """Return where replicate `seed` starts its random streams (row order, LoRA's start, random dictionary)."""
        return 1000 * (self.study.seed + 1) + seed

    def n_seeds_of(self, adapter: str) -> int:
        """Return the number of replicates of an adapter."""
        return self.study.adapters[adapter].n_seeds or self.study.n_seeds

    def world_seed(self, subject: str) -> int:
        """Return where the random streams of a subject's own parts start: its model, corpus, SAE and truth."""
        world = self.subjects[subject].testbed
        return self.study.seed if world is None or world.seed is None else world.seed

    def design_of(self, source: str) -> str:
        """Return which latents a source explains: `all` or `case_control`."""
        return self.study.sources[source].design or self.study.design.kind

    @property
    def doses(self) -> dict[str, float]:
        """Return source -> its known share of wrong explanations; those of the benchmark are no dose of one kind."""
        known = self.study.sources.items()
        return {name: part.wrong_share for name, part in known if part.wrong_share is not None and part.key is None}

    @property
    def benchmark_sources(self) -> list[str]:
        """Sources whose explanations a key calls right, or wrong in some way."""
        return [name for name, part in self.study.sources.items() if part.key is not None]

    @property
    def dose_arms(self) -> dict[str, dict[float, str]]:
        """Return side -> share of wrong explanations -> source, for each side with right and with wrong ones."""
        arms: dict[str, dict[float, str]] = {}
        for share, name in sorted((share, name) for name, share in self.doses.items()):
            arms.setdefault(self.study.sources[name].side, {})[share] = name
        return {side: arm for side, arm in arms.items() if 0 in arm and len(arm) > 1}

    def trained_behaviors(self, subject: str) -> list[str]:
        """Return the behaviors that a subject is trained on: all; a random-dictionary twin, the tested ones alone."""
        return list(self.study.behaviors) if subject in self.study.subjects else self.tested_behaviors

    @property
    def known_audits(self) -> dict[str, Poison | None]:
        """Audits whose planted rows are known: audit -> its poison, None for a clean pair.

        They are known in the embedded language, if both sets are of one style.
        """
        known = {}
        for name, audit in self.study.audits.items():
            clean, suspect = self.study.behaviors[audit.clean], self.study.behaviors[audit.suspect]
            planted = suspect.poison is None or suspect.poison.behavior in self.described
            if clean.testbed is not None and clean.testbed == suspect.testbed and clean.poison is None and planted:
                known[name] = suspect.poison
        return known

    @property
    def described(self) -> dict[str, str]:
        """What judges read: name -> description of every tested behavior and of the audits' candidates."""
        return {name: self.study.behaviors[name].description for name in self.tested_behaviors} | self.study.candidates

    @property
    def trained_on(self) -> list[str]:
        """Return which parts of a record its adapters are trained on, each of "completion", "chosen", "pair" once."""
        trained = [part for name, part in self.study.adapters.items() if ADAPTERS.facts(self.kind_of(name)).trained]
        return sorted({adapter.trained_on for adapter in trained})

    def compares_replies(self, behavior: str) -> bool:
        """Tell whether an objective, or a baseline's contrast, needs the rejected replies of a behavior."""
        is_contrast = self.behavior_of(behavior).contrast == REJECTED
        contrasted = any(ADAPTERS.facts(self.kind_of(name)).contrasted for name in self.study.adapters)
        return "pair" in self.trained_on or (is_contrast and (contrasted or bool(self.erased_behaviors)))

    @property
    def instructed_adapters(self) -> list[str]:
        """Adapters that are fitted to replies with the instruction in the prompt, which the cache then holds too."""
        return [name for name in self.study.adapters if ADAPTERS.facts(self.kind_of(name)).instructed]

    @property
    def followed_adapters(self) -> list[str]:
        """Adapters whose changes are also measured on the way."""
        return [name for name in self.analyzed_adapters() if self.study.adapters[name].checkpoints]

    @property
    def causally_checked(self) -> list[str]:
        """Adapters whose most changed latents are neutralized."""
        chosen = self.study.causal_check.adapters
        return self.analyzed_adapters() if chosen is None else chosen

    @property
    def mapped_adapters(self) -> list[str]:
        """Adapters whose maps are read; empty when the option is off."""
        if (options := self.study.map_components) is None:
            return []
        return self.study.linear_adapters if options.adapters is None else options.adapters

    @property
    def behavior_checked(self) -> dict[str, list[str]]:
        """Adapters that answer prompts, for each behavior that is scored; empty when the check is off."""
        options = self.study.behavior_check
        usual = [self.study.primary.adapter, *([self.study.reference] if self.study.reference else [])]
        adapters = list(dict.fromkeys(usual)) if options.adapters is None else options.adapters
        names = self.scored_behaviors if options.behaviors is None else options.behaviors
        return {name: adapters for name in names if adapters}

    @property
    def scored_behaviors(self) -> list[str]:
        """Behaviors whose answers can be scored: those with a metric, and the testbed's."""
        return [name for name, part in self.study.behaviors.items() if part.metric or part.testbed]

    @property
    def noise_probed(self) -> dict[str, list[str]]:
        """Adapters that are probed with noise, for each behavior that is; empty when the probe is off."""
        if (options := self.study.noise_probe) is None:
            return {}
        usual = [n for n in self.study.adapters if n == self.study.primary.adapter or self.kind_of(n) == "checkpoint"]
        names = self.scored_behaviors if options.behaviors is None else options.behaviors
        return dict.fromkeys(names, usual if options.adapters is None else options.adapters)

    @property
    def steering_scored(self) -> list[str]:
        """Tested behaviors whose answers the steering check scores."""
        return [name for name in self.scored_behaviors if name in self.tested_behaviors]

    @property
    def steering_checked(self) -> list[str]:
        """Subjects whose latents are steered: those that the primary source explains; none when the check is off."""
        if self.study.steering_check is None:
            return []
        return [name for name in self.study.subjects if self.study.primary.source in self.sources_of(name)]

    def has_placebos(self, subject: str) -> bool:
        """Tell whether the primary adapter is trained on placebos of a subject.

        A random-dictionary twin has none; nor has an adapter that is loaded, since no data of the study makes it, or
        that reads an instruction, since a placebo has none.
        """
        facts = ADAPTERS.facts(self.kind_of(self.study.primary.adapter))
        can = not facts.loaded and not facts.instructed
        return self.study.placebos.n > 0 and subject in self.study.subjects and can

    def eliciting_subject(self, behavior: str) -> str:
        """Return the subject whose model replies for an elicited behavior."""
        elicit = self.study.behaviors[behavior].elicit
        return elicit.subject if elicit and elicit.subject else next(iter(self.study.subjects))

    def given_replies(self, behavior: str) -> Path | None:
        """Return the file of an elicited behavior's replies that the study was given; None where it samples them."""
        return None if self.study.replies is None else Path(self.study.replies) / f"{behavior}.jsonl"

    def sources_of(self, subject: str, adapter: str | None = None) -> list[str]:
        """Return the sources that explain a subject's latents; with `adapter`, those that its changes are tested on.

        Of a random baseline these are the ones that explain any dictionary by the same procedure, at no cost, and are
        not wrong on purpose.
        """
        base = self.origin(subject)
        return [
            name
            for name, part in self.study.sources.items()
            if base in (part.subjects or [base])
            and (adapter is None or adapter in (part.adapters or [adapter]))
            and (subject not in self.baselines or self._explains_any_dictionary(name, subject))
        ]

    def _explains_any_dictionary(self, source: str, twin: str) -> bool:
        part = self.study.sources[source]
        facts = SOURCES.facts(part.kind or source)
        is_procedure = (facts.own_contexts and not facts.asks) or _is_of_subject(part.path)
        return is_procedure and not part.wrong_share and bool(self.judges_of(source, twin, tested=True))

    def judges_of(self, source: str, subject: str | None = None, *, tested: bool = False) -> list[str]:
        """Return the judges that read a source; with `tested`, only those by which agreement is tested.

        Of a random baseline these are the ones that can read explanations which nobody has seen before, at no cost.
        """
        names = self.study.sources[source].judges or list(self.study.judges)
        if subject in self.baselines:
            names = [name for name in names if self._judges_any_text(name)]
        return [name for name in names if self.study.judges[name].tested or not tested]

    def _judges_any_text(self, judge: str) -> bool:
        part = self.study.judges[judge]
        facts = JUDGES.facts(part.kind or judge)
        return not facts.asks and (not facts.given or _is_of_subject(part.path))

    def shown_reading(self, subject: str) -> tuple[str, str]:
        """Return the source and judge that tables of single latents show: the primary ones.

        Where the primary source does not explain the subject, the first that does takes its place, with its first
        tested judge.
        """
        primary, sources = self.study.primary, self.sources_of(subject)
        if primary.source in sources or not sources:
            return primary.source, primary.judge
        judges = self.judges_of(sources[0], tested=True) or self.judges_of(sources[0])
        return sources[0], judges[0]

    def is_sampled(self, source: str) -> bool:
        """Return whether a source explains only the case-control sample."""
        return self.design_of(source) == "case_control"

    def scorers_of(self, source: str) -> list[str]:
        """Return the scorers of a source's explanations."""
        return [name for name, part in self.study.scorers.items() if source in (part.sources or [source])]

    def embeds_windows(self, scorer: str) -> bool:
        """Return whether a scorer's vectors of windows are kept, for several sources that explain all latents."""
        part = self.study.scorers[scorer]
        sources = part.sources or list(self.study.sources)
        shared = len(sources) > 1 and part.n_latents is None and not self.samples(sources)
        return shared and SCORERS.facts(part.kind or scorer).embeds

    @property
    def scores_steered_texts(self) -> bool:
        """Whether a scorer reads what the model writes while latents are amplified."""
        used = {score for part in self.study.scorers.values() for score in part.scores}
        return any(SCORES.facts(score).steered for score in used)

    @property
    def compared_sources(self) -> dict[str, list[str]]:
        """Sources that each tested judge reads, where they are several; those wrong on purpose are left out."""
        right = {name: part for name, part in self.study.sources.items() if not part.wrong_share}
        tested = [name for name, part in self.study.judges.items() if part.tested]
        read = {judge: [name for name, part in right.items() if judge in (part.judges or tested)] for judge in tested}
        return {judge: names for judge, names in read.items() if len(names) > 1}

    def analyzed_adapters(self, subject: str | None = None, behavior: str | None = None) -> list[str]:
        """Return the adapters whose changes are analyzed: all but the reference; on twins those that controls need."""
        if behavior in self.behavior_twins:
            return [self.study.primary.adapter]
        names = [name for name in self.study.adapters if name != self.study.reference]
        if subject is None or subject in self.study.subjects:
            return names
        asked = self.study.random_dictionary_adapters or [self.study.primary.adapter]
        return [name for name in names if name in asked]

    def trained_adapters(self, subject: str, behavior: str) -> list[str]:
        """Return the adapters that are trained on a behavior: all of them; on twins those that controls need."""
        is_twin = subject not in self.study.subjects or behavior in self.behavior_twins
        return self.analyzed_adapters(subject, behavior) if is_twin else list(self.study.adapters)

    def diagnosed_adapters(self, subject: str, behavior: str) -> list[str]:
        """Return the trained adapters that act on the model; behaviors' twins are not diagnosed."""
        if behavior in self.behavior_twins:
            return []
        names = self.trained_adapters(subject, behavior)
        return [name for name in names if ADAPTERS.facts(self.kind_of(name)).on_model]

    def contrast_behaviors(self, behavior: str, adapter: str) -> list[str]:
        """Return the behaviors whose text an adapter is fitted against when it is made for `behavior`; most need none.

        None either where the contrast are the behavior's own rejected replies.
        """
        return self.contrasts_of(behavior) if ADAPTERS.facts(self.kind_of(adapter)).contrasted else []

    def contrasts_of(self, behavior: str) -> list[str]:
        """Return the behaviors with whose text a behavior's is compared; none where its own rejected replies are."""
        behavior, contrast = self.base_behavior(behavior), self.behavior_of(behavior).contrast
        if contrast == REJECTED:
            return []
        twins = {behavior, *(audit.clean for audit in self.study.audits.values() if audit.suspect == behavior)}
        return [name for name in self.tested_behaviors if name not in twins] if contrast == OTHERS else [contrast]


def _is_of_subject(path: str | None) -> bool:
    """Tell whether a path is in the folder of each subject, so that every dictionary has a file of its own."""
    return path is not None and "{subject_dir}" in path


def load_plan(path: str | Path) -> Plan:
    """Read and check a study's YAML file; return what the study runs.

    Raises
    ------
    InputError
        The file is missing, is not YAML, or holds a key, name or value that is not allowed.
    """
    return plan_from_dict(read_options(path))


def plan_from_dict(values: dict[str, Any]) -> Plan:
    """Return a study's plan from plain values; unknown keys are refused and the nearest valid key is named."""
    return Plan(validated(Study, with_included(values)))
