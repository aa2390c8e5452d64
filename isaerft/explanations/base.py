"""What an explanation source is, and the table that every source returns.

A source is a callable registered under a name (`isaerft.registry.SOURCES`, entry-point group `isaerft.sources`). It
gets its options and returns one row per explained latent:

>>> @SOURCES("my_source")    # doctest: +SKIP
... def my_source(source, *, subject_dir, d_sae, latents=None):
...     return pd.DataFrame({"latent_index": [3], "explanation": ["capital letters"], "side": ["input"], "url": [""]})

A source that asks a language model of the study is registered with `asks=True` and is called with `llm`. If it also has
a method `requests`, `isaerft cost` can count its requests in advance (see `AskingSource`).

Explanations are other people's text: here they become harmless data, on one line and bounded in length.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from isaerft.config import Source
from isaerft.errors import InputError, printable, shown, unknown_name
from isaerft.io import read_json, read_parquet, replacing
from isaerft.llm import LanguageModel, Prompt
from isaerft.table import CONTROL, MAX_TEXT

COLUMNS = ("latent_index", "explanation", "side", "url")
MAKER = "maker"
"""Further column: who made the explanation, where the source knows it."""
SIDES = ("input", "output", "both")
MAX_URL = 500
# Terminal commands, which begin with ESC and another character or with one control character.
_ESCAPE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?|\x1b[@-Z\\^_]"
)
_URL = re.compile(r"https?://[A-Za-z0-9._~:/?#@!$&()*+,;=%\[\]-]+")


class SourceFunction(Protocol):
    """A registered source of explanations."""

    def __call__(
        self, source: Source, *, subject_dir: Path, d_sae: int, latents: np.ndarray | None = None
    ) -> pd.DataFrame:
        """Return the explanations of one subject's latents.

        Parameters
        ----------
        source : Source
            Options of the source. If they name an `llm`, the language model is passed as the argument `llm`.
        subject_dir : Path
            Folder of the subject's own files (contexts.parquet and the like).
        d_sae : int
            Number of latents of the SAE.
        latents : (n,) int64, optional
            The latents to explain; all by default. A source whose explanations cost something omits others.

        Returns
        -------
        DataFrame
            latent_index : int64, unique, in [0, d_sae); explanation : str; side : "input", "output" or "both"; url :
            str, may be empty; maker : str, optional. A latent without explanation has no row. `attrs["counts"]` may
            hold what was left out, and under "failed" how many of `latents` could not be looked up;
            `attrs["evidence"]`, an `isaerft.explanations.provenance.Evidence`, of which SAE they are.
        """


@runtime_checkable
class AskingSource(Protocol):
    """A source that asks a language model and can list its requests in advance."""

    def requests(
        self,
        source: Source,
        *,
        subject_dir: Path | None,
        d_sae: int,
        latents: np.ndarray | None = None,
        llm: LanguageModel,
    ) -> Sequence[Prompt]:
        """Return the prompts of a call with the same arguments; nothing is sent.

        `subject_dir` is None before the subject's files exist. Then return the most that can be asked: for example, one
        different prompt of typical length for each of `latents`.
        """


def checked_explanations(frame: pd.DataFrame, *, d_sae: int | None = None) -> pd.DataFrame:
    """Return `frame` sorted by latent, with clean text, without the rows whose text is empty.

    `attrs["counts"]["empty"]` of the result counts the rows left out; it survives Parquet.

    Raises
    ------
    InputError
        A column is missing or unknown, an index is repeated or not an integer in range, or a side is unknown.
    """
    if set(frame.columns) - {MAKER} != set(COLUMNS):
        raise InputError(f"explanations with columns {shown(list(frame.columns))}", allowed=", ".join(COLUMNS))
    index = frame["latent_index"]
    if len(frame) and not pd.api.types.is_integer_dtype(index):
        raise InputError(f"explanations: latent_index is {index.dtype}", allowed="int64")
    counts = dict(frame.attrs.get("counts", {}))
    result = pd.DataFrame(
        {
            "latent_index": index.to_numpy(dtype=np.int64),
            "explanation": pd.Series([clean_text(text) for text in frame["explanation"]], dtype="str"),
            "side": pd.Series(list(frame["side"]), dtype="str"),
            "url": pd.Series([clean_url(url) for url in frame["url"]], dtype="str"),
        }
    )
    if MAKER in frame:
        result[MAKER] = pd.Series([clean_text(maker) for maker in frame[MAKER]], dtype="str")
    unknown = sorted(set(result["side"].dropna()) - set(SIDES))
    if unknown or result["side"].isna().any():
        raise InputError(f"explanations with side {shown(unknown or None)}", allowed=", ".join(SIDES))
    check_indices(result["latent_index"], d_sae)
    repeated = result["latent_index"][result["latent_index"].duplicated()]
    if len(repeated):
        raise InputError(f"latent {repeated.iloc[0]} has more than one explanation", allowed="one row per latent")
    empty = result["explanation"] == ""
    counts["empty"] = counts.get("empty", 0) + int(empty.sum())
    result = result[~empty].sort_values("latent_index").reset_index(drop=True)
    result.attrs["counts"] = counts
    if "provenance" in frame.attrs:
        result.attrs["provenance"] = dict(frame.attrs["provenance"])
    return result


def check_indices(indices: pd.Series, d_sae: int | None) -> None:
    """Refuse indices that are out of the SAE's range."""
    if not len(indices):
        return
    worst = indices.min() if indices.min() < 0 else indices.max()
    if worst < 0 or (d_sae is not None and worst >= d_sae):
        raise InputError(
            f"explanation of latent {worst}",
            allowed=f"0 to {d_sae - 1}: the SAE has {d_sae} latents" if d_sae else "0 or more",
            remedy="these explanations belong to another SAE",
        )


