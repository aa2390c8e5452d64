"""Contexts of a latent: the tokens it fires on, with the text around them, and the tokens it promotes.

Two tables of a subject come from here. `context_table` is what explainers read:

- `input`: the tokens on which the latent fires most, in context.
- `output`: the tokens of the corpus that it promotes directly, through the final normalization and the unembedding (the
  logit lens), and more than other latents do.
- `amplified`: the tokens that become likelier when the latent is amplified and the model runs on from there, which
  includes its effects on later blocks (TokenChange of [2]_).

`heldout_contexts` is held out for scoring explanations; no explainer or judge sees it:

- `heldout`: windows of the corpus in which the latent fires, from rows without any of its `input` contexts, spread over
  its activations from strong to weak.
- `unmarked`: the same windows, rank by rank, at a token on which the latent is not active.
- `silent`: windows drawn at random from other rows, in which the latent is active on no token.
- `amplified_heldout`: as `amplified`, on other rows.

`heldout` and `silent` windows also come token by token, with the latent's activation on each token.

References
----------
.. [1] Paulo et al. 2024, "Automatically Interpreting Millions of Features in Large Language Models" (detection and
   fuzzing).
.. [2] Gur-Arieh et al. 2025, "Enhancing Automated Interpretability with Output-Centric Feature Descriptions".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import normalize

from isaerft.progress import Progress
from isaerft.subjects.corpus import TokenRows
from isaerft.subjects.facts import WIDTH, Firing, encode_corpus
from isaerft.subjects.hooks import hidden_above, run_below, token_directions, unembed
from isaerft.subjects.load import LoadedModel, LoadedSubject

N_TOKENS = 8
"""Number of promoted or amplified tokens per latent."""
LATENTS_PER_BLOCK = 256
CONTEXTS_PER_PART = 2**14
AMPLIFIED_LENGTHS = (4, 24)
AMPLIFIED_ROWS_AT_ONCE = 64
N_POOL = 32
N_PROBES = 512
COLUMNS = ["latent_index", "side", "rank", "token", "before", "after", "value"]
BY_TOKEN = ["tokens", "activations"]
NEARBY = [f"nearby_{offset}" for offset in range(-WIDTH, WIDTH + 1)]


def context_table(subject: LoadedSubject, rows: TokenRows, firing: Firing, n_amplified: int = 0) -> pd.DataFrame:
    """Return the contexts of each latent that fires.

    Parameters
    ----------
    n_amplified : int
        Rows on which each latent is amplified; 0 leaves `amplified` out.

    Returns
    -------
    DataFrame
        latent_index, side (see above), rank (from 0), token, before, after (decoded text; empty except for `input`),
        value (`input`: activation; `output`: excess cosine, see `promoted_tokens`; `amplified`: change of the
        log-probability in nats).
    """
    parts = [_input_contexts(subject, rows, firing), promoted_tokens(subject, rows, firing)]
    if n_amplified:
        parts.append(amplified_tokens(subject, rows, firing, n_amplified).assign(before="", after=""))
    return pd.concat(parts, ignore_index=True)


def _input_contexts(subject: LoadedSubject, rows: TokenRows, firing: Firing) -> pd.DataFrame:
    decode = subject.language.decode
    first = subject.language.n_constant(rows.tokens).tolist()
    lengths = rows.mask.sum(1).tolist()
    records = []
    for latent, value, row, position in firing.top.itertuples(index=False):
        tokens, at = rows.tokens[int(row)].tolist(), int(position)
        end = min(lengths[int(row)], at + 1 + WIDTH)
        records.append(
            {
                "latent_index": int(latent),
                "side": "input",
                "token": decode(tokens[at : at + 1]),
                "before": decode(tokens[max(first[int(row)], at - WIDTH) : at]),
                "after": decode(tokens[at + 1 : end]),
                "value": value,
            }
        )
    table = pd.DataFrame(records, columns=["latent_index", "side", "token", "before", "after", "value"])
    table.insert(2, "rank", table.groupby("latent_index").cumcount())
    return table


def activation_tables(subject: LoadedSubject, rows: TokenRows, firing: Firing) -> Iterator[pd.DataFrame]:
    """Yield the `input` contexts token by token, with the latent's activation on each, some thousands at a time.

    Yields
    ------
    DataFrame
        latent_index, rank (as in `context_table`), tokens (list of str, which together are the text of the window),
        activations (list of float32, one for each token).
    """
    pieces = _pieces_of_windows(subject)
    ranks = firing.top.groupby("latent_index").cumcount().to_numpy()
    for start in range(0, max(1, len(firing.top)), CONTEXTS_PER_PART):
        records = []
        for place, (latent, _, row, position) in enumerate(
            firing.top[start : start + CONTEXTS_PER_PART].itertuples(index=False), start
        ):
            window = _Window.around(subject, rows, int(row), int(position))
            first = window.start - int(position) + WIDTH
            activations = firing.nearby[place, first : first + len(window.ids)]
            records.append((int(latent), ranks[place], list(pieces(window.ids)), activations))
        yield pd.DataFrame(records, columns=["latent_index", "rank", "tokens", "activations"])


def promoted_tokens(subject: LoadedSubject, rows: TokenRows, firing: Firing) -> pd.DataFrame:
    """Return, for each latent that fires, the tokens of the corpus that it promotes more than other latents do.

    The direct path is read: the cosine of the latent's decoder row with the direction that raises the token's logit
    above that of the corpus's average token (`isaerft.subjects.hooks.token_directions`), less the mean of that cosine
    over the other latents. In the logits themselves, rare tokens with large unembeddings and tokens that every latent
    promotes take all places.

    Returns
    -------
    DataFrame
        latent_index, side ("output"), rank (from 0), token, before, after (both empty), value (excess cosine).
    """
    counts = torch.bincount(rows.tokens[subject.language.text_mask(rows.mask)], minlength=subject.language.n_vocabulary)
    names = _token_names(subject.language)
    # A token of half a character has no text that a reader could see.
    tokens = torch.tensor([token for token in counts.nonzero()[:, 0].tolist() if "\ufffd" not in names[token]])
    directions = normalize(token_directions(subject.model, tokens, counts), dim=1)
    alive = torch.from_numpy((firing.count > 0).nonzero()[0])
    signs = torch.from_numpy(np.sign(firing.maximum)).to(directions)[alive]
    written = normalize(subject.directions()[alive.to(directions.device)].to(directions), dim=1) * signs[:, None]
    excess = written - (written.sum(0) - written) / max(1, len(alive) - 1)
    named = [names[token] for token in tokens.tolist()]
    records = []
    for latents, own in zip(alive.split(LATENTS_PER_BLOCK), excess.split(LATENTS_PER_BLOCK), strict=True):
        records += _top_tokens(named, latents, own @ directions.T, "output")
    return pd.DataFrame(records, columns=["latent_index", "side", "rank", "token", "value"]).assign(before="", after="")


def amplified_tokens(subject: LoadedSubject, rows: TokenRows, firing: Firing, n_rows: int) -> pd.DataFrame:
    """Return, for each latent that fires, the tokens whose log-probability rises most when it is amplified.

    The latent is added at its largest activation at every token but BOS.

    Parameters
    ----------
    rows : TokenRows
        The reference corpus.
    n_rows : int
        Rows on which each latent is amplified, evenly spaced in the corpus and cut to their first 4 to 24 tokens. The
        prediction of the next token counts.

    Returns
    -------
    DataFrame
        latent_index, side ("amplified"), rank (from 0), token, value (change of the log-probability in nats, mean
        over rows).
    """
    model, device = subject.model, subject.model.device
    tokens, mask, last = (part.to(device) for part in beginnings(rows, n_rows, subject.language))
    n_rows = len(tokens)
    below = run_below(model, subject.hook, tokens, mask)
    residual = below.residual
    is_text = subject.language.text_mask(mask)
    alive = torch.from_numpy((firing.count > 0).nonzero()[0])
    names = _token_names(subject.language)
    records = []
    with torch.no_grad():
        plain = _log_probability(subject, residual, mask, last)
        blocks = alive.split(max(1, AMPLIFIED_ROWS_AT_ONCE // n_rows)) if len(alive) else ()
        for latents in Progress(blocks, desc="amplifying", unit="block"):
            size = torch.from_numpy(firing.maximum[latents.numpy()]).to(residual)
            push = size[:, None] * subject.dictionary.decoder[latents.to(device)].to(residual)
            pushed = is_text[None, :, :, None] * push[:, None, None, :]
            changed = residual + subject.reaching(below.written, pushed)
            repeated = mask.repeat(len(latents), 1), last.repeat(len(latents))
            after = _log_probability(subject, changed.flatten(0, 1), *repeated)
            change = (after.unflatten(0, (len(latents), n_rows)) - plain).mean(1)
            records += _top_tokens(names, latents, change, "amplified")
    return pd.DataFrame(records, columns=["latent_index", "side", "rank", "token", "value"])


def amplified_rows(n_total: int, n_rows: int) -> np.ndarray:
    """Return `n_rows` evenly spaced of `n_total` rows, (n,) int64."""
    return np.unique(np.linspace(0, n_total - 1, n_rows).round().astype(np.int64))


def beginnings(rows: TokenRows, n_rows: int, language: LoadedModel) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return tokens and mask (n, length) of beginnings of rows, and the position of each last token, (n,)."""
    chosen = amplified_rows(len(rows.tokens), n_rows)
    wanted = torch.linspace(*AMPLIFIED_LENGTHS, len(chosen)).round().long() + language.n_constant(rows.tokens[chosen])
    lengths = torch.minimum(rows.mask[chosen].sum(1), wanted)
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    return rows.tokens[chosen, : mask.shape[1]] * mask, mask, lengths - 1


