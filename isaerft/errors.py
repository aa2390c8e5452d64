"""The one exception that a user's bad input raises.

>>> raise InputError("unknown behavior 'refusl'", allowed="helpfulness, refusal", remedy="did you mean 'refusal'?")
Traceback (most recent call last):
isaerft.errors.InputError: unknown behavior 'refusl'; allowed: helpfulness, refusal; did you mean 'refusal'?
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MAX_LISTED = 40
MAX_SHOWN = 300
MAX_NAME = 60
MAX_PART = 4000


class InputError(ValueError):
    """Something the user gave cannot be used.

    Parameters
    ----------
    given : str
        What was given, with the value itself.
    allowed : str, optional
        What is allowed in its place.
    remedy : str, optional
        What to do about it.

    Notes
    -----
    All three may quote what came from outside: control characters are escaped, and each is bounded in length.
    """

    def __init__(self, given: str, *, allowed: str = "", remedy: str = "") -> None:
        self.given, self.allowed, self.remedy = (one_line(part) for part in (given, allowed, remedy))
        parts = [self.given, f"allowed: {self.allowed}" if allowed else "", self.remedy]
        super().__init__("; ".join(part for part in parts if part))


def unknown_name(kind: str, given: object, valid: Iterable[str]) -> InputError:
    """Build the error for a name that is not among `valid`, naming the nearest one."""
    names = sorted(valid)
    nearest = difflib.get_close_matches(str(given)[:MAX_SHOWN], names, n=1, cutoff=0.5)
    listed = ", ".join(one_line(name, MAX_NAME) for name in names[:MAX_LISTED])
    listed += f", ... ({len(names)} in all)" if len(names) > MAX_LISTED else ""
    remedy = f"did you mean {one_line(nearest[0], MAX_NAME)!r}?" if nearest else ""
    return InputError(f"unknown {kind} {shown(given)}", allowed=listed or "none is available", remedy=remedy)


def shown(value: object) -> str:
    """Return `value` as Python writes it, fit for one line of a terminal."""
    return one_line(repr(value), MAX_SHOWN)


def one_line(text: str, limit: int = MAX_PART) -> str:
    """Return `text` with what a terminal would act on escaped (controls, line ends, bidi marks), length bounded."""
    head = text[:limit]
    if not head.isprintable():
        head = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in head)
    return head if len(text) <= limit else f"{head}... ({len(text)} characters)"
