"""Tokenize a behavior's records and run them once through the layers below the hook.

These layers are frozen, so their output is computed once: the residual stream at the injection point and the sparse
codes of the hook's activation. Training and evaluation start from there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from isaerft.behaviors import Record
from isaerft.errors import InputError, shown
from isaerft.progress import Progress
from isaerft.subjects.cache import CachedRows, joined_tensors, write_cache
from isaerft.subjects.chat import DATE, render_chat, writes_date
from isaerft.subjects.codes import Codes
from isaerft.subjects.corpus import pad_rows
from isaerft.subjects.hooks import run_below
from isaerft.subjects.load import LoadedModel, LoadedSubject

logger = logging.getLogger(__name__)


class TokenizedRow(NamedTuple):
    """A prompt and its completion as token ids.

    Attributes
    ----------
    tokens : list of int
    n_prompt : int
        Number of them before the completion.
    """

    tokens: list[int]
    n_prompt: int


def capture_behavior(
    subject: LoadedSubject,
    splits: dict[str, Sequence[Record]],
    path: str | Path,
    *,
    max_length: int,
    batch_size: int,
) -> None:
    """Run the records of all splits below the hook and write their cache to `path`, atomically.

    Parameters
    ----------
    splits : dict of str to sequence of Record
        Records of each split.
    max_length : int
        Tokens per row; longer prompts lose their beginning.
    batch_size : int
        Rows per forward pass.

    Raises
    ------
    InputError
        A record's completion does not fit into `max_length` tokens.
    """
    n_texts = sum(isinstance(record.prompt, str) for records in splits.values() for record in records)
    language = subject.language
    is_turn = language.uses_chat_template and (bool(language.tokenizer.chat_template) or language.writes_turns)
    logger.info("%d prompts that are text %s", n_texts, "become a user's turn" if is_turn else "stay raw text")
    if writes_date(language.tokenizer):
        logger.info("the chat template writes the date: always %s", DATE)
    write_cache(
        {name: capture_batches(subject, part, max_length, batch_size, name) for name, part in splits.items()}, path
    )


def capture_batches(
    subject: LoadedSubject, records: Sequence[Record], max_length: int, batch_size: int, split: str = "the records"
) -> Iterator[CachedRows]:
    """Tokenize records (prompt and reply) and yield them run below the hook, `batch_size` rows at a time, in order.

    A warning counts the prompts that lose their beginning; `split` names the records in it.
    """
    count_tokens(records, subject.language, max_length, split)
    for start in Progress(range(0, len(records), batch_size), desc="capturing", unit="batch"):
        part = records[start : start + batch_size]
        yield capture_tokens(subject, [tokenize(record, subject.language, max_length) for record in part])


def count_tokens(records: Sequence[Record], language: LoadedModel, max_length: int, split: str) -> dict[str, int]:
    """Return the numbers of rows, tokens and cut prompts of records, and warn of prompts that lose their beginning.

    Parameters
    ----------
    max_length : int
        Tokens per row.
    split : str
        Name of the records, for the warning.

    Raises
    ------
    InputError
        `tokenize` refuses a record.
    """
    counts = {"rows": len(records), "tokens": 0, "longest": 0, "cut_prompts": 0}
    for record in records:
        whole = encode(record, language)
        n_tokens = len(_fitted(whole, record, language, max_length).tokens)
        counts["tokens"] += n_tokens
        counts["longest"] = max(counts["longest"], len(whole.tokens))
        counts["cut_prompts"] += n_tokens < len(whole.tokens)
    if counts["cut_prompts"]:
        logger.warning(
            "%s: %d of %d prompts lose their beginning, with what a chat template writes there, to fit into max_length"
            " %d; the longest row would need %d tokens",
            split,
            counts["cut_prompts"],
            len(records),
            max_length,
            counts["longest"],
        )
    return counts


def capture(subject: LoadedSubject, records: Sequence[Record], max_length: int, batch_size: int) -> CachedRows:
    """Return all that `capture_batches` yields in one piece."""
    return joined_rows(capture_batches(subject, records, max_length, batch_size))


def capture_tokens(subject: LoadedSubject, rows: Sequence[TokenizedRow]) -> CachedRows:
    """Run rows of tokens below the hook, all in one forward pass.

    No latent counts as active at BOS: in some models (Gemma) activations there are huge outliers that would swamp those
    of the text.
    """
    language, device = subject.language, subject.model.device
    table = pad_rows((tokens for tokens, _ in rows), language.padding)
    mask = table.mask.bool()
    below = run_below(subject.model, subject.hook, table.tokens.to(device), table.mask.to(device))
    real = mask.to(device)
    is_bos = ~language.text_mask(mask)[mask]
    lengths = mask.sum(1)
    return CachedRows(
        residual=below.residual[real].cpu(),
        codes=subject.dictionary.encode(below.activation[real]).to("cpu").emptied(is_bos),
        tokens=table.tokens[mask],
        predicts=torch.cat([_predicts(len(tokens), n_prompt) for tokens, n_prompt in rows]),
        starts=torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]),
        written=below.written[real].cpu() if subject.hook.is_normed else None,
    )


def joined_rows(parts: Iterable[CachedRows]) -> CachedRows:
    """Return the rows of several parts in one piece, in order."""
    parts = list(parts)
    lengths = torch.cat([part.starts.diff() for part in parts])
    return CachedRows(
        residual=torch.cat([part.residual for part in parts]),
        codes=Codes.concatenate(part.codes for part in parts),
        tokens=torch.cat([part.tokens for part in parts]),
        predicts=torch.cat([part.predicts for part in parts]),
        starts=torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]),
        written=joined_tensors([part.written for part in parts]),
    )


def tokenize(record: Record, language: LoadedModel, max_length: int) -> TokenizedRow:
    """Return a record's tokens: BOS, prompt, reply, and what ends the assistant's turn.

    A prompt that is too long loses its beginning. Nothing ends a reply that was cut.

    Raises
    ------
    InputError
        The reply alone does not fit, or has no token; or the chat template cannot write the record.
    """
    return _fitted(encode(record, language), record, language, max_length)


def encode(record: Record, language: LoadedModel) -> TokenizedRow:
    """Return a record's tokens as `tokenize` does, however many they are."""
    chat = render_chat(record, language)
    text = chat.prompt + chat.reply
    written = text if record.is_truncated else text + chat.end
    encoded = language.tokenizer(written, add_special_tokens=False, return_offsets_mapping=True)
    tokens, stops = encoded["input_ids"], [stop for _, stop in encoded["offset_mapping"]]
    # A token that straddles the border of prompt and completion belongs to the completion.
    n_prompt, n_text = (
        next((at for at, stop in enumerate(stops) if stop > border), len(stops))
        for border in (len(chat.prompt), len(text))
    )
    if n_text == n_prompt:
        raise InputError(f"record {shown(record.id)}: its completion {shown(record.reply)} has no token")
    if not record.is_truncated:
        tokens = [*tokens[:n_text], *_turn_end(tokens[n_text:], language)]
    return TokenizedRow([*language.bos, *tokens], len(language.bos) + n_prompt)