def _log_probability(
    subject: LoadedSubject, residual: torch.Tensor, mask: torch.Tensor, last: torch.Tensor
) -> torch.Tensor:
    """Return the log-probabilities of the token after each row's last one, (n_rows, n_vocabulary) float32."""
    hidden = hidden_above(subject.model, subject.hook, residual, mask)
    return unembed(subject.model, hidden[torch.arange(len(last)), last]).float().log_softmax(-1)


class Drawn(NamedTuple):
    """The strongest token of a row, and the activations around it, (2 * WIDTH + 1,) float32."""

    value: float
    row: int
    position: int
    nearby: np.ndarray


@dataclass(frozen=True)
class _Candidates:
    """Windows of the corpus from which held-out contexts are chosen.

    Attributes
    ----------
    pool : DataFrame
        latent_index, value, row, position: for each latent the strongest token of up to `N_POOL` rows, drawn at random
        among those without any of its input contexts; and its activations from `WIDTH` tokens before to as many after
        (`NEARBY`).
    probes : (n_probes, 2) int64
        Row and position of windows drawn at random, at most one per row.
    firing : set of (int, int)
        Latent and row of the probes in which the latent is active on some token.
    """

    pool: pd.DataFrame
    probes: np.ndarray
    firing: set[tuple[int, int]]


