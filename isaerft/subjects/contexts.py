"""The tokens that a latent makes more likely when it is amplified: its effect through all that lies above it.

The direct path (`isaerft.subjects.contexts.promoted_tokens`) misses what later blocks make of a latent. Here the latent
is added at its largest activation to the residual stream of some rows of the corpus, at every token but BOS, and the
model is run on from there (the token change of Gur-Arieh et al. 2025, "Enhancing Automated Interpretability with
Output-Centric Feature Descriptions").

The words around a latent: the tokens on which it fires most, in context, and the tokens that it promotes.

The evidence on which explanations are scored: what the explainers have not seen of each latent.

- `heldout`: windows of the corpus in which the latent fires, from rows that give none of its `input` contexts, spread
  over its activations and not only the strongest.
- `unmarked`: the same windows, rank by rank, at a token on which the latent is not active.
- `silent`: windows of other rows, drawn at random, in which the latent is active at no token.
- `amplified_heldout`: the tokens that amplifying it makes likelier, on rows that give none of its `amplified` ones.

After Paulo et al. 2024, "Automatically Interpreting Millions of Features in Large Language Models" (detection and
fuzzing), and Gur-Arieh et al. 2025, "Enhancing Automated Interpretability with Output-Centric Feature Descriptions".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from isaerft.errors import InputError
from isaerft.subjects.corpus import TokenRows
from isaerft.subjects.facts import Firing, encoded
from isaerft.subjects.hooks import decoder_of, hidden_above, residual_stream, unembed
from isaerft.subjects.load import LoadedSubject

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
    residual = residual_stream(model, subject.hook, tokens, mask)
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
    hidden = hidden_above(subject.model, subject.hook, residual, mask)
    return unembed(subject.model, hidden[torch.arange(len(last)), last]).float().log_softmax(-1)


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


POOL = 32
N_PROBES = 512
COLUMNS = ["latent_index", "side", "rank", "token", "before", "after", "value"]


@dataclass(frozen=True)
class Seen:
    """What one more pass over the corpus says of the windows that could be shown.

    Attributes
    ----------
    pool : DataFrame
        latent_index, value, row, position, active: for each latent up to `POOL` rows drawn at random, none of them one
        of its input contexts', at their strongest token. Bit WIDTH + d of `active` says that it is active d tokens on.
    probes : (n_probes, 2) int64
        Row and position of windows drawn at random, one per row at most.
    firing : set of (int, int)
        Latent and row of the probes in which the latent is active somewhere.
    """

    pool: pd.DataFrame
    probes: np.ndarray
    firing: set[tuple[int, int]]


def scored_contexts(
    subject: LoadedSubject,
    rows: TokenRows,
    firing: Firing,
    *,
    n_windows: int,
    n_amplified: int,
    batch_size: int,
    seed: int,
) -> pd.DataFrame:
    """Return the evidence of each latent that fires, in the columns of contexts.parquet.

    Parameters
    ----------
    rows : TokenRows
        The reference corpus.
    firing : Firing
        What `measure_firing` said of it; its `top` is what explainers see.
    n_windows : int
        Windows of a kind per latent; fewer where the corpus has no more.
    n_amplified : int
        Rows on which each latent is amplified; as many others were for the explainers. 0 leaves that side out.
    seed : int
        Which rows are drawn, and which tokens are marked.

    Returns
    -------
    DataFrame
        latent_index, side, rank (held-out windows: 0 is the strongest), token, before, after (together the window, as
        the tokenizer writes it), value (activation at the token, 0 where there is none; nats for the amplified).
    """
    seen = _look(subject, rows, firing, batch_size, seed)
    shown = dict(iter(firing.top.groupby("latent_index")))
    records = []
    for latent, pool in seen.pool.groupby("latent_index"):
        rng = np.random.default_rng([seed, int(latent)])
        chosen = _spread(_unlike(pool, shown[latent], subject, rows), n_windows)
        for rank, (value, row, position, active) in enumerate(chosen):
            window = _Window.around(subject, rows, row, position)
            records.append(window.record(subject, latent, "heldout", rank, position, value))
            inactive = [place for place in window.places if not active >> (WIDTH + place - position) & 1]
            if inactive:
                marked = int(rng.choice(inactive))
                records.append(window.record(subject, latent, "unmarked", rank, marked, 0.0))
        taken = {row for _, row, *_ in chosen} | set(shown[latent]["row"].astype(int))
        quiet = [
            (row, position)
            for row, position in seen.probes.tolist()
            if (latent, row) not in seen.firing and row not in taken
        ]
        for rank, index in enumerate(rng.permutation(len(quiet))[:n_windows]):
            row, position = quiet[index]
            window = _Window.around(subject, rows, row, position)
            records.append(window.record(subject, latent, "silent", rank, position, 0.0))
    parts = [pd.DataFrame(records, columns=COLUMNS)]
    if n_amplified:
        others = np.ones(len(rows.tokens), dtype=bool)
        others[rows_amplified_on(len(others), n_amplified)] = False
        if others.any():
            rest = TokenRows(rows.tokens[others], rows.mask[others])
            tokens = amplified_tokens(subject, rest, firing, n_amplified)
            parts.append(tokens.assign(side="amplified_heldout", before="", after=""))
    return pd.concat(parts, ignore_index=True)[COLUMNS]


def _look(subject: LoadedSubject, rows: TokenRows, firing: Firing, batch_size: int, seed: int) -> Seen:
    """Run the corpus once more and keep what could be shown."""
    rng, n_rows, n_bos = np.random.default_rng(seed), len(rows.tokens), len(subject.language.bos)
    order = rng.permutation(n_rows)
    lengths = rows.mask.sum(1).numpy()
    chosen = np.sort(rng.permutation(np.flatnonzero(lengths > n_bos))[:N_PROBES])
    centre = np.full(n_rows, -1)
    centre[chosen] = rng.integers(n_bos, lengths[chosen])
    explained = np.sort(_keys(firing.top, n_rows))
    pool = pd.DataFrame({"latent_index": [], "value": [], "row": [], "position": [], "active": [], "order": []})
    found: set[tuple[int, int]] = set()
    for _, entries in encoded(subject, rows, batch_size, "windows to score on"):
        row, position = entries["row"].to_numpy(), entries["position"].to_numpy()
        probed = entries[(centre[row] >= 0) & (abs(position - centre[row]) <= WIDTH)]
        found |= set(zip(probed["latent_index"].tolist(), probed["row"].tolist(), strict=True))
        unseen = entries[~np.isin(_keys(entries, n_rows), explained)]
        pool = _first(pd.concat([pool, _strongest(unseen, order)], ignore_index=True))
    whole = pool.astype(dict.fromkeys(("latent_index", "row", "position", "active"), np.int64))
    return Seen(whole, np.stack([chosen, centre[chosen]], axis=1), found)


def _keys(entries: pd.DataFrame, n_rows: int) -> np.ndarray:
    """Return a number for each (latent, row), (n,) int64."""
    return entries["latent_index"].to_numpy(np.int64) * n_rows + entries["row"].to_numpy(np.int64)


def _strongest(entries: pd.DataFrame, order: np.ndarray) -> pd.DataFrame:
    """Return each latent's strongest token of each row, where in the window around it the latent is active, and order.

    Ties go to the earlier token, as among the contexts that explainers see.
    """
    sized = entries.assign(size=entries["value"].abs())
    sized = sized.sort_values(["latent_index", "row", "size", "position"], ascending=[True, True, False, True])
    group = (sized["latent_index"].diff().ne(0) | sized["row"].diff().ne(0)).to_numpy()
    first = np.flatnonzero(group)
    number = np.cumsum(group) - 1
    away = sized["position"].to_numpy() - sized["position"].to_numpy()[first][number]
    near = abs(away) <= WIDTH
    active = np.zeros(len(first), dtype=np.int64)
    np.bitwise_or.at(active, number[near], np.int64(1) << (WIDTH + away[near]).astype(np.int64))
    best = sized.iloc[first].drop(columns="size")
    return best.assign(active=active, order=order[best["row"].to_numpy()])


def _first(pool: pd.DataFrame) -> pd.DataFrame:
    """Keep each latent's first rows in the drawn order."""
    ordered = pool.sort_values(["latent_index", "order"])
    return ordered[ordered.groupby("latent_index").cumcount() < POOL]


