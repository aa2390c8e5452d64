"""Taking a text apart into what it says of a latent's input and of its output.

The forms are those of `isaerft.explanations.local` and of joined explanations ("...; ..."):

>>> clauses('fires on "sir"; for example "how are you [sir] ?"; amplified, makes "yes" more likely', "both")
[Clause(side='input', text='fires on "sir"'), Clause(side='output', text='amplified "yes"')]
"""

from __future__ import annotations

import re
from typing import NamedTuple

SIDE_OF = {"fires": "input", "promotes": "output", "amplified": "output"}
_EXAMPLES = "for example"
_AMPLIFIED = re.compile(r'amplified, makes (".*") more likely')
_BREAK = re.compile(rf"; (?=(?:{'|'.join((*SIDE_OF, _EXAMPLES))})\b)")


class Clause(NamedTuple):
    """A part of an explanation and the side it speaks of: "input", "output" or "both"."""

    side: str
    text: str


def clauses(text: str, side: str) -> list[Clause]:
    """Return the clauses of an explanation, without the examples that it quotes.

    An explanation of one side speaks of that side throughout. In one of both sides a clause that begins with "fires"
    speaks of the input, one that begins with "promotes" or "amplified" of the output, any other of both. Examples are
    whole contexts: most of their words are not what the latent is about. Nor is the frame "makes ... more likely".
    """
    parts = [_AMPLIFIED.sub(r"amplified \1", part) for part in _BREAK.split(text) if not part.startswith(_EXAMPLES)]
    if side != "both":
        return [Clause(side, part) for part in parts]
    return [Clause(SIDE_OF.get(part.split(" ", 1)[0].rstrip(","), "both"), part) for part in parts]
