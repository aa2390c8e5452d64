"""The exception for a user's bad input: one line with the problem, what is allowed, and what to do.

>>> raise InputError("unknown behavior 'refusl'", allowed="helpfulness, refusal", remedy="did you mean 'refusal'?")
Traceback (most recent call last):
isaerft.errors.InputError: unknown behavior 'refusl'; allowed: helpfulness, refusal; did you mean 'refusal'?
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

MAX_LISTED = 40
MAX_SHOWN = 300
MAX_NAME = 60
MAX_PART = 4000


class InputError(ValueError):
    """The user's input cannot be used.

    Parameters
    ----------
    problem : str
        What is wrong, with the value itself.
    allowed : str, optional
        What is allowed instead.
    remedy : str, optional
        What to do about it.

    Notes
    -----
    All three may quote outside text: control characters are escaped, and the length of each is bounded.
    """

    def __init__(self, problem: str, *, allowed: str = "", remedy: str = "") -> None:
        self.problem, self.allowed, self.remedy = (one_line(part) for part in (problem, allowed, remedy))
        parts = [self.problem, f"allowed: {self.allowed}" if allowed else "", self.remedy]
        super().__init__("; ".join(part for part in parts if part))


def unknown_name(kind: str, name: object, valid: Iterable[str]) -> InputError:
    """Return the error for a name that is not in `valid`; it suggests the nearest one."""
    names = sorted(valid)
    nearest = difflib.get_close_matches(str(name)[:MAX_SHOWN], names, n=1, cutoff=0.5)
    listed = ", ".join(printable(name) for name in names[:MAX_LISTED])
    listed += f", ... ({len(names)} in all)" if len(names) > MAX_LISTED else ""
    remedy = f"did you mean {printable(nearest[0])!r}?" if nearest else ""
    return InputError(f"unknown {kind} {shown(name)}", allowed=listed or "none is available", remedy=remedy)


def from_here(path: object) -> str:
    """Return the end of a remedy about a missing file: where a relative path begins; "" for an absolute one."""
    return "" if Path(str(path)).is_absolute() else f" (relative to {Path.cwd()})"


def shown(value: object) -> str:
    """Return the repr of a value, safe for a terminal and bounded in length."""
    return one_line(repr(value), MAX_SHOWN)


def printable(name: object) -> str:
    """Return a name from outside, safe for a terminal and short enough for a list."""
    return one_line(str(name), MAX_NAME)


def one_line(text: str, limit: int = MAX_PART) -> str:
    """Return text on one line: control characters, line ends and bidi marks escaped, cut to `limit` characters."""
    head = text[:limit]
    if not head.isprintable():
        head = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in head)
    return head if len(text) <= limit else f"{head}... ({len(text)} characters)"
