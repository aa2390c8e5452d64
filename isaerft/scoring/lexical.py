"""The lexical matcher: an explanation fits an item when the two share words and pieces of words.

The similarity is the lexical judge's (`isaerft.relevance.lexical`), but words without content of their own stay in: a
latent may fire on just these.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isaerft.config import Scorer
from isaerft.registry import MATCHERS
from isaerft.relevance.lexical import similarity_of_pairs
from isaerft.scoring.base import Task
from isaerft.scoring.pairs import fits_of_pairs


@MATCHERS("lexical")
def lexical(tasks: Sequence[Task], scorer: Scorer) -> list[np.ndarray]:
    """Match by shared words; see `isaerft.scoring.base.Matcher`."""
    return fits_of_pairs(tasks, similarity_of_pairs)