def clean_text(value: object) -> str:
    """Return text from outside on one line: no control, direction, invisible or terminal codes.

    At most `MAX_TEXT` characters are kept. Anything but text (None, NaN, a number) becomes "". HTML is kept: pages
    escape it, and an explanation may mention tags.
    """
    if not isinstance(value, str):
        return ""
    text = CONTROL.sub(" ", _ESCAPE.sub(" ", value[: 10 * MAX_TEXT]))
    text = " ".join(text.split())
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3].rstrip() + "..."


def clean_url(value: object) -> str:
    """Return an http(s) address, or "" for anything else (such as `javascript:`, or text with quotes or spaces)."""
    text = value.strip() if isinstance(value, str) else ""
    return text if len(text) <= MAX_URL and _URL.fullmatch(text) else ""


def write_explanations(frame: pd.DataFrame, path: str | Path, *, d_sae: int | None = None) -> None:
    """Check explanations and write them as Parquet under `path`, atomically."""
    checked = checked_explanations(frame, d_sae=d_sae)
    with replacing(path) as temporary:
        checked.to_parquet(temporary, index=False)


def read_explanations(path: str | Path, *, d_sae: int | None = None) -> pd.DataFrame:
    """Read explanations written by `write_explanations` and check them again."""
    frame = read_parquet(
        path, missing=f"explanations {str(path)!r} do not exist", remedy="run the rule that makes them"
    )
    return checked_explanations(frame, d_sae=d_sae)


def names_of_maker(maker: str) -> list[str]:
    """Return the names that a maker, `explanationModelName/typeName`, goes by: the whole, and each of the two."""
    return list(dict.fromkeys(name for name in (maker, *maker.split("/")) if name))


def ranks_of_makers(makers: Sequence[str], prefer: Sequence[str]) -> list[int]:
    """Return each maker's rank in the preferred order; makers that are not listed share the last rank.

    >>> ranks_of_makers(["gpt-4o-mini/oai_token-act-pair", "human", ""], ["human", "gpt-4o-mini"])
    [1, 0, 2]

    Parameters
    ----------
    makers : sequence of str
        `explanationModelName/typeName`, or the known part of it.
    prefer : sequence of str
        Full makers, or one of the two parts, the best first.

    Raises
    ------
    InputError
        None of the makers is listed.
    """
    rank_of = {}
    for maker in set(makers):
        names = names_of_maker(maker)
        rank_of[maker] = next((rank for rank, name in enumerate(prefer) if name in names), len(prefer))
    if prefer and min(rank_of.values(), default=len(prefer)) == len(prefer):
        listed = ", ".join(prefer)
        raise unknown_name("maker of explanations in `prefer`:", listed, map(printable, set(makers) - {""}))
    return [rank_of[maker] for maker in makers]


def sae_metadata(subject_dir: Path) -> dict[str, Any]:
    """Return what the SAE in a subject's folder says of itself (hook_name, neuronpedia_id); {} if there is none."""
    path = subject_dir / "sae" / "cfg.json"
    card = read_json(path) if path.is_file() else {}
    metadata = card.get("metadata") if isinstance(card, dict) else None
    return metadata if isinstance(metadata, dict) else {}
