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
# Only where a study names them: none of them must fall to chance.
ASKED_CONTROLS = ("shuffled_completions", "among_expected", *BASELINES)


def baseline_suffix(control: str) -> str:
    """Return how the names of a random baseline's twins end.

    >>> baseline_suffix("frozen_decoder")
    '-frozen-decoder'
    """
    return "-" + control.replace("_", "-")


TWINS = (PERMUTED, *map(baseline_suffix, BASELINES))
"""Endings of the names of subjects' twins."""


class Baseline(NamedTuple):
    """A twin with a random dictionary of its own.

    Attributes
    ----------
    base : str
        The subject.
    control : str
        One of `BASELINES`.
    """

    base: str
    control: str
