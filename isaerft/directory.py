"""Published SAEs and their sources at Neuronpedia: SAELens' directory, and labelled sources that it does not list.

SAELens' entry for an SAE is not enough: it is dropped for SAEs saved in SAELens' current format; releases that list
every sparsity of an SAE leave it out although a canonical release has it for the same weights; and a few entries name
the source of another SAE, whose explanations would look right and mean nothing. So an SAE is known here by its weights,
a repository on the hub and a path in it, and all names of the same weights are taken together.

`labelled_sources.yaml` lists sources that SAELens does not connect with any SAE. What it says of their weights is
inferred from names, so it can contradict an SAE but never confirms one (`Directory.is_listed_by_saelens`).

SAELens' file is read without importing sae_lens, which would load torch.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

OWN_LIST = Path(__file__).parent / "labelled_sources.yaml"
SAELENS_LIST = "pretrained_saes.yaml"
# Names in SAELens' directory that do not exist at Neuronpedia, and those that are meant.
CORRECTED = {"pythia-70m-deduped/e-att-sm": "pythia-70m-deduped/e-res-sm"}
# Layer, width and sparsity are in both the path of the weights and the id:
# layer_20/width_16k/average_l0_71 and gemma-2-2b/20-gemmascope-res-16k__l0-71.
_SHARED_NUMBERS = (
    (re.compile(r"(?:^|[/_])layer_?(\d+)"), re.compile(r"/(\d+)-")),
    (re.compile(r"width_(\d+[km])"), re.compile(r"-(\d+[km])(?:__|$)")),
    (re.compile(r"average_l0_(\d+)"), re.compile(r"__l0-(\d+)$")),
)


class Weights(NamedTuple):
    """Where an SAE's weights are: a repository on the hub, and a path in it."""

    repo: str
    path: str

    def __str__(self) -> str:
        return f"{self.repo} {self.path}"


class Listed(NamedTuple):
    """An SAE under one of its names, as SAELens lists it ("" for what it does not say).

    Attributes
    ----------
    source_id : str
        Its source at Neuronpedia.
    loader : str
        SAELens' function that loads it.
    model : str
        The model that it was trained on, by TransformerLens' name.
    is_centered : bool
        Whether it was trained on a residual stream with centered writing weights.
    """

    release: str
    sae_id: str
    weights: Weights
    source_id: str
    loader: str = ""
    model: str = ""
    is_centered: bool = False