def heldout_contexts(
    subject: LoadedSubject,
    rows: TokenRows,
    firing: Firing,
    *,
    n_windows: int,
    n_amplified: int,
    batch_size: int,
    seed: int,
) -> pd.DataFrame:
    """Return the held-out contexts of each latent that fires.

    Parameters
    ----------
    rows : TokenRows
        The reference corpus.
    firing : Firing
        Firing on that corpus; explainers see the contexts in `firing.top`.
    n_windows : int
        Windows of each side per latent; fewer where the corpus does not have as many.
    n_amplified : int
        Rows on which each latent is amplified, as many as explainers see; 0 leaves that side out.
    seed : int
        Decides which rows are drawn and which tokens are marked.

    Returns
    -------
    DataFrame
        latent_index, side (see above), rank (0 is the strongest held-out window), token, before, after (together the
        window as decoded), value (activation at the token, or 0; `amplified_heldout`: nats), tokens (list of str),
        activations (list of float); the last two only of `heldout` and `silent`.
    """
    pieces = _pieces_of_windows(subject)
    candidates = _draw_candidates(subject, rows, firing, batch_size, seed)
    shown = dict(iter(firing.top.groupby("latent_index")))
    records = []
    for latent, pool in candidates.pool.groupby("latent_index"):
        rng = np.random.default_rng([seed, int(latent)])
        chosen = _spread(_distinct(pool, shown[latent], subject, rows), n_windows)
        for rank, (value, row, position, nearby) in enumerate(chosen):
            window = _Window.around(subject, rows, row, position)
            activations = [float(nearby[WIDTH + at - position]) for at in window.positions]
            by_token = {"tokens": list(pieces(window.ids)), "activations": activations}
            records.append(window.record(subject, latent, "heldout", rank, position, value) | by_token)
            inactive = [at for at, active in zip(window.positions, activations, strict=True) if not active]
            if inactive:
                marked = int(rng.choice(inactive))
                records.append(window.record(subject, latent, "unmarked", rank, marked, 0.0))
        taken = {one.row for one in chosen} | set(shown[latent]["row"].astype(int))
        quiet = [
            (row, position)
            for row, position in candidates.probes.tolist()
            if (latent, row) not in candidates.firing and row not in taken
        ]
        for rank, index in enumerate(rng.permutation(len(quiet))[:n_windows]):
            row, position = quiet[index]
            window = _Window.around(subject, rows, row, position)
            by_token = {"tokens": list(pieces(window.ids)), "activations": [0.0] * len(window.ids)}
            records.append(window.record(subject, latent, "silent", rank, position, 0.0) | by_token)
    parts = [pd.DataFrame(records, columns=[*COLUMNS, *BY_TOKEN])]
    if n_amplified:
        others = np.ones(len(rows.tokens), dtype=bool)
        others[amplified_rows(len(others), n_amplified)] = False
        if others.any():
            rest = TokenRows(rows.tokens[others], rows.mask[others])
            tokens = amplified_tokens(subject, rest, firing, n_amplified)
            parts.append(tokens.assign(side="amplified_heldout", before="", after="", tokens=None, activations=None))
    return pd.concat(parts, ignore_index=True)[[*COLUMNS, *BY_TOKEN]]


