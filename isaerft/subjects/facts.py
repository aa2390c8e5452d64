"""Facts about each latent: how often and where it fires on the corpus, and its neighbors.

These are the confounds that the statistics stratify by, and the raw material of local explanations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import normalize

from isaerft.progress import Progress
from isaerft.stats import clusters_of
from isaerft.subjects.absorption import find_absorbers
from isaerft.subjects.codes import Codes
from isaerft.subjects.corpus import TokenRows
from isaerft.subjects.dictionary import Dictionary
from isaerft.subjects.hooks import run_below
from isaerft.subjects.load import LoadedSubject

N_CONTEXTS = 6
N_NEIGHBOURS = 10
BLOCK = 4096
WIDTH = 8
"""Number of tokens shown on either side of a latent's token."""


@dataclass(frozen=True)
class Firing:
    """Firing of the latents on the reference corpus.

    Attributes
    ----------
    n_tokens : int
        Number of tokens, without BOS and a chat template's constant beginning.
    count : (d_sae,) float64
        Number of tokens on which each latent fires.
    total, maximum : (d_sae,) float64
        Sum of its activations, and the activation of largest magnitude; negative only in SAEs with signed latents.
    top : DataFrame
        latent_index, value, row, position: the tokens on which it fires most, at most one per row of the corpus.
    nearby : (len(top), 2 * WIDTH + 1) float32
        The latent's activations on each of these tokens and its neighbors; 0 beyond the row's ends.
    """

    n_tokens: int
    count: np.ndarray
    total: np.ndarray
    maximum: np.ndarray
    top: pd.DataFrame
    nearby: np.ndarray


@dataclass(frozen=True)
class Neighbors:
    """The latents nearest to each latent by decoder cosine.

    Attributes
    ----------
    latents : (d_sae, k) int64
        The nearest first.
    cosines : (d_sae, k) float64
    """

    latents: np.ndarray
    cosines: np.ndarray

    def table(self) -> pd.DataFrame:
        """Return latent_index, rank (from 0), neighbor, cosine; a row per latent and neighbor."""
        n, k = self.latents.shape
        return pd.DataFrame(
            {
                "latent_index": np.repeat(np.arange(n), k),
                "rank": np.tile(np.arange(k), n),
                "neighbor": self.latents.ravel(),
                "cosine": self.cosines.ravel(),
            }
        )


def measure_firing(subject: LoadedSubject, rows: TokenRows, batch_size: int) -> Firing:
    """Run the corpus through the subject, `batch_size` rows at a time, and summarize each latent's activations."""
    d_sae = subject.dictionary.d_sae
    count, total, highest, lowest = (np.zeros(d_sae) for _ in range(4))
    top = pd.DataFrame({"latent_index": [], "value": [], "row": [], "position": []})
    nearby = np.zeros((0, 2 * WIDTH + 1), dtype=np.float32)
    n_tokens = 0
    for codes, entries in encode_corpus(subject, rows, batch_size, "firing rates"):
        count += torch.bincount(codes.indices, minlength=d_sae).cpu().numpy()
        total += codes.sum_over_tokens().cpu().double().numpy()
        latent, value = entries["latent_index"].to_numpy(np.int64), entries["value"].to_numpy()
        np.maximum.at(highest, latent, value)
        np.minimum.at(lowest, latent, value)
        top = _strongest(pd.concat([top, entries], ignore_index=True))
        # What was in `top` before comes first in the joined table, so its rows are known by their index.
        kept = top.index < len(nearby)
        joined = np.zeros((len(top), nearby.shape[1]), dtype=np.float32)
        joined[kept] = nearby[top.index[kept]]
        joined[~kept] = _nearby(top[~kept], entries)
        top, nearby = top.reset_index(drop=True), joined
        n_tokens += codes.n_tokens
    return Firing(n_tokens, count, total, np.where(highest >= -lowest, highest, lowest), top, nearby)


def latent_facts(
    subject: LoadedSubject, firing: Firing, *, cluster_cosine: float, neighbors: Neighbors | None = None
) -> pd.DataFrame:
    """Return one row per latent.

    Parameters
    ----------
    cluster_cosine : float
        Latents whose decoder rows have at least this cosine share a cluster.
    neighbors : Neighbors, optional
        What `nearest_latents` returns, where it is known already.

    Returns
    -------
    DataFrame
        latent_index, firing_rate (share of tokens), mean_activation (where it fires), max_activation, decoder_norm,
        density (mean decoder cosine with its nearest neighbors), encoder_decoder_cosine (1: it reads what it writes;
        none for a transcoder, which reads one thing and writes another), absorber, absorber_cosine and absorption (the
        likeliest absorber, its decoder cosine, the score: `isaerft.subjects.absorption`), cluster (near-duplicates).
    """
    dictionary = subject.dictionary
    with np.errstate(invalid="ignore"):
        mean = np.where(firing.count > 0, firing.total / firing.count, np.nan)
    near = nearest_latents(dictionary) if neighbors is None else neighbors
    absorbers = find_absorbers(dictionary, firing.count > 0)
    return pd.DataFrame(
        {
            "latent_index": np.arange(dictionary.d_sae),
            "firing_rate": firing.count / firing.n_tokens,
            "mean_activation": mean,
            "max_activation": firing.maximum,
            "decoder_norm": dictionary.decoder_norm.cpu().double().numpy(),
            "density": near.cosines.mean(1),
            "encoder_decoder_cosine": _aligned(dictionary),
            "absorber": absorbers.latents,
            "absorber_cosine": absorbers.cosines,
            "absorption": absorbers.scores,
            "cluster": clusters_of(dictionary.decoder.cpu().numpy(), cluster_cosine),
        }
    )


