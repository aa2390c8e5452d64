"""Provenance: are these explanations of this SAE's latents? By what files say, and by what the latents do.

What is said (`isaerft.provenance`): the source's id at Neuronpedia, where the weights are, model, layer and width. What
is done: Neuronpedia lists the tokens that each latent promotes most, and those on which it fires most. If labels belong
to these latents, most latents are recognized by their promoted tokens among the others (`isaerft.stats.recognition`);
under a shifted index, or with another SAE, next to none are.

- *proven*: made here from the subject's own contexts; or the latents promote the tokens that the labels' pages list,
  and the tokens on which they fire do not say otherwise.
- *stated*: the explanations come with a name of this SAE. What the latents do was not compared, or proves nothing.
- *unknown*: neither; or contradicted, and taken all the same (`other_sae: true`).

A contradiction is an error. Latents of an SAE that was fine-tuned from another may promote nearly the same tokens, so
these two are told apart by their names alone.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from isaerft.config import Source
from isaerft.directory import saes_directory
from isaerft.errors import InputError, printable
from isaerft.explanations.contexts import clean_token, read_contexts
from isaerft.io import read_data_file, read_json, read_parquet
from isaerft.layout import SubjectFolder
from isaerft.provenance import About, Comparison, compare
from isaerft.registry import SOURCES
from isaerft.stats.recognition import MIN_ITEMS, Recognition, recognition

PROVEN, STATED, UNKNOWN = "proven", "stated", "unknown"
N_SHOWN = 64
"""Latents that are compared at most, where each costs a look-up."""
MAX_TOKENS = 20
MAX_FIRES_ON = 5
MIN_SHARED = 0.01
"""Share of the listed tokens that must be tokens of ours at all; below, they are another tokenizer's."""
FIRES_LEVEL = 0.01
SEED = 0
_INDEX = re.compile(r"[0-9]{1,18}")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
log = logging.getLogger(__name__)


class Shown(NamedTuple):
    """What a page of labels lists of a latent: tokens that it promotes most, and tokens on which it fires most."""

    latent: int
    promoted: tuple[str, ...]
    fires_on: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """What a source of explanations knows of the SAE that they are about; it is put into `attrs["evidence"]`.

    Attributes
    ----------
    said : tuple of About
    shown : tuple of Shown
    """

    said: tuple[About, ...] = ()
    shown: tuple[Shown, ...] = ()

    def with_features(self, path: Path) -> Evidence:
        """Return this with Neuronpedia's rows of latents: a file, or a folder of its batches of features.

        Raises
        ------
        InputError
            A file cannot be read, or no row is about the source that is named.
        """
        source_id = next((one.source_id for one in self.said if one.source_id), "")
        files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
        said: tuple[About, ...] = ()
        shown = []
        for row in (row.values for file in files for row in read_data_file(file)):
            named, index = f"{row.get('modelId')}/{row.get('layer')}", str(row.get("index", "")).strip()
            if source_id in ("", named) and _INDEX.fullmatch(index):
                source_id = named
                said = said or (About(f"the row of a latent in {path}", source_id=named), *statements_in(row))
                shown.append(shown_in(row, int(index)))
        if not shown:
            raise InputError(
                f"{path} holds no latents of {printable(source_id) or 'any SAE'}",
                allowed="rows with modelId, layer, index and pos_str, as in Neuronpedia's exports of features",
                remedy="give the batches of the same source as the explanations, or leave `features` out",
            )
        return Evidence((*self.said, *said), (*self.shown, *shown))


