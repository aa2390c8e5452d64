"""Data auditing: two sets of one kind of data, and what one of them may teach besides."""

from __future__ import annotations

from pydantic import Field
from pydantic.dataclasses import dataclass

from isaerft.config.options.base import STRICT


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Audit:
    """Two sets of behavior data from two origins: what does the suspect one teach that the clean one does not?"""

    clean: str
    """Behavior whose data is trusted."""
    suspect: str
    """Behavior whose data is not; it is trained like any other, but stands in none of the study's own tests."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Poison:
    """Rows of another behavior planted among a behavior's own, to see whether an audit finds them."""

    behavior: str
    """Behavior whose rows are planted."""
    share: float = Field(gt=0, lt=1)
    """Share of the rows that they make up, of the training and of the held-out part alike, to the nearest row; they
    take the place of as many own rows."""
    seed: int = 0
    """Which rows are planted, and which give way: a hash of this and of a row's id decides."""