def encode_corpus(
    subject: LoadedSubject, rows: TokenRows, batch_size: int, description: str
) -> Iterator[tuple[Codes, pd.DataFrame]]:
    """Yield the sparse codes of the corpus without constant tokens, a batch of rows at a time, as codes and as a table.

    The table has a row per active latent and token: latent_index, value, row (of the corpus), position.
    """
    first_row = 0
    for tokens, mask in rows.batches(batch_size, description):
        device = subject.model.device
        activation = run_below(subject.model, subject.hook, tokens.to(device), mask.to(device)).activation
        is_text = subject.language.content_mask(tokens, mask)
        codes = subject.dictionary.encode(activation[is_text.to(device)])
        row, position = is_text.nonzero(as_tuple=True)
        token = codes.tokens().cpu()
        entries = pd.DataFrame(
            {
                "latent_index": codes.indices.cpu().numpy(),
                "value": codes.values.cpu().double().numpy(),
                "row": (row + first_row)[token].numpy(),
                "position": position[token].numpy(),
            }
        )
        yield codes, entries
        first_row += len(tokens)


def _strongest(entries: pd.DataFrame) -> pd.DataFrame:
    """Return each latent's strongest tokens, one per row of the corpus; ties go to the earlier token."""
    ordered = entries.assign(size=entries["value"].abs()).sort_values(
        ["latent_index", "size", "row", "position"], ascending=[True, False, True, True]
    )
    distinct = ordered.drop(columns="size").drop_duplicates(["latent_index", "row"])
    return distinct[distinct.groupby("latent_index").cumcount() < N_CONTEXTS]


def _aligned(dictionary: Dictionary) -> np.ndarray:
    """Return the cosine of each latent's encoder column with its decoder row, (d_sae,) float64; NaN in a transcoder."""
    if dictionary.hook_name_out:
        return np.full(dictionary.d_sae, np.nan)
    cosines = (normalize(dictionary.W_enc.T, dim=1) * normalize(dictionary.W_dec, dim=1)).sum(1)
    return cosines.cpu().double().numpy()


def _nearby(top: pd.DataFrame, entries: pd.DataFrame) -> np.ndarray:
    """Return activations around tokens, (len(top), 2 * WIDTH + 1) float32, from entries that hold their rows whole."""
    at = top["position"].to_numpy(np.int64)[:, None] + np.arange(-WIDTH, WIDTH + 1)
    if not len(entries):
        return np.zeros(at.shape, dtype=np.float32)
    length, n_rows = int(entries["position"].max()) + 1, int(entries["row"].max()) + 1

    def start(table: pd.DataFrame) -> np.ndarray:
        return (table["latent_index"].to_numpy(np.int64) * n_rows + table["row"].to_numpy(np.int64)) * length

    known = start(entries) + entries["position"].to_numpy(np.int64)
    order = np.argsort(known)
    known, values = known[order], entries["value"].to_numpy()[order]
    wanted = start(top)[:, None] + at
    place = np.searchsorted(known, wanted).clip(max=len(known) - 1)
    found = (known[place] == wanted) & (at >= 0) & (at < length)
    return np.where(found, values[place], 0).astype(np.float32)


def nearest_latents(dictionary: Dictionary) -> Neighbors:
    """Return the `N_NEIGHBOURS` latents nearest to each latent by decoder cosine."""
    directions = normalize(dictionary.decoder, dim=1)
    k = min(N_NEIGHBOURS, len(directions) - 1)
    parts = []
    for start in Progress(range(0, len(directions), BLOCK), desc="neighbors", unit="block"):
        cosines = directions[start : start + BLOCK] @ directions.T
        index = torch.arange(len(cosines), device=cosines.device)
        cosines[index, index + start] = -torch.inf
        parts.append(cosines.topk(k, dim=1))
    values = torch.cat([part.values for part in parts]).cpu().double().numpy()
    indices = torch.cat([part.indices for part in parts]).cpu().numpy()
    return Neighbors(indices, values)
