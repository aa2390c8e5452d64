"""Names of the controls of a result, and of the twins that some of them train."""

from __future__ import annotations

from typing import NamedTuple

PERMUTED, SHUFFLED = "-permuted", "-shuffled"
CONTROLS = (
    "shuffled_explanations",
    "mismatched_behavior",
    "firing_rate_only",
    "decoder_norm_only",
    "explanation_length",
    "genericity",
    "random_dictionary",
)
UNTRAINED, RANDOM_MODEL = "untrained_dictionary", "random_model"
FROZEN = {"frozen_decoder": "W_dec", "frozen_encoder": "W_enc"}
"""Control -> the matrix of the SAE that training leaves as it was initialized."""
BASELINES = (*FROZEN, UNTRAINED, RANDOM_MODEL)
"""Controls that each have a dictionary of their own, with latents and explanations of its own."""
ERASURES = ("erased_mean", "erased_leace", "erased_iterative", "erased_random")
"""Controls that train where a behavior's directions, or random ones, are erased from the residual stream."""
# Only where a study names them: they cost trainings, or need not fall to chance.
ASKED_CONTROLS = ("shuffled_completions", "among_expected", *BASELINES, *ERASURES)


def suffix_of(control: str) -> str:
    """Return how the names of a control's twins end.

    >>> suffix_of("frozen_decoder")
    '-frozen-decoder'
    """
    return SHUFFLED if control == "shuffled_completions" else "-" + control.replace("_", "-")


TWINS = (PERMUTED, *map(suffix_of, BASELINES))
"""Endings of the names of subjects' twins."""
RETRAINED = ("shuffled_completions", *ERASURES)
"""Controls that each train the primary adapter on a twin of every tested behavior."""
BEHAVIOR_TWINS = tuple(map(suffix_of, RETRAINED))
"""Endings of the names of behaviors' twins."""


class Twin(NamedTuple):
    """A twin that a control trains.

    Attributes
    ----------
    base : str
        The subject or behavior that it is a twin of.
    control : str
        One of `BASELINES`, with a random dictionary of its own, or of `RETRAINED`.
    """

    base: str
    control: str
