"""Twins of a study's subjects and behaviors, which controls train, and what they share with what they are twins of."""

from __future__ import annotations

from dataclasses import dataclass

from isaerft.config.controls import BASELINES, ERASURES, PERMUTED, RANDOM_MODEL, RETRAINED, Twin, suffix_of
from isaerft.config.study import Study
from isaerft.config.subjects import Subject
from isaerft.config.training import Behavior


@dataclass(frozen=True)
class Twins:
    """What of a study is trained: its subjects and behaviors, and the twins of both."""

    study: Study

    @property
    def tested_behaviors(self) -> list[str]:
        """Behaviors whose changes are tested against explanations: all but the suspect sets of audits.

        A suspect set is a second copy of a behavior that may be something else; as one more behavior it would count
        its own twice wherever behaviors are replicates.
        """
        suspects = {audit.suspect for audit in self.study.audits.values()}
        return [name for name in self.study.behaviors if name not in suspects]

    def base_subject(self, subject: str) -> str:
        """Return the subject whose SAE and activations a permuted twin shares; of any other, itself."""
        return self.permuted_subjects.get(subject, subject)

    def origin(self, subject: str) -> str:
        """Return the subject from whose model and corpus a twin of any kind is made; of any other, itself."""
        return self.baselines[subject].base if subject in self.baselines else self.base_subject(subject)

    def randomizes_model(self, subject: str) -> bool:
        """Tell whether the weights of a subject's model are drawn anew when it is loaded."""
        return subject in self.baselines and self.baselines[subject].control == RANDOM_MODEL

    def is_permuted(self, subject: str) -> bool:
        """Tell whether a subject is a twin with permuted decoder rows."""
        return subject in self.permuted_subjects

    @property
    def all_subjects(self) -> list[str]:
        """Subjects and their random-dictionary twins, of either kind."""
        return [*self.study.subjects, *self.permuted_subjects, *self.baselines]

    @property
    def subjects(self) -> dict[str, Subject]:
        """Options of all with a dictionary of their own: the subjects, and random baselines with those of theirs."""
        return self.study.subjects | {name: self.study.subjects[twin.base] for name, twin in self.baselines.items()}

    @property
    def baselines(self) -> dict[str, Twin]:
        """Twins with a random dictionary of their own, one per subject and control; empty unless a study names one."""
        asked = [control for control in BASELINES if control in self.study.controls]
        return {base + suffix_of(control): Twin(base, control) for base in self.study.subjects for control in asked}

    def baselines_of(self, subject: str) -> dict[str, str]:
        """Return the random baselines of a subject: twin -> control."""
        return {name: twin.control for name, twin in self.baselines.items() if twin.base == subject}

    @property
    def all_behaviors(self) -> list[str]:
        """Behaviors and the twins that controls train."""
        return [*self.study.behaviors, *self.behavior_twins]

    @property
    def captured_behaviors(self) -> list[str]:
        """Behaviors and twins with text of their own, which are captured."""
        return [*self.study.behaviors, *self.shuffled_behaviors]

    def captured_as(self, behavior: str) -> str:
        """Return the behavior whose captured text a twin with erased directions is trained on; of others, itself."""
        return self.erased_behaviors[behavior].base if behavior in self.erased_behaviors else behavior

    def rephrases(self, behavior: str) -> bool:
        """Tell whether held-out replies of a behavior are also captured under prompts of another phrasing."""
        return self.study.rephrased_prompts and behavior in self.study.behaviors

    @property
    def permuted_subjects(self) -> dict[str, str]:
        """Twin of each subject with permuted decoder rows -> the subject; empty without that control."""
        return (
            {name + PERMUTED: name for name in self.study.subjects}
            if "random_dictionary" in self.study.controls
            else {}
        )

    @property
    def behavior_twins(self) -> dict[str, Twin]:
        """Twins of each tested behavior, one for each control that trains any; empty unless a study names one."""
        asked = [control for control in RETRAINED if control in self.study.controls]
        return {name + suffix_of(control): Twin(name, control) for control in asked for name in self.tested_behaviors}

    @property
    def shuffled_behaviors(self) -> dict[str, str]:
        """Twin of each tested behavior, with exchanged completions -> the behavior; empty without that control."""
        twins = self.behavior_twins.items()
        return {name: twin.base for name, twin in twins if twin.control == "shuffled_completions"}

    @property
    def erased_behaviors(self) -> dict[str, Twin]:
        """Twins that are trained where directions are erased from the residual stream."""
        return {name: twin for name, twin in self.behavior_twins.items() if twin.control in ERASURES}

    def behavior_of(self, name: str) -> Behavior:
        """Return the options of a behavior; for a twin those of the behavior that it is a twin of."""
        return self.study.behaviors[self.base_behavior(name)]

    def base_behavior(self, name: str) -> str:
        """Return the behavior that a twin is of; of any other, itself."""
        return self.behavior_twins[name].base if name in self.behavior_twins else name

    def random_twin(self, subject: str) -> str | None:
        """Return the twin of a subject with permuted decoder rows; None without that control."""
        return next((twin for twin, base in self.permuted_subjects.items() if base == subject), None)
