"""The tokens whose logits a sample of latents raises most: by these, labels made elsewhere are recognized.

Unlike `isaerft.subjects.contexts.promoted_tokens`, which says what sets a latent apart, this is computed as dashboards
of latents do it: the decoder row, of an SAE on attention heads through their output projection, times the unembedding,
over the whole vocabulary. Some dashboards leave the final
normalization's gain out and others fold it into the unembedding, so both lists are kept.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch

from isaerft.progress import Progress
from isaerft.subjects.facts import Firing
from isaerft.subjects.hooks import token_directions
from isaerft.subjects.load import LoadedSubject

N_LATENTS = 512
N_TOKENS = 20
TOKENS_PER_BLOCK = 16_384


def logit_table(subject: LoadedSubject, firing: Firing, *, seed: int) -> pd.DataFrame:
    """Return the tokens that a random sample of the latents that fire promotes.

    Parameters
    ----------
    seed : int
        Draws the sample.

    Returns
    -------
    DataFrame
        latent_index (in random order), unembedding ("plain", or "folded": with the final normalization's gain), rank
        (from 0), token (as the tokenizer's vocabulary has it), text (decoded).
    """
    alive = np.flatnonzero(firing.count > 0)
    latents = np.random.default_rng(seed).permutation(alive)[:N_LATENTS]
    dictionary = subject.dictionary
    chosen = torch.from_numpy(latents).to(dictionary.W_dec.device)
    written = dictionary.through_projection(dictionary.W_dec[chosen]).float()
    parts = []
    for name, blocks in (("plain", _plain(subject)), ("folded", _folded(subject))):
        for rank, column in enumerate(_top(written, blocks).T.tolist()):
            parts.append(pd.DataFrame({"latent_index": latents, "unembedding": name, "rank": rank, "id": column}))
    table = pd.concat(parts, ignore_index=True)
    tokens = {token: _names(subject, token) for token in set(table["id"])}
    table["token"] = [tokens[token][0] for token in table["id"]]
    table["text"] = [tokens[token][1] for token in table["id"]]
    order = pd.Series(np.arange(len(latents)), index=latents)
    return (
        table.assign(order=table["latent_index"].map(order))
        .sort_values(["order", "unembedding", "rank"])
        .drop(columns=["order", "id"])
        .reset_index(drop=True)
    )


def _plain(subject: LoadedSubject) -> Iterator[torch.Tensor]:
    """Yield rows of the unembedding, (n, d_model) float32, block by block."""
    unembedding = subject.model.get_output_embeddings().weight
    n = min(len(unembedding), subject.language.n_vocabulary)
    yield from (
        unembedding[start : min(n, start + TOKENS_PER_BLOCK)].float() for start in range(0, n, TOKENS_PER_BLOCK)
    )


def _folded(subject: LoadedSubject) -> Iterator[torch.Tensor]:
    """Yield the same behind the final normalization."""
    n = min(len(subject.model.get_output_embeddings().weight), subject.language.n_vocabulary)
    # What is subtracted from every token's direction moves all logits alike.
    counts = torch.zeros(n, dtype=torch.long)
    counts[0] = 1
    for start in range(0, n, TOKENS_PER_BLOCK):
        yield token_directions(subject.model, torch.arange(start, min(n, start + TOKENS_PER_BLOCK)), counts)


def _top(written: torch.Tensor, blocks: Iterator[torch.Tensor]) -> torch.Tensor:
    """Return the ids of the tokens of largest logit, (n_latents, n_tokens) int64."""
    best = written.new_empty(len(written), 0)
    ids = torch.empty(len(written), 0, dtype=torch.long, device=written.device)
    start = 0
    with torch.no_grad():
        for block in Progress(blocks, desc="logits", unit="block"):
            logits = written @ block.to(written).T
            here = torch.arange(start, start + len(block), device=written.device).expand(len(written), -1)
            joined, joined_ids = torch.cat([best, logits], 1), torch.cat([ids, here], 1)
            top = joined.topk(min(N_TOKENS, joined.shape[1]), dim=1)
            best, ids = top.values, joined_ids.gather(1, top.indices)
            start += len(block)
    return ids.cpu()


def _names(subject: LoadedSubject, token: int) -> tuple[str, str]:
    """Return a token as the vocabulary has it, and its text."""
    return str(subject.language.tokenizer.convert_ids_to_tokens(token)), subject.language.decode([token])
