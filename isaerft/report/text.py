"""Format values and outside text for readers.

Explanations come from models and from the web. Their text may hold markup, direction marks, invisible characters or
piles of combining marks; `visible` keeps the words and makes the rest visible.

>>> from isaerft.report.text import number
>>> number(float("nan")), number(0.123456), number(0.0)
('—', '0.123', '0')
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

import pandas as pd

DASH = "—"
ELLIPSIS = "…"
REPLACEMENT = "\ufffd"
MAX_COMBINING = 3
MAX_NAMED = 8
_JOINERS = "\u200c\u200d"
_LINK = re.compile(r"https?://[A-Za-z0-9.-]+(:\d+)?(/[^\s\"'<>\\]*)?")


def visible(text: object) -> str:
    """Return `text` on one line without control, direction or invisible characters; undefined is a dash.

    Line breaks and other controls become spaces, other invisible characters U+FFFD (so that they are seen), and at most
    `MAX_COMBINING` combining marks stay on one letter. The result is valid in XML and HTML once escaped.
    """
    if undefined(text):
        return DASH
    found = str(text)
    return " ".join((found if found.isascii() and found.isprintable() else _shown(found)).split())


@lru_cache(maxsize=2**18)
def visible_token(text: str) -> str:
    """Return a token as `visible` does, with its spaces; line breaks and tabs become the signs ↵ and ⇥."""
    if text.isascii() and text.isprintable():
        return text
    return _shown(text.replace("\r\n", "↵").replace("\n", "↵").replace("\r", "↵").replace("\t", "⇥"))


def _shown(text: str) -> str:
    """Return text without control, direction or invisible characters."""
    shown: list[str] = []
    combining = 0
    for character in unicodedata.normalize("NFC", text):
        category = unicodedata.category(character)
        combining = combining + 1 if category in {"Mn", "Me"} else 0
        if combining > MAX_COMBINING:
            continue
        if category in {"Cc", "Zl", "Zp"}:
            shown.append(" ")
        elif category.startswith("C") and character not in _JOINERS:
            shown.append(REPLACEMENT)
        else:
            shown.append(character)
    return "".join(shown)


def web_address(text: object) -> str:
    """Return text that is a plain web address; anything else is empty."""
    found = str(text)
    return found if _LINK.fullmatch(found) and found.isprintable() else ""


def shorten(text: object, width: int) -> str:
    """Return `visible(text)` cut to `width` columns (an East Asian wide character takes two), ending in an ellipsis."""
    clean = visible(text)
    if sum(map(_columns, clean)) <= width:
        return clean
    used, kept = 1, []
    for character in clean:
        used += _columns(character)
        if used > width:
            break
        kept.append(character)
    return "".join(kept).rstrip() + ELLIPSIS


def distinct(names: Iterable[object], width: int) -> list[str]:
    """Return names cut to `width` columns; where that makes some equal, their common prefix is cut instead.

    >>> distinct(["refusal", "a_long_name_of_one", "a_long_name_of_two"], 10)
    ['refusal', '…one', '…two']
    """
    whole = [visible(name) for name in names]
    cut = [shorten(name, width) for name in whole]
    for label in {label for label in cut if cut.count(label) > 1}:
        alike = [name for name, short in zip(whole, cut, strict=True) if short == label]
        shared = _common_prefix(alike)
        for i, name in enumerate(whole):
            if cut[i] == label and len(set(alike)) > 1:
                cut[i] = ELLIPSIS + shorten(name[shared:], width - 1)
    return cut


def words(name: object) -> str:
    """Return a name from a table as words: underscores become spaces."""
    return visible(name).replace("_", " ")


def number(value: object, digits: int = 3) -> str:
    """Return a float with `digits` significant digits; undefined is a dash."""
    if undefined(value):
        return DASH
    return f"{float(value):.{digits}g}".replace("-", "\u2212")  # type: ignore[arg-type]


def fixed(value: object, places: int = 2) -> str:
    """Return a float with `places` decimals; undefined is a dash."""
    if undefined(value):
        return DASH
    shown = f"{float(value):.{places}f}"  # type: ignore[arg-type]
    return shown.removeprefix("-") if not float(shown) else shown.replace("-", "\u2212")


def probability(value: float) -> str:
    """Return a p-value as 'p = 0.023', or 'p < 0.0001'."""
    return "p < 0.0001" if value < 1e-4 else f"p = {value:.2g}"


def count(value: object) -> str:
    """Return an integer with commas between thousands; undefined is a dash."""
    return DASH if undefined(value) else f"{int(value):,}".replace("-", "\u2212")  # type: ignore[call-overload]


def undefined(value: object) -> bool:
    """Return whether a scalar is None, NaN or pandas' NA."""
    return bool(pd.isna(value))


def interval(low: object, high: object, places: int = 2) -> str:
    """Return 'low to high'; empty if undefined."""
    return "" if undefined(low) or undefined(high) else f"{fixed(low, places)} to {fixed(high, places)}"


def named(names: Iterable[object], most: int = MAX_NAMED) -> str:
    """Return up to `most` names as words, and how many more there are."""
    listed = [words(name) for name in names]
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def plural(n: int, noun: str, many: str = "") -> str:
    """Return '1 behavior' or '3 behaviors'."""
    return f"{n:,} {noun if n == 1 else many or noun + 's'}"


def _common_prefix(names: list[str]) -> int:
    """Return the length of the common prefix."""
    first, last = min(names), max(names)
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))


def _columns(character: str) -> int:
    """Return how many columns a character takes in a fixed grid."""
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
