"""What is known of the text around a latent: contexts.parquet, as the subject's facts hold it.

Columns: latent_index (int), side ("input", "output" or "amplified"), rank (int, 0 is the strongest), token, before,
after (str) and value (float: the activation, the promotion, or the rise of the log-probability in nats).

Explanations written from a latent's own contexts, without any language model.

The input side says on which tokens a latent fires, the output side which tokens it promotes:

    fires on "sir", "madam"; for example "how are you [sir] ? i am"
    promotes "certainly", "sir"
    amplified, makes "certainly", "yes" more likely

The last is the output side as the whole model above the latent has it (`output: amplified`), the one before it as the
direct path to the logits has it. These are the max-activating-contexts and the token views of a latent (Bricken et al.
2023, "Towards Monosemanticity"; Gur-Arieh et al. 2025, "Enhancing Automated Interpretability with Output-Centric
Feature Descriptions"), in the form of sentences.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from isaerft.config import Source
from isaerft.errors import InputError, unknown_name
from isaerft.explanations.base import clean_text
from isaerft.io import read_parquet

CONTEXT_COLUMNS = ("latent_index", "side", "rank", "token", "before", "after", "value")
MAX_TOKEN = 40
_BREAKS = {"\n": "line break", "\t": "tab", "Ċ": "line break", "ĉ": "tab", "<0x0A>": "line break", "<0x09>": "tab"}


class Context(NamedTuple):
    """A token, the text around it, and how strong it is."""

    token: str
    before: str
    after: str
    value: float = 0.0


def clean_token(token: str) -> str:
    """Return a token as a reader would write it: without tokenizer marks, bounded, white space named."""
    bare = token.removeprefix("##")
    return _BREAKS.get(bare.strip(" Ġ▁")) or clean_text(without_marks(bare))[:MAX_TOKEN]


def without_marks(text: str) -> str:
    """Turn the marks that tokenizers write for white space back into it."""
    for mark, written in (("Ġ", " "), ("▁", " "), ("Ċ", "\n"), ("ĉ", "\t"), (" ##", ""), ("<0x0A>", "\n")):
        text = text.replace(mark, written)
    return text


def read_contexts(path: Path) -> pd.DataFrame:
    """Read contexts.parquet and check its columns; rows by latent, side and rank."""
    contexts = read_parquet(
        path, missing=f"contexts {str(path)!r} do not exist", remedy="make the subject's facts first"
    )
    missing = [column for column in CONTEXT_COLUMNS if column not in contexts]
    if missing:
        raise InputError(f"{path} lacks the columns {', '.join(missing)}", allowed=", ".join(CONTEXT_COLUMNS))
    for column in ("token", "before", "after"):
        contexts[column] = contexts[column].map(lambda text: text if isinstance(text, str) else "")
    return contexts.sort_values(["latent_index", "side", "rank"], kind="stable")


def grouped(contexts: pd.DataFrame) -> list[tuple[int, str, list[Context]]]:
    """Return (latent, side, contexts by rank) for contexts sorted by these."""
    groups: list[tuple[int, str, list[Context]]] = []
    columns = (contexts[name].tolist() for name in ("latent_index", "side", "token", "before", "after", "value"))
    for latent, side, *context in zip(*columns, strict=True):
        if not groups or groups[-1][:2] != (latent, side):
            groups.append((latent, side, []))
        groups[-1][2].append(Context(*context))
    return groups


DEFAULTS = {"tokens": 6, "examples": 2}
OUTPUTS = {"promoted": "output", "amplified": "amplified"}
MAX_NAMED = 100
WORDS_AROUND = 6


def from_contexts(source: Source, *, subject_dir: Path, d_sae: int, latents: np.ndarray | None = None) -> pd.DataFrame:
    """Return explanations made from `subject_dir`/contexts.parquet.

    Options: `tokens`, the most tokens named per side (6); `examples`, the most contexts quoted (2); `output`, what the
    output side speaks of: "promoted" tokens, by the direct path to the logits, or those that are likelier when the
    latent is "amplified".

    `source.side` picks the sides; a latent without contexts on them gets no explanation. For the file's columns see
    `isaerft.explanations.local`.

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


def _limits(source: Source) -> dict[str, int]:
    """Return the source's options, checked, over the defaults."""
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
    """Return the side of the contexts that the output side is made from."""
    chosen = source.options.get("output", "promoted")
    if chosen not in OUTPUTS:
        raise InputError(f"option output = {chosen!r} of a local source", allowed=", ".join(OUTPUTS))
    return OUTPUTS[str(chosen)]


def _top_tokens(contexts: list[Context], limit: int) -> list[str]:
    """Return the distinct tokens, the most frequent first, then the strongest; letter case makes no difference."""
    tokens = [token for token in (clean_token(context.token) for context in contexts) if token]
    spelling: dict[str, str] = {}
    for token in tokens:
        spelling.setdefault(token.casefold(), token)
    frequent = Counter(token.casefold() for token in tokens).most_common(limit)
    return [spelling[folded] for folded, _ in frequent]


def _quoted(tokens: list[str]) -> str:
    """Return the tokens in quotes, with commas between."""
    return ", ".join(f'"{token}"' for token in tokens)


def _input_text(contexts: list[Context], tokens: int, examples: int) -> str:
    """Say on what a latent fires, with examples; "" if its tokens hold nothing printable."""
    named = _top_tokens(contexts, tokens)
    quotes = list(dict.fromkeys(quote for quote in map(_example, contexts) if quote))[:examples]
    text = f"fires on {_quoted(named)}" if named else ""
    return f"{text}; for example {_quoted(quotes)}" if named and quotes else text


def _example(context: Context) -> str:
    """Return the token in brackets between the words around it; "" if there are none."""
    before = clean_text(without_marks(context.before)).split()[-WORDS_AROUND:]
    after = clean_text(without_marks(context.after)).split()[:WORDS_AROUND]
    token = clean_token(context.token)
    return " ".join([*before, f"[{token}]", *after]) if token and (before or after) else ""


def _output_text(contexts: list[Context], side: str, tokens: int) -> str:
    """Say which tokens a latent promotes."""
    named = _top_tokens(contexts, tokens)
    if not named:
        return ""
    return f"promotes {_quoted(named)}" if side == "output" else f"amplified, makes {_quoted(named)} more likely"