class Directory:
    """Names of SAEs, and the sources at Neuronpedia that explain them.

    Parameters
    ----------
    releases : mapping
        SAELens' file, as parsed: release -> repo_id, saes (id, path, neuronpedia).
    labelled : mapping
        Our own, as parsed: source -> model, saes (pairs of release, or repository, and id).
    """

    def __init__(self, releases: Mapping[str, Any], labelled: Mapping[str, Any]) -> None:
        self.labelled = dict(labelled)
        self._by_name: dict[tuple[str, str], Listed] = {}
        self._by_weights: dict[Weights, list[Listed]] = {}
        self._owners: dict[str, set[Weights]] = {}
        for listed in _listed(releases):
            self._by_name[listed.release, listed.sae_id] = listed
            self._by_weights.setdefault(listed.weights, []).append(listed)
            if listed.source_id and not contradicts(listed.source_id, listed.weights.path):
                self._owners.setdefault(corrected(listed.source_id), set()).add(listed.weights)
        self._inferred: dict[str, set[Weights]] = {}
        for source_id, entry in self.labelled.items():
            found = {self.weights_of(release, sae_id) for release, sae_id in entry.get("saes", ())}
            self._inferred[source_id] = {weights for weights in found if weights is not None}

    def __iter__(self) -> Iterator[Listed]:
        """Yield every SAE of SAELens' directory under each of its names."""
        return iter(self._by_name.values())

    def ids_of(self, release: str) -> list[str]:
        """Return the ids of a release's SAEs; none if SAELens does not list it."""
        return [sae_id for name, sae_id in self._by_name if name == release]

    @property
    def releases(self) -> list[str]:
        """Names of all releases."""
        return sorted({release for release, _ in self._by_name})

    def listed(self, release: str, sae_id: str) -> Listed | None:
        """Return SAELens' entry of an SAE; None if it has none."""
        return self._by_name.get((release, sae_id))

    def weights_of(self, release: str, sae_id: str) -> Weights | None:
        """Return where the weights of an SAE are; a release that is not listed may be a repository."""
        listed = self._by_name.get((release, sae_id))
        if listed is not None:
            return listed.weights
        return Weights(release, sae_id) if "/" in release and sae_id else None

    def knows(self, weights: Weights) -> bool:
        """Tell whether SAELens, or our own list, names these weights."""
        return weights in self._by_weights or any(weights in found for found in self._inferred.values())

    def owners(self, source_id: str) -> set[Weights]:
        """Return the weights that a source explains, as far as is known: none for a source that nobody lists."""
        source_id = corrected(source_id)
        return self._owners.get(source_id) or self._inferred.get(source_id) or set()

    def is_listed_by_saelens(self, source_id: str) -> bool:
        """Tell whether SAELens says which weights a source explains."""
        return corrected(source_id) in self._owners

    def model_of(self, source_id: str) -> str:
        """Return the model that our own list gives for a source; "" if it has none."""
        return str(self.labelled.get(source_id, {}).get("model", ""))

    def source_of(self, release: str, sae_id: str | None, metadata_id: str | None = None) -> str | None:
        """Return `{model}/{layer}` at Neuronpedia for an SAE, or None if no known id can be right.

        Parameters
        ----------
        release, sae_id : str
            The SAE, as in SAELens' directory.
        metadata_id : str or None
            Id in the SAE's own metadata; returned if the directory does not list the SAE.
        """
        weights = self.weights_of(release, sae_id or "")
        if weights is None or not self.knows(weights):
            return metadata_id
        listed = self._by_name.get((release, sae_id or ""))
        same_weights = sorted(one.source_id for one in self._by_weights.get(weights, ()))
        inferred = sorted(source_id for source_id, found in self._inferred.items() if weights in found)
        candidates = (metadata_id, listed and listed.source_id, *same_weights, *inferred)
        return next((found for found in candidates if found and not contradicts(found, weights.path)), None)


def contradicts(source_id: str, path: str) -> bool:
    """Tell whether a source's id names another layer, width or sparsity than the path of the weights."""
    pairs = ((in_path.search(path), in_id.search(source_id)) for in_path, in_id in _SHARED_NUMBERS)
    return any(one and other and one[1] != other[1] for one, other in pairs)


def corrected(source_id: str) -> str:
    """Return a source's id as Neuronpedia has it."""
    return CORRECTED.get(source_id, source_id)


@cache
def saes_directory() -> Directory:
    """Return the directory of the installed SAELens, with our own list."""
    spec = importlib.util.find_spec("sae_lens")
    path = Path(spec.origin).parent / SAELENS_LIST if spec is not None and spec.origin else None
    return Directory(_parsed(path) if path is not None and path.is_file() else {}, labelled_sources(_parsed(OWN_LIST)))


def labelled_sources(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of `labelled_sources.yaml` by source, with one for each of an entry's `layers`."""
    found = {}
    for source_id, entry in entries.items():
        for layer in range(entry.get("layers", 1)):
            found[source_id.replace("{layer}", str(layer))] = entry
    return found


def _parsed(path: Path) -> Any:
    # PyYAML may be installed without libyaml, whose loader takes a second for SAELens' file and not ten.
    data = path.read_bytes()
    return yaml.load(data, Loader=yaml.CSafeLoader) if yaml.__with_libyaml__ else yaml.safe_load(data)


def _listed(releases: Mapping[str, Any]) -> Iterator[Listed]:
    for release, entry in releases.items():
        loader, model = entry.get("conversion_func") or "", str(entry.get("model") or "")
        loaded_with = (entry.get("config_overrides") or {}).get("model_from_pretrained_kwargs") or {}
        is_centered = loaded_with.get("center_writing_weights") is True
        for sae in entry["saes"]:
            weights = Weights(entry["repo_id"], str(sae["path"]))
            yield Listed(release, sae["id"], weights, sae.get("neuronpedia") or "", loader, model, is_centered)
