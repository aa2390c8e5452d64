"""Which source at Neuronpedia explains an SAE of SAELens' directory.

The directory's own entry is not enough. SAELens drops it for SAEs saved in its current format; releases that list every
sparsity of an SAE leave it out though a canonical release names it for the same weights; and a few entries name another
SAE's source, whose explanations would look right and mean nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol

# The same numbers stand in the path of the weights and in an id:
# layer_20/width_16k/average_l0_71 and gemma-2-2b/20-gemmascope-res-16k__l0-71.
_TOLD_TWICE = (
    (re.compile(r"layer_(\d+)"), re.compile(r"/(\d+)-")),
    (re.compile(r"width_(\d+[km])"), re.compile(r"-(\d+[km])(?:__|$)")),
    (re.compile(r"average_l0_(\d+)"), re.compile(r"__l0-(\d+)$")),
)


class Release(Protocol):
    """A release in SAELens' directory (`PretrainedSAELookup`)."""

    repo_id: str
    saes_map: dict[str, str]
    neuronpedia_id: dict[str, str | None]


def neuronpedia_id_of(
    directory: Mapping[str, Release], release: str, sae_id: str | None, given: str | None
) -> str | None:
    """Return `{model}/{layer}` at Neuronpedia, None where the directory knows none that can be right.

    Parameters
    ----------
    directory : mapping of str to Release
        SAELens' directory of pretrained SAEs.
    release, sae_id : str
        The SAE in it.
    given : str or None
        What the SAE's own metadata say; it stands where the directory does not know the release.
    """
    entry = directory.get(release)
    path = None if entry is None else entry.saes_map.get(sae_id or "")
    if entry is None or path is None:
        return given
    same_weights = sorted(
        found
        for other in directory.values()
        if other.repo_id == entry.repo_id
        for name, found in other.neuronpedia_id.items()
        if found and other.saes_map.get(name) == path
    )
    candidates = (given, entry.neuronpedia_id.get(sae_id or ""), *same_weights)
    return next((found for found in candidates if found and not contradicts(found, path)), None)


def contradicts(source_id: str, path: str) -> bool:
    """Return whether an id names another layer, width or sparsity than the path of the weights does."""
    pairs = ((in_path.search(path), in_id.search(source_id)) for in_path, in_id in _TOLD_TWICE)
    return any(one and other and one[1] != other[1] for one, other in pairs)