def _draw_candidates(
    subject: LoadedSubject, rows: TokenRows, firing: Firing, batch_size: int, seed: int
) -> _Candidates:
    """Run the corpus once more and draw the windows that could be shown."""
    rng, n_rows = np.random.default_rng(seed), len(rows.tokens)
    first = subject.language.n_constant(rows.tokens).numpy()
    order = rng.permutation(n_rows)
    lengths = rows.mask.sum(1).numpy()
    chosen = np.sort(rng.permutation(np.flatnonzero(lengths > first))[:N_PROBES])
    center = np.full(n_rows, -1)
    center[chosen] = rng.integers(first[chosen], lengths[chosen])
    explained = np.sort(_keys(firing.top, n_rows))
    pool = pd.DataFrame({name: [] for name in ("latent_index", "value", "row", "position", "order", *NEARBY)})
    found: set[tuple[int, int]] = set()
    for _, entries in encode_corpus(subject, rows, batch_size, "held-out contexts"):
        row, position = entries["row"].to_numpy(), entries["position"].to_numpy()
        probed = entries[(center[row] >= 0) & (abs(position - center[row]) <= WIDTH)]
        found |= set(zip(probed["latent_index"].tolist(), probed["row"].tolist(), strict=True))
        unseen = entries[~np.isin(_keys(entries, n_rows), explained)]
        pool = _first_drawn(pd.concat([pool, _strongest_tokens(unseen, order)], ignore_index=True))
    whole = pool.astype(dict.fromkeys(("latent_index", "row", "position"), np.int64))
    return _Candidates(whole, np.stack([chosen, center[chosen]], axis=1), found)


def _keys(entries: pd.DataFrame, n_rows: int) -> np.ndarray:
    """Return a number that identifies the latent and row of each entry, (n,) int64."""
    return entries["latent_index"].to_numpy(np.int64) * n_rows + entries["row"].to_numpy(np.int64)


def _strongest_tokens(entries: pd.DataFrame, order: np.ndarray) -> pd.DataFrame:
    """Return each latent's strongest token in each row, with the activations nearby and the drawn `order` of the row.

    Ties go to the earlier token, as among the contexts that explainers see.
    """
    sized = entries.assign(size=entries["value"].abs())
    sized = sized.sort_values(["latent_index", "row", "size", "position"], ascending=[True, True, False, True])
    group = (sized["latent_index"].diff().ne(0) | sized["row"].diff().ne(0)).to_numpy()
    first = np.flatnonzero(group)
    number = np.cumsum(group) - 1
    offset = sized["position"].to_numpy() - sized["position"].to_numpy()[first][number]
    near = abs(offset) <= WIDTH
    activations = np.zeros((len(first), len(NEARBY)), dtype=np.float32)
    activations[number[near], WIDTH + offset[near].astype(np.int64)] = sized["value"].to_numpy()[near]
    best = sized.iloc[first].drop(columns="size").reset_index(drop=True)
    order_of_row = order[best["row"].to_numpy(np.int64)]
    return pd.concat([best.assign(order=order_of_row), pd.DataFrame(activations, columns=NEARBY)], axis=1)


def _first_drawn(pool: pd.DataFrame) -> pd.DataFrame:
    """Keep the first `N_POOL` rows of each latent in the drawn order."""
    ordered = pool.sort_values(["latent_index", "order"])
    return ordered[ordered.groupby("latent_index").cumcount() < N_POOL]


