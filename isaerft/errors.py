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


class InputError(ValueError):
    """Something the user gave cannot be used.

    Parameters
    ----------
    given : str
        What was given, with the value itself (bounded in length, control characters escaped).
    allowed : str, optional
        What is allowed in its place.
    remedy : str, optional
        What to do about it.
    """

    def __init__(self, given: str, *, allowed: str = "", remedy: str = "") -> None:
        self.given, self.allowed, self.remedy = given, allowed, remedy
        parts = [given, f"allowed: {allowed}" if allowed else "", remedy]
        super().__init__("; ".join(part for part in parts if part))


def unknown_name(kind: str, given: object, valid: Iterable[str]) -> InputError:
    """Build the error for a name that is not among `valid`, naming the nearest one."""
    names = sorted(valid)
    nearest = difflib.get_close_matches(str(given), names, n=1, cutoff=0.5)
    listed = ", ".join(names[:MAX_LISTED]) + (f", ... ({len(names)} in all)" if len(names) > MAX_LISTED else "")
    remedy = f"did you mean {nearest[0]!r}?" if nearest else ""
    return InputError(f"unknown {kind} {shown(given)}", allowed=listed or "none is available", remedy=remedy)


def shown(value: object) -> str:
    """Return `value` as text fit for one line of a terminal: control characters escaped, length bounded."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + f"... ({len(text)} characters)"
