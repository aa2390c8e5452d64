"""Taking a text apart into what it says of a latent's input and of its output.

The forms are those of `isaerft.explanations.local` and of joined explanations ("...; ..."):

>>> clauses('fires on "sir"; for example "how are you [sir] ?"; amplified, makes "yes" more likely', "both")
[Clause(side='input', text='fires on "sir"'), Clause(side='output', text='amplified "yes"')]

Which of a latent's several explanations goes first, by who made it.

>>> ranks_of_makers(["gpt-4o-mini/oai_token-act-pair", "human", ""], ["human", "gpt-4o-mini"])
[1, 0, 2]

Which latents a source is asked for: those that are alive, or a sample that was drawn and written down before.

A sample is a table with one row per latent, written before anything is fetched:

| column | what |
|---|---|
| latent_index | the latent |
| role | case (among the most changed) or control |
| stratum | of which latents alike it is one; explanations are exchanged within it |
| matched_to | the case that a control was drawn for; the latent itself for a case |
| drawn_for | behavior/adapter of which it (or its case) is among the most changed, with commas between |

What an explanation source is, and the one table that every source gives.

A source is a callable registered under a name. It gets its options and returns one row per explained latent:

>>> from isaerft.registry import SOURCES
>>> @SOURCES("shouting")    # doctest: +SKIP
... def shouting(source, *, subject_dir, d_sae, latents=None):
...     return pd.DataFrame({"latent_index": [3], "explanation": ["capital letters"], "side": ["input"], "url": [""]})

Explanations are other people's text: here they become harmless data, on one line and bounded in length.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd

from isaerft.config import Source, Study
from isaerft.errors import InputError, printable, shown, unknown_name
from isaerft.io import read_parquet, replacing
from isaerft.llm import LanguageModel
from isaerft.registry import SOURCES
from isaerft.table import CONTROL, MAX_TEXT

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


def ranks_of_makers(makers: Sequence[str], prefer: Sequence[str]) -> list[int]:
    """Return each maker's place in the preferred order; those not listed come last, alike.

    Parameters
    ----------
    makers : sequence of str
        `explanationModelName/typeName`, or what is known of it.
    prefer : sequence of str
        Makers in full, or one of the two parts, the best first.

    Raises
    ------
    InputError
        None of the makers is listed.
    """
    rank_of = {}
    for maker in set(makers):
        names = {maker, *maker.split("/")} - {""}
        rank_of[maker] = next((rank for rank, name in enumerate(prefer) if name in names), len(prefer))
    if prefer and min(rank_of.values(), default=len(prefer)) == len(prefer):
        listed = ", ".join(prefer)
        raise unknown_name("maker of explanations in `prefer`:", listed, map(printable, set(makers) - {""}))
    return [rank_of[maker] for maker in makers]


CASE_ROLE, CONTROL_ROLE = "case", "control"
_COLUMNS = {
    "latent_index": "int64",
    "role": "str",
    "stratum": "int64",
    "matched_to": "int64",
    "drawn_for": "str",
}


def latents_asked(facts: pd.DataFrame, min_firing_rate: float, sample: str | Path | None = None) -> np.ndarray:
    """Return the latents that a source is asked for, (n,) int64 ascending: a sample's, or all that are alive.

    Parameters
    ----------
    facts : DataFrame
        latent_index and firing_rate of the subject's latents.
    min_firing_rate : float
        Those that fire less often are dead.
    sample : path, optional
        The sample, as `write_sample` wrote it.
    """
    if sample is not None:
        return np.sort(read_sample(sample)["latent_index"].to_numpy())
    return np.sort(facts.loc[facts["firing_rate"] >= min_firing_rate, "latent_index"].to_numpy(np.int64))


def sample_path(plan: Study, results: str | Path, subject: str, source: str) -> Path | None:
    """Return where the sample lies that a source is asked for; None where it is asked for all latents."""
    return Path(results) / "design" / f"{subject}.parquet" if plan.design_of(source) == "case_control" else None


def write_sample(sample: pd.DataFrame, path: str | Path) -> None:
    """Check a sample and write it as Parquet under `path`, atomically."""
    checked = _checked(sample, "the sample")
    with replacing(path) as temporary:
        checked.to_parquet(temporary, index=False)


def read_sample(path: str | Path) -> pd.DataFrame:
    """Read a sample written by `write_sample` and check it again."""
    sample = read_parquet(
        path, missing=f"sample of latents {str(path)!r} does not exist", remedy="run the rule `design`"
    )
    return _checked(sample, str(path))


def _checked(sample: pd.DataFrame, place: str) -> pd.DataFrame:
    """Return the sample in its columns and types, by latent."""
    if set(sample.columns) != set(_COLUMNS):
        raise InputError(f"{place} has the columns {', '.join(map(str, sample.columns))}", allowed=", ".join(_COLUMNS))
    sample = sample[list(_COLUMNS)].astype(_COLUMNS).sort_values("latent_index", ignore_index=True)
    unknown = set(sample["role"]) - {CASE_ROLE, CONTROL_ROLE}
    if unknown:
        raise InputError(f"{place} has the roles {', '.join(sorted(unknown))}", allowed=f"{CASE_ROLE}, {CONTROL_ROLE}")
    if sample["latent_index"].duplicated().any() or (sample["latent_index"] < 0).any():
        raise InputError(f"{place} holds a latent twice, or one below 0", allowed="each latent once")
    return sample


COLUMNS = ("latent_index", "explanation", "side", "url")
SIDES = ("input", "output", "both")
MAX_URL = 500
# Commands to a terminal, begun by ESC and another character or by one control character.
_ESCAPE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?|\x1b[@-Z\\^_]"
)
_URL = re.compile(r"https?://[A-Za-z0-9._~:/?#@!$&()*+,;=%\[\]-]+")
log = logging.getLogger(__name__)


class ExplanationSource(Protocol):
    """A registered source of explanations (`isaerft.registry.SOURCES`, entry-point group `isaerft.sources`)."""

    def __call__(
        self, source: Source, *, subject_dir: Path, d_sae: int, latents: np.ndarray | None = None
    ) -> pd.DataFrame:
        """Return the explanations of one subject's latents.

        Parameters
        ----------
        source : Source
            Options of the source.
        subject_dir : Path
            Folder of the subject's own files (contexts.parquet and the like).
        d_sae : int
            Number of latents of the SAE.
        latents : (n,) int64, optional
            The latents asked for; all when not given. A source whose explanations cost something leaves out others.
        llm : LanguageModel
            Given only to a source whose options name an `llm`.

        Returns
        -------
        DataFrame
            latent_index : int64, unique, in [0, d_sae); explanation : str; side : "input", "output" or "both"; url :
            str, may be empty. A latent without explanation has no row. `attrs["counts"]` may hold what was left out,
            and under "failed" how many of the latents asked for could not be looked up.
        """


def explain(
    name: str,
    source: Source,
    *,
    subject_dir: str | Path,
    d_sae: int,
    latents: np.ndarray | None = None,
    only: bool = False,
    llm: LanguageModel | None = None,
) -> pd.DataFrame:
    """Run a source and check what it returns; `name`, the source's in the study, is its kind where none is given.

    `latents`, (n,) int64, are those asked for. A source may give others where they cost nothing; with `only` they are
    dropped. `llm` is given to a source whose options name one.
    """
    asked = {} if llm is None else {"llm": llm}
    frame = SOURCES[source.kind or name](source, subject_dir=Path(subject_dir), d_sae=d_sae, latents=latents, **asked)
    frame = checked_explanations(frame, d_sae=d_sae)
    if only and latents is not None:
        frame = frame[frame["latent_index"].isin(latents)].reset_index(drop=True)
    log.info("source %r explains %d of %d latents; %s", name, len(frame), d_sae, frame.attrs["counts"])
    return frame


def checked_explanations(frame: pd.DataFrame, *, d_sae: int | None = None) -> pd.DataFrame:
    """Return `frame` sorted by latent, with clean text, without the rows whose text is empty.

    Rows left out are counted in `attrs["counts"]["empty"]` of the result, which survives Parquet.

    Raises
    ------
    InputError
        A column is missing or unknown, an index is not an integer in range or stands twice, a side is unknown.
    """
    if set(frame.columns) != set(COLUMNS):
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
    return result


def check_indices(indices: pd.Series, d_sae: int | None) -> None:
    """Refuse indices that the SAE does not have."""
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

    At most `MAX_TEXT` characters are kept. What is no text (None, NaN, a number) is empty. HTML stays as it is: pages
    escape it, and an explanation may speak of tags.
    """
    if not isinstance(value, str):
        return ""
    text = CONTROL.sub(" ", _ESCAPE.sub(" ", value[: 10 * MAX_TEXT]))
    text = " ".join(text.split())
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3].rstrip() + "..."


def clean_url(value: object) -> str:
    """Return an http(s) address, or "" for anything else (no `javascript:`, nothing with quotes or spaces in it)."""
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