def _turn_end(after: list[int], language: LoadedModel) -> list[int]:
    """Return the tokens that end a turn, of those that the template writes after a reply.

    That is up to its own end token; a new line or the end of the chat may follow. Without such a token EOS ends it.
    """
    own = next((at for at, token in enumerate(after) if token in language.special_ids), None)
    if own is not None:
        return after[: own + 1]
    eos = language.tokenizer.eos_token_id
    return after if eos is None else [*after, eos]


def _fitted(row: TokenizedRow, record: Record, language: LoadedModel, max_length: int) -> TokenizedRow:
    """Return a row of at most `max_length` tokens: a prompt that is too long loses its beginning, but not BOS."""
    n_bos, n_completion = len(language.bos), len(row.tokens) - row.n_prompt
    room = max_length - n_bos - n_completion
    if room < 1:
        raise InputError(
            f"record {shown(record.id)}: its completion of {n_completion} tokens does not fit",
            allowed=f"at most {max_length - n_bos - 1} (max_length {max_length})",
            remedy="raise max_length, or drop such rows with max_completion_characters",
        )
    kept = row.tokens[n_bos : row.n_prompt][-room:]
    return TokenizedRow([*language.bos, *kept, *row.tokens[row.n_prompt :]], n_bos + len(kept))


def _predicts(n_tokens: int, n_before: int) -> torch.Tensor:
    """Return which tokens are followed by a token of the completion, (n_tokens,) bool."""
    position = torch.arange(n_tokens)
    return (position >= n_before - 1) & (position < n_tokens - 1)
