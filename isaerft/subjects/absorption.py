"""Which latent can have absorbed which: an asymmetry between what two latents read and what they write.

A latent is absorbed where a narrower one fires in its place: it falls silent there, and the narrower one writes its
direction, too (Chanin et al. 2024, arXiv 2409.14507). Weights show this in pairs. The two decoder rows are alike. But
the encoder of the absorbed latent has to stay silent on the other's decoder row, while the other's encoder may well
read its.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import normalize

from isaerft.progress import Progress
from isaerft.subjects.dictionary import Dictionary

BLOCK = 1024
NOBODY = -1
_MAD_OF_NORMAL = 0.6745
_TINY = 1e-9


class Absorbers(NamedTuple):
    """The likeliest absorber of each latent.

    Attributes
    ----------
    latents : (d_sae,) int64
        `NOBODY` for latents that never fire, and for all of a transcoder.
    cosines : (d_sae,) float64
        Decoder cosine of the two.
    scores : (d_sae,) float64
        How far the pair's asymmetry stands out from that of the dictionary's other latents (`standing_out`).
    """

    latents: np.ndarray
    cosines: np.ndarray
    scores: np.ndarray


def find_absorbers(dictionary: Dictionary, alive: np.ndarray) -> Absorbers:
    """Return the likeliest absorber of each latent among those that fire, `alive` (d_sae,) bool.

    For latents i and j with encoder columns e and decoder rows d of norm one, the asymmetry is
    max(0, d_i . d_j) (e_j . d_i - e_i . d_j), and the absorber of i is the j for which it is largest. The encoder of a
    transcoder reads another space than its decoder writes, so there is none.
    """
    n = dictionary.d_sae
    latents, cosines, scores = np.full(n, NOBODY), np.full(n, np.nan), np.full(n, np.nan)
    living = np.flatnonzero(alive)
    if dictionary.hook_name_out or len(living) < 2:
        return Absorbers(latents, cosines, scores)
    chosen = torch.from_numpy(living).to(dictionary.W_dec.device)
    reads, writes = normalize(dictionary.W_enc.T[chosen], dim=1), normalize(dictionary.W_dec[chosen], dim=1)
    best, alike, place = [], [], []
    for start in Progress(range(0, len(living), BLOCK), desc="absorbers", unit="block"):
        part = slice(start, start + BLOCK)
        near = writes[part] @ writes.T
        pair = near.clamp_min(0) * (writes[part] @ reads.T - reads[part] @ writes.T)
        row = torch.arange(len(pair), device=pair.device)
        pair[row, row + start] = -torch.inf
        value, index = pair.max(dim=1)
        best.append(value)
        alike.append(near[row, index])
        place.append(index)
    latents[living] = living[torch.cat(place).cpu().numpy()]
    cosines[living] = torch.cat(alike).cpu().double().numpy()
    scores[living] = standing_out(torch.cat(best).cpu().double().numpy())
    return Absorbers(latents, cosines, scores)


def standing_out(values: np.ndarray) -> np.ndarray:
    """Return how many robust standard deviations each of values (n,) lies above their median.

    The asymmetry of an ordinary latent depends on the dictionary: the more latents share few dimensions, the larger is
    the largest over all others. So each dictionary is measured by its own; the median absolute deviation stands for the
    standard deviation, which the absorbed latents themselves would widen.
    """
    off = values - np.median(values)
    return off * _MAD_OF_NORMAL / max(float(np.median(np.abs(off))), _TINY)
