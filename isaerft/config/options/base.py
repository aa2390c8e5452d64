"""What all groups of options share."""

from __future__ import annotations

from pydantic import ConfigDict

STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
PERMUTED, SHUFFLED = "-permuted", "-shuffled"
OTHERS, REJECTED = "others", "rejected"
CONTROLS = (
    "shuffled_explanations",
    "mismatched_behavior",
    "firing_rate_only",
    "decoder_norm_only",
    "explanation_length",
    "genericity",
    "random_dictionary",
)
# Only where a study names them: each costs trainings of its own, and none must fall to chance.
ASKED_CONTROLS = ("shuffled_completions",)
