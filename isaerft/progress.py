"""How far long work is: a bar on a terminal, and elsewhere a line of the log every half minute.

>>> for batch in Progress(batches, desc="capturing", unit="batch"):   # doctest: +SKIP
...     ...
capturing: 40 of 90 batches, 1:15 left
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

logger = logging.getLogger(__name__)
SECONDS = 30


class Progress(tqdm):  # type: ignore[type-arg]  # it is generic in its stubs alone
    """Iterate, or count by `update`, and show how much is done, of how much, and the time left.

    Parameters
    ----------
    iterable : iterable, optional
        Without one, give `total` and call `update(n)`.
    desc : str
        What is done, such as "capturing".
    total : int, optional
        Number of units; default: the length of `iterable`.
    unit : str
        What is counted, in the singular.
    shown : bool
        False shows nothing.
    """

    def __init__(
        self, iterable: Iterable[Any] | None = None, *, desc: str, total: int | None = None, unit: str = "part",
        shown: bool = True,
    ) -> None:  # fmt: skip
        self.drawn = sys.stderr.isatty()
        rare: dict[str, Any] = {} if self.drawn else {"file": io.StringIO(), "mininterval": SECONDS, "miniters": 1}
        super().__init__(iterable, desc=desc, total=total, unit=unit, disable=not shown, leave=False, **rare)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Draw the bar, or log the line."""
        if self.drawn:
            super().display(msg, pos)
        elif self.n and msg is None:
            units = f"{self.unit}{'e' if self.unit.endswith('h') else ''}s"
            left = self.format_interval(self.format_dict["elapsed"] / self.n * ((self.total or self.n) - self.n))
            logger.info("%s: %s of %s %s, %s left", self.desc, f"{self.n:,}", f"{self.total or 0:,}", units, left)
