"""An untrained dictionary like a subject's: random directions that fire as often as its latents do.

Korznikov et al. 2026, "Sanity Checks for Sparse Autoencoders: Do SAEs Beat Random Baselines?" (arXiv 2602.14111), show
that random directions score like trained ones in common evaluations.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from isaerft.io import replacing, write_json
from isaerft.subjects.corpus import TokenRows
from isaerft.subjects.dictionary import CARD, TINY, WEIGHTS, Dictionary, read_card
from isaerft.subjects.hooks import run_below
from isaerft.subjects.load import LoadedSubject

N_TOKENS = 50_000
"""Tokens on which firing rates are matched."""
LATENTS_AT_ONCE = 256
SAME = 1e-5
"""Pre-activations that differ by less, relative to the largest, are one value: no threshold goes between them."""
_ARCHITECTURES = {
    "transcoder": "jumprelu_transcoder",
    "jumprelu_transcoder": "jumprelu_transcoder",
    "skip_transcoder": "jumprelu_skip_transcoder",
    "jumprelu_skip_transcoder": "jumprelu_skip_transcoder",
}


def write_untrained_sae(
    subject: LoadedSubject, rows: TokenRows, sae: str | Path, folder: str | Path, *, seed: int, batch_size: int = 64
) -> None:
    """Write an untrained SAE like a subject's, in SAELens' format, atomically.

    Directions are random. As where training begins, a latent writes the direction that it reads. It has the norms
    of the subject's latent of the same index, and a threshold that lets it fire as often: L0 is the subject's.

    Parameters
    ----------
    rows : TokenRows
        The reference corpus, of which up to `N_TOKENS` tokens are read.
    sae : str or Path
        Folder of the subject's SAE.
    """
    drawn = untrained_like(subject.dictionary, _activations(subject, rows, batch_size), seed)
    names = ("W_enc", "W_dec", "b_dec", "b_enc", "threshold", "W_skip")
    weights = {name: getattr(drawn, name) for name in names if getattr(drawn, name) is not None}
    card = read_card(sae)
    architecture = _ARCHITECTURES.get(card.options.get("architecture", ""), "jumprelu")
    options = {name: value for name, value in card.options.items() if name not in ("k", "rescale_acts_by_decoder_norm")}
    metadata = {name: value for name, value in card.metadata.items() if name not in ("neuronpedia_id", "l0")}
    with replacing(folder) as temporary:
        temporary.mkdir()
        save_file({name: tensor.cpu().contiguous() for name, tensor in weights.items()}, temporary / WEIGHTS)
        write_json(temporary / CARD, options | {"architecture": architecture, "metadata": metadata})


def untrained_like(dictionary: Dictionary, activation: torch.Tensor, seed: int) -> Dictionary:
    """Return the untrained dictionary itself, a JumpReLU one.

    Parameters
    ----------
    activation : (n_tokens, d_in)
        Of the hook, on tokens on which firing rates are matched.
    """
    drawn = _random_directions(dictionary, seed)
    bias, threshold = _matched(dictionary, drawn, activation)
    return replace(drawn, b_enc=bias, threshold=threshold, gate=None, k=None, signed=False)


def _random_directions(dictionary: Dictionary, seed: int) -> Dictionary:
    """Return the dictionary with random directions of the same norms, every latent reading what it writes."""
    rng = np.random.default_rng(seed)

    def directions(width: int) -> torch.Tensor:
        drawn = torch.from_numpy(rng.standard_normal((dictionary.d_sae, width))).to(dictionary.W_dec)
        return drawn / drawn.norm(dim=1, keepdim=True).clamp_min(TINY)

    written = directions(dictionary.d_out)
    read = directions(dictionary.d_in) if dictionary.hook_name_out else written
    return replace(
        dictionary,
        W_enc=read.T * dictionary.W_enc.norm(dim=0),
        W_dec=written * dictionary.W_dec.norm(dim=1, keepdim=True),
    )


def _activations(subject: LoadedSubject, rows: TokenRows, batch_size: int) -> torch.Tensor:
    """Return the hook's activation on the first tokens of the corpus that are text, (n_tokens, d_in)."""
    kept, total = [], 0
    for tokens, mask in rows.batches(batch_size):
        tokens, mask = tokens.to(subject.model.device), mask.to(subject.model.device)
        below = run_below(subject.model, subject.hook, tokens, mask)
        kept.append(below.activation[subject.language.content_mask(tokens, mask)])
        total += len(kept[-1])
        if total >= N_TOKENS:
            break
    return torch.cat(kept)[:N_TOKENS]


def _matched(dictionary: Dictionary, drawn: Dictionary, activation: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return bias and threshold, (d_sae,) each, with which latents of `drawn` fire as often as those of `dictionary`.

    Latents that would fire at a negative pre-activation get a bias, since no activation is negative.
    """
    codes = dictionary.encode(activation)
    fired = torch.bincount(codes.indices, minlength=dictionary.d_sae).cpu().numpy()
    read = drawn.read(activation)
    cuts = []
    for start in range(0, drawn.d_sae, LATENTS_AT_ONCE):
        before = read @ drawn.W_enc[:, start : start + LATENTS_AT_ONCE]
        ordered = before.T.sort(dim=1, descending=True).values.double().cpu().numpy()
        cuts += [_cut(values, n) for values, n in zip(ordered, fired[start:], strict=False)]
    cut = torch.tensor(cuts, dtype=torch.float32)
    return (-cut).clamp_min(0), cut.clamp_min(0)


def _cut(ordered: np.ndarray, n: int) -> float:
    """Return a number that about n of the values, (m,) descending, are above; equal values stay together."""
    room = max(SAME * float(np.abs(ordered).max()), TINY)
    if n == 0:
        return float(ordered[0]) + room
    gaps = np.append(np.flatnonzero(ordered[:-1] - ordered[1:] > room) + 1, len(ordered))
    place = gaps[np.abs(gaps - n).argmin()]
    return float(ordered[-1]) - room if place == len(ordered) else float(ordered[place - 1] + ordered[place]) / 2
