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
from tqdm import tqdm

from isaerft.behaviors import Record, prompt_messages, prompt_text
from isaerft.errors import InputError, shown
from isaerft.subjects.cache import CachedRows, write_cache
from isaerft.subjects.corpus import pad_rows
from isaerft.subjects.dictionary import Codes
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
    write_cache(
        {name: capture_batches(subject, records, max_length, batch_size) for name, records in splits.items()}, path
    )


def capture_batches(
    subject: LoadedSubject, records: Sequence[Record], max_length: int, batch_size: int
) -> Iterator[CachedRows]:
    """Tokenize records (prompt and reply) and yield them run below the hook, `batch_size` rows at a time, in order."""
    for start in tqdm(range(0, len(records), batch_size), desc="capturing", unit="batch", disable=None):
        part = records[start : start + batch_size]
        yield capture_tokens(subject, [tokenize(record, subject.language, max_length) for record in part])


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
    )


def tokenize(record: Record, language: LoadedModel, max_length: int) -> TokenizedRow:
    """Return a record's tokens: BOS, prompt, reply, EOS.

    A prompt that is too long loses its beginning. No EOS follows a reply that was cut.

    Raises
    ------
    InputError
        The reply alone does not fit, or has no token.
    """
    tokenizer = language.tokenizer
    prompt = render_prompt(record, language)
    encoded = tokenizer(prompt + record.reply, add_special_tokens=False, return_offsets_mapping=True)
    # A token that straddles the border of prompt and completion belongs to the completion.
    is_prompt = [end <= len(prompt) for _, end in encoded["offset_mapping"]]
    n_prompt = next((i for i, inside in enumerate(is_prompt) if not inside), len(is_prompt))
    before, completion = encoded["input_ids"][:n_prompt], encoded["input_ids"][n_prompt:]
    if not completion:
        raise InputError(f"record {shown(record.id)}: its completion {shown(record.reply)} has no token")
    if tokenizer.eos_token_id is not None and not record.is_truncated:
        completion = [*completion, tokenizer.eos_token_id]
    room = max_length - len(language.bos) - len(completion)
    if room < 1:
        raise InputError(
            f"record {shown(record.id)}: its completion of {len(completion)} tokens does not fit",
            allowed=f"at most {max_length - len(language.bos) - 1} (max_length {max_length})",
            remedy="raise max_length, or drop such rows with max_completion_characters",
        )
    kept = before[-room:]
    return TokenizedRow([*language.bos, *kept, *completion], len(language.bos) + len(kept))


def render_prompt(record: Record, language: LoadedModel) -> str:
    """Return the prompt as the model reads it: through the tokenizer's chat template, if it has one.

    Without a template text stays as it is unless `language.writes_turns`; with one, too, if
    `language.uses_chat_template` is false.
    """
    if isinstance(record.prompt, str) and not language.uses_chat_template:
        return record.prompt
    if language.tokenizer.chat_template:
        return language.rendered(prompt_messages(record.prompt))
    return prompt_text(prompt_messages(record.prompt) if language.writes_turns else record.prompt)


def _predicts(n_tokens: int, n_before: int) -> torch.Tensor:
    """Return which tokens are followed by a token of the completion, (n_tokens,) bool."""
    position = torch.arange(n_tokens)
    return (position >= n_before - 1) & (position < n_tokens - 1)
