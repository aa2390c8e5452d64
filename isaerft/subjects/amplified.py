"""The tokens that a latent makes more likely when it is amplified: its effect through all that lies above it.

The direct path (`isaerft.subjects.contexts.promoted_tokens`) misses what later blocks make of a latent. Here the latent
is added at its largest activation to the residual stream of some rows of the corpus, at every token but BOS, and the
model is run on from there (the token change of Gur-Arieh et al. 2025, "Enhancing Automated Interpretability with
Output-Centric Feature Descriptions").
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from isaerft.subjects.corpus import TokenRows
from isaerft.subjects.facts import Firing
from isaerft.subjects.load import LoadedSubject
from isaerft.subjects.site import hidden_above, residual_stream, unembed

N_TOKENS = 8
LENGTHS = (4, 24)
ROWS_AT_ONCE = 64


def amplified_tokens(subject: LoadedSubject, rows: TokenRows, firing: Firing, n_rows: int) -> pd.DataFrame:
    """Return the tokens whose log-probability rises most when a latent is amplified, for each latent that fires.

    Parameters
    ----------
    rows : TokenRows
        The reference corpus. `n_rows` of its rows, evenly spread over it, are cut to beginnings of 4 to 24 tokens.
    firing : Firing
        A latent is added at its largest activation.
    n_rows : int
        Beginnings on which it is amplified; at each, the prediction of the next token is looked at.

    Returns
    -------
    DataFrame
        latent_index, side ("amplified"), rank (from 0), token, value (rise of the log-probability in nats, mean over
        rows).
    """
    model, device = subject.model, subject.model.device
    tokens, mask, last = (part.to(device) for part in _beginnings(rows, n_rows, len(subject.language.bos)))
    n_rows = len(tokens)
    residual = residual_stream(model, subject.site, tokens, mask)
    pushed = mask.bool().clone()
    pushed[:, : len(subject.language.bos)] = False
    alive = torch.from_numpy((firing.count > 0).nonzero()[0])
    names = [subject.language.tokenizer.decode([token]) for token in range(model.config.get_text_config().vocab_size)]
    records = []
    with torch.no_grad():
        plain = _log_probability(subject, residual, mask, last)
        blocks = alive.split(max(1, ROWS_AT_ONCE // n_rows)) if len(alive) else ()
        for latents in tqdm(blocks, desc="amplifying", unit="block", disable=None):
            size = torch.from_numpy(firing.maximum[latents.numpy()]).to(residual)
            push = size[:, None] * subject.dictionary.W_dec[latents.to(device)].to(residual)
            changed = residual + pushed[None, :, :, None] * push[:, None, None, :]
            repeated = mask.repeat(len(latents), 1), last.repeat(len(latents))
            after = _log_probability(subject, changed.flatten(0, 1), *repeated)
            change = (after.unflatten(0, (len(latents), n_rows)) - plain).mean(1)
            top = change.topk(min(N_TOKENS, change.shape[1]), dim=1)
            for latent, chosen, values in zip(latents.tolist(), top.indices.tolist(), top.values.tolist(), strict=True):
                records += [
                    {"latent_index": latent, "side": "amplified", "rank": rank, "token": names[token], "value": value}
                    for rank, (token, value) in enumerate(zip(chosen, values, strict=True))
                ]
    return pd.DataFrame(records, columns=["latent_index", "side", "rank", "token", "value"])


def rows_amplified_on(n_total: int, n_rows: int) -> np.ndarray:
    """Return `n_rows` of `n_total` rows, evenly spread over them, (n,) int64."""
    return np.unique(np.linspace(0, n_total - 1, n_rows).round().astype(np.int64))


def _beginnings(rows: TokenRows, n_rows: int, n_bos: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return tokens and mask (n, length) of beginnings of rows, and the place of each one's last token, (n,)."""
    chosen = rows_amplified_on(len(rows.tokens), n_rows)
    wished = torch.linspace(*LENGTHS, len(chosen)).round().long() + n_bos
    lengths = torch.minimum(rows.mask[chosen].sum(1), wished)
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    return rows.tokens[chosen, : mask.shape[1]] * mask, mask, lengths - 1


def _log_probability(
    subject: LoadedSubject, residual: torch.Tensor, mask: torch.Tensor, last: torch.Tensor
) -> torch.Tensor:
    """Return the log-probabilities of the token after each row's last, (n_rows, n_vocabulary) float32."""
    hidden = hidden_above(subject.model, subject.site, residual, mask)
    return unembed(subject.model, hidden[torch.arange(len(last)), last]).float().log_softmax(-1)