def _unlike(pool: pd.DataFrame, shown: pd.DataFrame, subject: LoadedSubject, rows: TokenRows) -> list[tuple]:
    """Return (value, row, position, active) of windows that differ from those shown, and from each other.

    A corpus repeats itself: the same words from another row would not be unseen.
    """
    known = {
        _Window.around(subject, rows, int(row), int(position)).ids
        for row, position in zip(shown["row"], shown["position"], strict=True)
    }
    kept = []
    for value, row, position, active in pool[["value", "row", "position", "active"]].itertuples(index=False):
        ids = _Window.around(subject, rows, row, position).ids
        if ids not in known:
            known.add(ids)
            kept.append((value, row, position, active))
    return kept


def _spread(windows: list[tuple], n_windows: int) -> list[tuple]:
    """Return `n_windows` of windows at even steps from the strongest to the weakest."""
    ordered = sorted(windows, key=lambda window: (-abs(window[0]), *window[1:3]))
    steps = np.linspace(0, len(ordered) - 1, min(n_windows, len(ordered))).round().astype(int)
    return [ordered[step] for step in steps]


@dataclass(frozen=True)
class _Window:
    """The tokens `ids` of a row from `start` on."""

    ids: tuple[int, ...]
    start: int

    @classmethod
    def around(cls, subject: LoadedSubject, rows: TokenRows, row: int, position: int) -> _Window:
        start = max(len(subject.language.bos), position - WIDTH)
        end = min(int(rows.mask[row].sum()), position + 1 + WIDTH)
        return cls(tuple(rows.tokens[row, start:end].tolist()), start)

    @property
    def places(self) -> range:
        """Positions in the row."""
        return range(self.start, self.start + len(self.ids))

    def record(
        self, subject: LoadedSubject, latent: int, side: str, rank: int, position: int, value: float
    ) -> dict[str, object]:
        """Return the row that shows the window with the token at `position` apart."""
        decode, at = subject.language.tokenizer.decode, position - self.start
        before, until, whole = (decode(list(self.ids[:end])) for end in (at, at + 1, len(self.ids)))
        if until.startswith(before) and whole.startswith(until):
            token, after = until[len(before) :], whole[len(until) :]
        else:  # a character cut in two by the tokenizer
            token, after = decode([self.ids[at]]), decode(list(self.ids[at + 1 :]))
        same = {"latent_index": int(latent), "side": side, "rank": rank, "value": value}
        return same | {"token": token, "before": before, "after": after}
