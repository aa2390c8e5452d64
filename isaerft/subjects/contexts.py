"""The words around a latent: the tokens on which it fires most, in context, and the tokens that it promotes."""

from __future__ import annotations

import pandas as pd
import torch
from torch import nn

from isaerft.errors import InputError
from isaerft.subjects.amplified import amplified_tokens
from isaerft.subjects.blocks import decoder_of
from isaerft.subjects.corpus import TokenRows
from isaerft.subjects.facts import Firing
from isaerft.subjects.load import LoadedSubject
from isaerft.subjects.site import unembed

N_PROMOTED = 8
WIDTH = 8
BLOCK = 256
_FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm")


def context_table(subject: LoadedSubject, rows: TokenRows, firing: Firing, n_amplified: int = 0) -> pd.DataFrame:
    """Return the words around each latent that fires.

    Columns: latent_index, side (`input`: it fires on this token; `output`: it promotes this token directly;
    `amplified`: amplified, it makes this token more likely, looked at on `n_amplified` rows), rank (from 0), token,
    before, after (decoded text; empty but for `input`), value (activation; change of the logit; of the log-probability
    in nats).
    """
    parts = [_fires_on(subject, rows, firing), promoted_tokens(subject, firing)]
    if n_amplified:
        parts.append(amplified_tokens(subject, rows, firing, n_amplified).assign(before="", after=""))
    return pd.concat(parts, ignore_index=True)


def _fires_on(subject: LoadedSubject, rows: TokenRows, firing: Firing) -> pd.DataFrame:
    tokenizer = subject.language.tokenizer
    n_bos = len(subject.language.bos)
    lengths = rows.mask.sum(1).tolist()
    records = []
    for latent, value, row, position in firing.top.itertuples(index=False):
        tokens, place = rows.tokens[int(row)].tolist(), int(position)
        end = min(lengths[int(row)], place + 1 + WIDTH)
        records.append(
            {
                "latent_index": int(latent),
                "side": "input",
                "token": tokenizer.decode(tokens[place : place + 1]),
                "before": tokenizer.decode(tokens[max(n_bos, place - WIDTH) : place]),
                "after": tokenizer.decode(tokens[place + 1 : end]),
                "value": value,
            }
        )
    table = pd.DataFrame(records, columns=["latent_index", "side", "token", "before", "after", "value"])
    table.insert(2, "rank", table.groupby("latent_index").cumcount())
    return table


def promoted_tokens(subject: LoadedSubject, firing: Firing) -> pd.DataFrame:
    """Return the tokens whose logits rise most when a latent is added at its largest activation.

    The direct path through the final normalisation and the unembedding (the logit lens), taken as the difference
    that the latent makes at a residual stream of the decoder bias.
    """
    dictionary, model = subject.dictionary, subject.model
    norm = _final_norm(model)
    base = dictionary.b_dec.to(model.dtype)
    alive = torch.from_numpy((firing.count > 0).nonzero()[0])
    size = torch.from_numpy(firing.maximum).to(base)[alive]
    names = [subject.language.tokenizer.decode([token]) for token in range(model.config.get_text_config().vocab_size)]
    records = []
    with torch.no_grad():
        plain = unembed(model, norm(base))
        for latents, sizes in zip(alive.split(BLOCK), size.split(BLOCK), strict=True):
            rows = dictionary.W_dec[latents.to(base.device)].to(base)
            change = unembed(model, norm(base + sizes[:, None].to(base.device) * rows)) - plain
            top = change.topk(min(N_PROMOTED, change.shape[1]), dim=1)
            for latent, tokens, values in zip(latents.tolist(), top.indices.tolist(), top.values.tolist(), strict=True):
                records += [
                    {"latent_index": latent, "side": "output", "rank": rank, "token": names[token], "value": value}
                    for rank, (token, value) in enumerate(zip(tokens, values, strict=True))
                ]
    return pd.DataFrame(records).assign(before="", after="")


def _final_norm(model: nn.Module) -> nn.Module:
    for name in _FINAL_NORMS:
        norm = getattr(decoder_of(model), name, None)
        if isinstance(norm, nn.Module):
            return norm
    raise InputError(f"{type(model).__name__} has no final normalisation", allowed=", ".join(_FINAL_NORMS))
