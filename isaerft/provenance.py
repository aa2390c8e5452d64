"""Which SAE is meant? Compare what two files say of the SAE that they belong to.

Latents are known by number, so explanations or adapters of another SAE look right and mean nothing. Each party makes a
statement (`About`); `compare` says what two statements agree on and what they contradict.

>>> export = About("the export", source_id="gemma-2-2b/10-gemmascope-res-16k")
>>> sae = About("the SAE", model="gemma-2-2b", hook_name="blocks.20.hook_resid_post")
>>> print(compare(export, sae, Directory({}, {})).contradicted[0])
the export says layer 10, the SAE says layer 20

Only names of one SAE prove that two statements are about the same: its source at Neuronpedia, or its weights. The same
model, layer, place and width are shared by SAEs of every sparsity.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from isaerft.directory import Directory, Weights, contradicts, corrected
from isaerft.errors import one_line, printable

MAX_NAME = 200
# TransformerLens' names, which SAELens uses, that are not the last part of the hub's.
HUB_NAMES = {"gpt2-small": "gpt2"}
_TUNED = {"it", "instruct", "chat"}
_BASE = {"pt", "base"}
# Of these families, the model that is named without "base" is the one tuned to chat.
_TUNED_BY_NAME = ("qwen3",)
_LAYER = re.compile(r"(\d+)(?:-|$)")
_HOOK_LAYER = re.compile(r"blocks\.(\d+)\.")
_WIDTH = re.compile(r"(?:^|-|_)(\d+)([km])(?=-|_|$)")
_SIZES = {"k": (1000, 1024), "m": (1000**2, 1024**2)}
_PLACE_OF_WORD = {
    "res": "the residual stream", "resid": "the residual stream", "mlp": "the MLP", "att": "attention",
    "attn": "attention", "lorsa": "attention", "transcoder": "the MLP", "clt": "the MLP",
}  # fmt: skip
_PLACE_OF_HOOK = (
    ("hook_resid_", "the residual stream"), ("attn", "attention"), ("hook_z", "attention"), ("mlp", "the MLP"),
    ("ln2", "the MLP"),
)  # fmt: skip


@dataclass(frozen=True)
class About:
    """What one party says of an SAE; what it does not say is empty.

    Attributes
    ----------
    by : str
        The party, as errors name it.
    source_id : str
        `{model}/{layer}` at Neuronpedia.
    weights : Weights or None
        Where the weights are.
    model, hook_name : str
        Model on which it was trained, and the hook that it reads.
    layer : str
        Number of the layer, where there is no source_id.
    d_sae : int or None
        Number of latents.
    """

    by: str
    source_id: str = ""
    weights: Weights | None = None
    model: str = ""
    hook_name: str = ""
    layer: str = ""
    d_sae: int | None = None


@dataclass(frozen=True)
class Comparison:
    """What two statements agree on, and what they contradict, in words.

    Attributes
    ----------
    agreed : tuple of str
        Names of the SAE that both give.
    contradicted : tuple of str
        Sentences.
    """

    agreed: tuple[str, ...] = ()
    contradicted: tuple[str, ...] = ()


def compare(said: About, own: About, directory: Directory) -> Comparison:
    """Compare two statements about an SAE.

    Parameters
    ----------
    said, own : About
        Of what is to be used, and of the SAE with which it is used.
    directory : Directory
        Knows which names are names of one SAE.
    """
    names = [found for found in (_by_source(said, own, directory), _by_weights(said, own, directory)) if found]
    agreed = tuple(name for found in names for name in found.agreed)
    against = tuple(text for found in names for text in found.contradicted)
    if not agreed and not against:
        against = tuple(f"{said.by} says {theirs}, {own.by} says {ours}" for theirs, ours in _facts(said, own))
    return Comparison(agreed, against)


def same_model(one: str, other: str) -> bool:
    """Tell whether two names mean one model: at the hub, at Neuronpedia or in TransformerLens.

    >>> same_model("meta-llama/Llama-3.1-8B-Instruct", "llama3.1-8b-it"), same_model("gemma-3-1b", "gemma-3-1b-it")
    (True, False)
    """
    return _plain(one) == _plain(other)


def _plain(name: str) -> tuple[str, bool]:
    """Return a model's name without the writer's habits, and whether it is tuned to chat."""
    last = PurePosixPath(name.strip().lower()).name
    words = [word for word in re.split(r"[-_]", HUB_NAMES.get(last, last)) if word and word != "meta"]
    tuned = bool(_TUNED & set(words)) or (name_is_tuned(words) and not _BASE & set(words))
    return "".join(word for word in words if word not in _TUNED | _BASE), tuned


def name_is_tuned(words: list[str]) -> bool:
    """Tell whether a model of this family is tuned to chat unless its name says otherwise."""
    return bool(words) and words[0].startswith(_TUNED_BY_NAME)


def _by_source(said: About, own: About, directory: Directory) -> Comparison | None:
    """Compare by the source at Neuronpedia; None if it cannot tell."""
    theirs, ours = corrected(said.source_id), corrected(own.source_id)
    if not theirs:
        return None
    owners = directory.owners(theirs)
    # What our own list infers from names may contradict, and confirms nothing.
    sure = directory.is_listed_by_saelens(theirs) or not owners
    contradiction = Comparison((), (f"{said.by} says {one_line(theirs, MAX_NAME)}, {own.by} says {_name(own)}",))
    if own.weights is not None and contradicts(theirs, own.weights.path):
        return contradiction
    if own.weights is not None and directory.knows(own.weights) and owners:
        if own.weights not in owners:
            return contradiction
        return Comparison((f"Neuronpedia's {theirs}",) if sure else ())
    if ours and theirs != ours:
        return contradiction
    return Comparison((f"Neuronpedia's {theirs}",)) if ours and sure else None


def _by_weights(said: About, own: About, directory: Directory) -> Comparison | None:
    """Compare by the weights; None if it cannot tell."""
    theirs, ours = said.weights, own.weights
    if theirs is None:
        return None
    if ours is None:
        owners = directory.owners(own.source_id) if own.source_id else set()
        wrong = bool(owners) and directory.knows(theirs) and theirs not in owners
        wrong |= bool(own.source_id) and contradicts(own.source_id, theirs.path)
        right = theirs in owners and directory.is_listed_by_saelens(own.source_id)
    else:
        right = theirs.repo == ours.repo and _same_path(theirs.path, ours.path)
        # A repository that nobody lists may be a copy of the one that is.
        wrong = not right and (theirs.repo == ours.repo or (directory.knows(theirs) and directory.knows(ours)))
    if wrong:
        return Comparison((), (f"{said.by} says {one_line(str(theirs), MAX_NAME)}, {own.by} says {_name(own)}",))
    return Comparison((f"the weights {theirs}",)) if right else None


def _same_path(one: str, other: str) -> bool:
    """Tell whether two paths in a repository are of one SAE: the same, or a folder and a file in it."""
    shorter, longer = sorted((one.strip("/"), other.strip("/")), key=len)
    return shorter == longer or (bool(shorter) and longer.startswith(f"{shorter}/"))


def _name(about: About) -> str:
    """Return the most telling name of an SAE."""
    return one_line(str(about.weights or about.source_id or about.hook_name), MAX_NAME)


def _facts(said: About, own: About) -> Iterator[tuple[str, str]]:
    """Yield the facts on which two statements that name no SAE in common contradict each other."""
    theirs, ours = _facts_of(said), _facts_of(own)
    if theirs.models and ours.models and not any(same_model(one, two) for one in theirs.models for two in ours.models):
        yield f"model {printable(theirs.models[0])}", f"model {printable(ours.models[0])}"
    # Layers count residual streams in some ids, and blocks in hooks: like is compared with like where both have it.
    kinds = ("hook_layer",) if theirs.hook_layer and ours.hook_layer else ("layer", "hook_layer")
    layers = [next((int(found) for kind in kinds if (found := getattr(one, kind))), None) for one in (theirs, ours)]
    if None not in layers and layers[0] != layers[1]:
        yield f"layer {layers[0]}", f"layer {layers[1]}"
    if theirs.place and ours.place and theirs.place != ours.place:
        yield theirs.place, ours.place
    if not _fits(theirs, ours):
        yield _latents(theirs), _latents(ours)


@dataclass(frozen=True)
class _Facts:
    """What a statement says, or implies by its names, of model, layer, place and width."""

    models: tuple[str, ...]
    layer: str
    hook_layer: str
    place: str
    d_sae: int | None
    width: str


def _facts_of(about: About) -> _Facts:
    model, _, suite = corrected(about.source_id).partition("/")
    layer, hook_layer = _LAYER.match(suite or about.layer), _HOOK_LAYER.search(about.hook_name)
    named = (_PLACE_OF_WORD[word] for word in reversed(re.split(r"[-_]", suite)) if word in _PLACE_OF_WORD)
    hooked = (place for part, place in _PLACE_OF_HOOK if part in about.hook_name)
    widths = _WIDTH.findall(suite)
    return _Facts(
        models=tuple(name for name in (about.model, model) if name),
        layer=layer[1] if layer else "",
        hook_layer=hook_layer[1] if hook_layer else "",
        place=next(hooked, "") or next(named, ""),
        d_sae=about.d_sae,
        width="".join(widths[-1]) if widths else "",
    )


def _fits(one: _Facts, other: _Facts) -> bool:
    """Tell whether the widths of two statements can be the same; 65k may be 65,000 or 65,536 latents."""
    if one.d_sae and other.d_sae:
        return one.d_sae == other.d_sae
    if one.width and other.width:
        return one.width == other.width
    pairs = [(n, width) for n, width in ((one.d_sae, other.width), (other.d_sae, one.width)) if n and width]
    return all(int(width[:-1]) in {n // size for size in _SIZES[width[-1]]} for n, width in pairs)


def _latents(facts: _Facts) -> str:
    return f"{facts.d_sae:,} latents" if facts.d_sae else f"{facts.width} latents"