def checked_provenance(
    name: str, source: Source, evidence: Evidence, n_explained: int, subject_dir: Path
) -> dict[str, Any]:
    """Refuse explanations of another SAE, warn of those of which nothing is known, and return what is known.

    Parameters
    ----------
    name : str
        Name of the source, and its kind if `source.kind` is empty.
    n_explained : int
        Number of explanations, for the warning.

    Returns
    -------
    dict
        provenance : "proven", "stated" or "unknown"; n_compared, n_recognized : latents whose promoted tokens were
        compared, and that were recognized by them.

    Raises
    ------
    InputError
        The explanations say, or their latents show, that they are of another SAE, and `source.other_sae` is not set.
    """
    if SOURCES.facts(source.kind or name).own_contexts or "{subject_dir}" in (source.path or ""):
        return {"provenance": PROVEN, "n_compared": 0, "n_recognized": 0}
    own = statement_of(subject_dir)
    stated = [compare(said, own, saes_directory()) for said in evidence.said]
    promoted, fires = compare_tokens(evidence.shown, subject_dir)
    counts = {"n_compared": promoted.n_items, "n_recognized": promoted.n_recognized}
    against = [text for one in stated for text in one.contradicted]
    if promoted.verdict == "different":
        against.append(
            f"of {promoted.n_items} latents compared, {promoted.n_recognized} promote the tokens that the labels' pages"
            f" list for them"
        )
    if against and not source.other_sae:
        raise InputError(
            f"explanations from {name!r} are of another SAE: {'; '.join(against)}",
            allowed=f"those of the subject's SAE{_named(own)}",
            remedy="give its own explanations; if you mean these, add other_sae: true to the source",
        )
    if against:
        log.warning(
            "source %r: %d explanations are taken although they are of another SAE: %s",
            *(name, n_explained, "; ".join(against)),
        )
        return {"provenance": UNKNOWN} | counts
    found = _verdict(stated, promoted, fires)
    if found != PROVEN:
        log.warning("source %r: %s", name, _doubt(found, stated, promoted, fires, n_explained))
    return {"provenance": found} | counts


def _verdict(stated: Sequence[Comparison], promoted: Recognition, fires: Recognition) -> str:
    if promoted.verdict == "same" and (fires.n_items < MIN_ITEMS or fires.p_exchange <= FIRES_LEVEL):
        return PROVEN
    return STATED if any(one.agreed for one in stated) else UNKNOWN


def _doubt(
    found: str, stated: Sequence[Comparison], promoted: Recognition, fires: Recognition, n_explained: int
) -> str:
    """Return what a warning says where provenance is not proven."""
    agreed = list(dict.fromkeys(name for one in stated for name in one.agreed))
    said = f"both name {', '.join(agreed)}" if found == STATED else "they name no SAE that could be compared"
    if promoted.n_items < MIN_ITEMS:
        did = f"promoted tokens of {promoted.n_items} latents could be compared ({MIN_ITEMS} are needed)"
    else:
        did = f"{promoted.n_recognized} of {promoted.n_items} latents were recognized by their promoted tokens"
        if promoted.verdict == "same":
            did += f", but not by the tokens on which they fire (p = {fires.p_exchange:.2g})"
    return f"it is not proven that its {n_explained:,} explanations are of this SAE: {said}; {did}"


def statement_of(subject_dir: Path) -> About:
    """Return what a subject's SAE says of itself, and of its model where the SAE does not say."""
    folder = SubjectFolder(subject_dir)
    path = folder.sae / "cfg.json"
    card = read_json(path) if path.is_file() else {}
    options = _object(card)
    metadata = _object(options.get("metadata"))

    def text(name: str) -> str:
        return _text(metadata, name)

    model = text("model_name")
    if not model and folder.card.is_file():
        named = str(folder.read_cards()[0].get("model") or "")
        model = named if _HUB_ID.fullmatch(named) and not Path(named).exists() else ""
    return About(
        "the subject's SAE",
        source_id=text("neuronpedia_id"),
        weights=saes_directory().weights_of(text("release"), text("sae_id")) if text("release") else None,
        model=model,
        hook_name=text("hook_name"),
        d_sae=_size(options.get("d_sae")),
    )


def _named(own: About) -> str:
    name = own.source_id or str(own.weights or "") or own.hook_name
    return f" ({printable(name)})" if name else ""


