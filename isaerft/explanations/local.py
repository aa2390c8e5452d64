"""Explanations written from a latent's own contexts, without a language model; and parsing them again.

The input side names the tokens on which a latent fires, the output side the tokens that it promotes:

    fires on "sir", "madam"; for example "how are you [sir] ? i am"
    promotes "certainly", "sir"
    amplified, makes "certainly", "yes" more likely

The last line is the output side through the whole model above the latent (`output: amplified`), the line before it
along the direct path to the logits. These are a latent's max-activating contexts and its token views (Bricken et al.
2023, "Towards Monosemanticity"; Gur-Arieh et al. 2025, "Enhancing Automated Interpretability with Output-Centric
Feature Descriptions"), written as sentences.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from isaerft.config import Source
from isaerft.errors import InputError, unknown_name
from isaerft.explanations.base import clean_text
from isaerft.explanations.contexts import Context, clean_token, grouped, read_contexts, without_marks

DEFAULTS = {"tokens": 6, "examples": 2}
OUTPUTS = {"promoted": "output", "amplified": "amplified"}
MAX_NAMED = 100
WORDS_AROUND = 6
SIDE_OF = {"fires": "input", "promotes": "output", "amplified": "output"}
_EXAMPLES = "for example"
_AMPLIFIED = re.compile(r'amplified, makes (".*") more likely')
_BREAK = re.compile(rf"; (?=(?:{'|'.join((*SIDE_OF, _EXAMPLES))})\b)")


class Clause(NamedTuple):
    """A part of an explanation and the side that it describes: "input", "output" or "both"."""

    side: str
    text: str


def from_contexts(source: Source, *, subject_dir: Path, d_sae: int, latents: np.ndarray | None = None) -> pd.DataFrame:
    """Return explanations made from `subject_dir`/contexts.parquet; see `isaerft.explanations.base.SourceFunction`.

    Options: `tokens`, the most tokens named per side (6); `examples`, the most contexts quoted (2); `output`, what the
    output side names: "promoted" tokens, by the direct path to the logits, or tokens that become likelier when the
    latent is "amplified".

    A latent without contexts on `source.side` gets no explanation.

    Raises
    ------
    InputError
        The file is missing or lacks a column, no latent has contexts on the side, or an option is unknown.
    """
    limits, output = _limits(source), _output(source)
    sides = {"input": ["input"], "output": [output], "both": ["input", output]}[source.side]
    contexts = read_contexts(subject_dir / "contexts.parquet")
    contexts = contexts[contexts["side"].isin(sides)]
    if contexts.empty:
        raise InputError(
            f"{subject_dir / 'contexts.parquet'} holds no contexts of side {' or '.join(map(repr, sides))}",
            remedy="check the source's `side`, whether any latent fires on the corpus, and `amplified_rows`",
        )
    texts: dict[int, dict[str, str]] = {}
    for latent, side, group in grouped(contexts):
        text = _input_text(group, **limits) if side == "input" else _output_text(group, side, limits["tokens"])
        if text:
            texts.setdefault(latent, {})["input" if side == "input" else "output"] = text
    joined = ["; ".join(by_side[side] for side in sorted(by_side)) for by_side in texts.values()]
    return pd.DataFrame(
        {
            "latent_index": np.array(list(texts), dtype=np.int64),
            "explanation": pd.Series(joined, dtype="str"),
            "side": pd.Series(["both" if len(s) == 2 else next(iter(s)) for s in texts.values()], dtype="str"),
            "url": pd.Series([""] * len(texts), dtype="str"),
        }
    )


def clauses(text: str, side: str) -> list[Clause]:
    """Return the clauses of an explanation, without the examples that it quotes.

    >>> clauses('fires on "sir"; for example "how are you [sir] ?"; amplified, makes "yes" more likely', "both")
    [Clause(side='input', text='fires on "sir"'), Clause(side='output', text='amplified "yes"')]

    In an explanation of one side, every clause describes that side. In one of both sides, a clause that begins with
    "fires" describes the input, one with "promotes" or "amplified" the output, and any other both. Examples are whole
    contexts, and most of their words are not what the latent is about; neither is the frame "makes ... more likely".
    """
    parts = [_AMPLIFIED.sub(r"amplified \1", part) for part in _BREAK.split(text) if not part.startswith(_EXAMPLES)]
    if side != "both":
        return [Clause(side, part) for part in parts]
    return [Clause(SIDE_OF.get(part.split(" ", 1)[0].rstrip(","), "both"), part) for part in parts]


def _limits(source: Source) -> dict[str, int]:
    """Return the numbers among the source's options, checked, with defaults."""
    limits = dict(DEFAULTS)
    for option, value in source.options.items():
        if option == "output":
            continue
        if option not in DEFAULTS:
            raise unknown_name("option of a local source:", option, [*DEFAULTS, "output"])
        lowest = 1 if option == "tokens" else 0
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= MAX_NAMED:
            raise InputError(
                f"option {option} = {value!r} of a local source", allowed=f"an integer from {lowest} to {MAX_NAMED}"
            )
        limits[option] = value
    return limits


def _output(source: Source) -> str:
    """Return the side of the contexts from which the output side is made."""
    output = source.options.get("output", "promoted")
    if output not in OUTPUTS:
        raise InputError(f"option output = {output!r} of a local source", allowed=", ".join(OUTPUTS))
    return OUTPUTS[str(output)]


def _top_tokens(contexts: list[Context], limit: int) -> list[str]:
    """Return the distinct tokens, the most frequent first, then the strongest; case is ignored."""
    tokens = [token for token in (clean_token(context.token) for context in contexts) if token]
    spelling: dict[str, str] = {}
    for token in tokens:
        spelling.setdefault(token.casefold(), token)
    frequent = Counter(token.casefold() for token in tokens).most_common(limit)
    return [spelling[folded] for folded, _ in frequent]


def _quoted(tokens: list[str]) -> str:
    """Return the tokens in quotes, separated by commas."""
    return ", ".join(f'"{token}"' for token in tokens)


def _input_text(contexts: list[Context], tokens: int, examples: int) -> str:
    """Return on which tokens a latent fires, with examples; "" if no token is printable."""
    named = _top_tokens(contexts, tokens)
    quotes = list(dict.fromkeys(quote for quote in map(_example, contexts) if quote))[:examples]
    text = f"fires on {_quoted(named)}" if named else ""
    return f"{text}; for example {_quoted(quotes)}" if named and quotes else text


def _example(context: Context) -> str:
    """Return the token in brackets among the words around it; "" if there are none."""
    before = clean_text(without_marks(context.before)).split()[-WORDS_AROUND:]
    after = clean_text(without_marks(context.after)).split()[:WORDS_AROUND]
    token = clean_token(context.token)
    return " ".join([*before, f"[{token}]", *after]) if token and (before or after) else ""


def _output_text(contexts: list[Context], side: str, tokens: int) -> str:
    """Return which tokens a latent promotes; "" if no token is printable."""
    named = _top_tokens(contexts, tokens)
    if not named:
        return ""
    return f"promotes {_quoted(named)}" if side == "output" else f"amplified, makes {_quoted(named)} more likely"