def _distinct(pool: pd.DataFrame, shown: pd.DataFrame, subject: LoadedSubject, rows: TokenRows) -> list[Drawn]:
    """Return the windows whose text differs from those shown and from each other.

    A corpus repeats itself: explainers may have seen the same text in another row.
    """
    known = {
        _Window.around(subject, rows, int(row), int(position)).ids
        for row, position in zip(shown["row"], shown["position"], strict=True)
    }
    kept = []
    columns = (pool[name].tolist() for name in ("value", "row", "position"))
    for value, row, position, nearby in zip(*columns, pool[NEARBY].to_numpy(), strict=True):
        ids = _Window.around(subject, rows, row, position).ids
        if ids not in known:
            known.add(ids)
            kept.append(Drawn(value, row, position, nearby))
    return kept


def _spread(windows: list[Drawn], n_windows: int) -> list[Drawn]:
    """Return `n_windows` windows at even steps from the strongest to the weakest."""
    ordered = sorted(windows, key=lambda window: (-abs(window[0]), *window[1:3]))
    steps = np.linspace(0, len(ordered) - 1, min(n_windows, len(ordered))).round().astype(int)
    return [ordered[step] for step in steps]


@dataclass(frozen=True)
class _Window:
    """Tokens of a row of the corpus, from position `start` on."""

    ids: tuple[int, ...]
    start: int

    @classmethod
    def around(cls, subject: LoadedSubject, rows: TokenRows, row: int, position: int) -> _Window:
        """Return the window of up to `WIDTH` tokens on either side of a position, without constant tokens."""
        start = max(int(subject.language.n_constant(rows.tokens[row : row + 1])), position - WIDTH)
        end = min(int(rows.mask[row].sum()), position + 1 + WIDTH)
        return cls(tuple(rows.tokens[row, start:end].tolist()), start)

    @property
    def positions(self) -> range:
        """Positions of its tokens in the row."""
        return range(self.start, self.start + len(self.ids))

    def record(
        self, subject: LoadedSubject, latent: int, side: str, rank: int, position: int, value: float
    ) -> dict[str, object]:
        """Return the table row that shows the window with the token at `position` marked."""
        decode, at = subject.language.decode, position - self.start
        before, until, whole = (decode(self.ids[:end]) for end in (at, at + 1, len(self.ids)))
        if until.startswith(before) and whole.startswith(until):
            token, after = until[len(before) :], whole[len(until) :]
        else:  # the tokenizer has split a character
            token, after = decode([self.ids[at]]), decode(self.ids[at + 1 :])
        return {
            "latent_index": int(latent),
            "side": side,
            "rank": rank,
            "token": token,
            "before": before,
            "after": after,
            "value": value,
        }


def _pieces_of_windows(subject: LoadedSubject) -> Callable[[tuple[int, ...]], tuple[str, ...]]:
    """Return what gives the pieces of a window by its token ids; many windows of a corpus have the same text."""
    decode = subject.language.decode
    name = cache(lambda token: decode([token]))
    return lru_cache(maxsize=2**14)(lambda ids: tuple(_pieces(ids, decode, name)))


def _pieces(ids: tuple[int, ...], decode: Callable[[Sequence[int]], str], name: Callable[[int], str]) -> list[str]:
    """Return the text of each token as part of a window; a character of several tokens is the last one's.

    `name` gives the text of a token by itself. Together these are the text of the window in most tokenizers.
    """
    named = [name(token) for token in ids]
    if "".join(named) == decode(ids):
        return named
    told, found = "", list[str]()
    for end in range(1, len(ids) + 1):
        text = decode(ids[:end])
        whole = text.startswith(told) and not text.endswith("\ufffd")
        found.append(text[len(told) :] if whole or end == len(ids) else "")
        told = text if whole else told
    return found


def _token_names(language: LoadedModel) -> list[str]:
    """Return the text of every token id."""
    return [language.decode([token]) for token in range(language.n_vocabulary)]


def _top_tokens(names: list[str], latents: torch.Tensor, change: torch.Tensor, side: str) -> list[dict[str, object]]:
    """Return rows for the tokens with the largest `change` (n_latents, n_vocabulary) of each latent."""
    top = change.topk(min(N_TOKENS, change.shape[1]), dim=1)
    return [
        {"latent_index": latent, "side": side, "rank": rank, "token": names[token], "value": value}
        for latent, tokens, values in zip(latents.tolist(), top.indices.tolist(), top.values.tolist(), strict=True)
        for rank, (token, value) in enumerate(zip(tokens, values, strict=True))
    ]