def statements_in(row: Mapping[str, Any]) -> tuple[About, ...]:
    """Return what Neuronpedia's row of a latent says of its SAE; what is malformed says nothing."""
    said = _object(row.get("source"))
    config, result = _object(said.get("saelensConfig")), []
    for first, second in (("hfRepoId", "hfFolderId"), ("saelensRelease", "saelensSaeId")):
        weights = saes_directory().weights_of(_text(said, first), _text(said, second))
        if weights is not None:
            result.append(About(f"Neuronpedia ({first})", weights=weights))
    model, hook_name, d_sae = _text(config, "model_name"), _text(config, "hook_name"), _size(config.get("d_sae"))
    if model or hook_name or d_sae:
        result.append(About("Neuronpedia (saelensConfig)", model=model, hook_name=hook_name, d_sae=d_sae))
    return tuple(result)


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    return value.strip() if isinstance(value, str) else ""


def _size(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def shown_in(row: Mapping[str, Any], latent: int) -> Shown:
    """Return what Neuronpedia's row of a latent lists; what is malformed lists nothing."""
    promoted = tuple(token for token in _list(row.get("pos_str"))[:MAX_TOKENS] if isinstance(token, str))
    fires_on = []
    for example in _list(row.get("activations"))[:MAX_FIRES_ON]:
        if not isinstance(example, Mapping):
            continue
        tokens, at = _list(example.get("tokens")), example.get("maxValueTokenIndex")
        if isinstance(at, int) and 0 <= at < len(tokens) and isinstance(tokens[at], str):
            fires_on.append(tokens[at])
    return Shown(latent, promoted, tuple(fires_on))


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def latents_to_compare(subject_dir: Path) -> list[int]:
    """Return a random sample of the latents whose promoted tokens are known here; none without the rule `facts`."""
    path = SubjectFolder(subject_dir).logits
    return [] if not path.is_file() else list(dict.fromkeys(_logits(path)["latent_index"].tolist()))[:N_SHOWN]


def compare_tokens(shown: Iterable[Shown], subject_dir: Path) -> tuple[Recognition, Recognition]:
    """Recognize latents by the tokens that they promote, and by those on which they fire."""
    folder = SubjectFolder(subject_dir)
    nothing = recognition(np.zeros((0, 0)), np.random.default_rng(SEED))
    listed = {one.latent: one for one in shown}
    if not listed or not folder.logits.is_file():
        return nothing, nothing
    logits = _logits(folder.logits)
    theirs = {latent: _keys(one.promoted) for latent, one in listed.items()}
    # Dashboards compute logits in one of two ways; the lists tell which.
    tables = [_by_latent(part, ("token", "text")) for _, part in logits.groupby("unembedding", sort=True)]
    promoted = max((_recognized(theirs, ours) for ours in tables), key=lambda one: one.n_recognized, default=nothing)
    fires = nothing
    if folder.contexts.is_file():
        contexts = read_contexts(folder.contexts)
        ours = _by_latent(contexts[contexts["side"] == "input"], ("token",))
        fires = _recognized({latent: _keys(one.fires_on) for latent, one in listed.items()}, ours)
    return promoted, fires


def _logits(path: Path) -> pd.DataFrame:
    return read_parquet(path, missing=f"{path} does not exist", remedy="run the rule `facts`")


def _by_latent(table: pd.DataFrame, columns: Sequence[str]) -> dict[int, set[str]]:
    """Return the tokens of each latent, in every form that they have."""
    found: dict[int, set[str]] = {}
    for column in columns:
        for latent, token in zip(table["latent_index"].tolist(), table[column].tolist(), strict=True):
            found.setdefault(latent, set()).update(_keys([token]))
    return found


def _keys(tokens: Iterable[object]) -> set[str]:
    """Return tokens without the marks by which tokenizers write whitespace."""
    return {key for key in (clean_token(token) for token in tokens if isinstance(token, str)) if key}


def _recognized(theirs: Mapping[int, set[str]], ours: Mapping[int, set[str]]) -> Recognition:
    """Recognize the latents that both describe."""
    rng = np.random.default_rng(SEED)
    both = [latent for latent, tokens in theirs.items() if tokens and ours.get(latent)][:N_SHOWN]
    overlap = np.array([[len(theirs[one] & ours[other]) for other in both] for one in both])
    listed = set().union(*(theirs[latent] for latent in both))
    shared = listed & set().union(*(ours[latent] for latent in both))
    if len(shared) < MIN_SHARED * len(listed):
        return recognition(np.zeros((0, 0)), rng)
    return recognition(overlap, rng)
