"""Tokenizing a behavior's records and running them once through everything below the hook.

Everything below the injection point is frozen, so its output is computed once: the residual stream there and the
sparse codes of what the SAE reads. Training and scoring start from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from isaerft.behaviors import Record, prompt_messages, prompt_text
from isaerft.errors import InputError, shown
from isaerft.subjects.cache import CachedRows, write_cache
from isaerft.subjects.corpus import pad_rows
from isaerft.subjects.dictionary import Codes
from isaerft.subjects.hooks import run_below
from isaerft.subjects.load import LoadedModel, LoadedSubject


def capture_behavior(
    subject: LoadedSubject,
    splits: dict[str, Sequence[Record]],
    path: str | Path,
    *,
    max_length: int,
    batch_size: int,
) -> None:
    """Run every record below the hook and write the cache of all splits under `path`, atomically.

    Raises
    ------
    InputError
        A record's completion does not fit into `max_length` tokens.
    """
    write_cache({name: captured(subject, records, max_length, batch_size) for name, records in splits.items()}, path)


def captured(
    subject: LoadedSubject, records: Sequence[Record], max_length: int, batch_size: int
) -> Iterator[CachedRows]:
    """Tokenize records (prompt + chosen reply) and run them below the hook, `batch_size` rows at a time, in order.

    At BOS no latent counts as active: in some models (Gemma) its activations are huge outliers that would drown the
    text.
    """
    language, device = subject.language, subject.model.device
    for start in tqdm(range(0, len(records), batch_size), desc="residual stream", unit="batch", disable=None):
        rows = [tokenize(record, language, max_length) for record in records[start : start + batch_size]]
        table = pad_rows((tokens for tokens, _ in rows), language.padding)
        mask = table.mask.bool()
        below = run_below(subject.model, subject.site, table.tokens.to(device), table.mask.to(device))
        real = mask.to(device)
        is_bos = torch.zeros_like(mask)
        is_bos[:, : len(language.bos)] = True
        lengths = mask.sum(1)
        yield CachedRows(
            residual=below.residual[real].cpu(),
            codes=_to_cpu(subject.dictionary.encode(below.activation[real])).emptied(is_bos[mask]),
            tokens=table.tokens[mask],
            predicts=torch.cat([_predicts(len(tokens), n_prompt) for tokens, n_prompt in rows]),
            starts=torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]),
        )


def capture(subject: LoadedSubject, records: Sequence[Record], max_length: int, batch_size: int) -> CachedRows:
    """Return what `captured` yields, as one part in memory."""
    parts = list(captured(subject, records, max_length, batch_size))
    lengths = torch.cat([part.starts.diff() for part in parts])
    return CachedRows(
        residual=torch.cat([part.residual for part in parts]),
        codes=Codes.concatenate(part.codes for part in parts),
        tokens=torch.cat([part.tokens for part in parts]),
        predicts=torch.cat([part.predicts for part in parts]),
        starts=torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]),
    )


def tokenize(record: Record, language: LoadedModel, max_length: int) -> tuple[list[int], int]:
    """Return a record's token ids (BOS, prompt, completion, EOS) and how many of them come before the completion.

    A prompt that is too long loses its beginning.

    Raises
    ------
    InputError
        The completion alone does not fit, or holds no token.
    """
    tokenizer = language.tokenizer
    prompt = rendered_prompt(record, language)
    encoded = tokenizer(prompt + record.reply, add_special_tokens=False, return_offsets_mapping=True)
    # A token belongs to the completion when it reaches into it; one that straddles the border does too.
    is_prompt = [end <= len(prompt) for _, end in encoded["offset_mapping"]]
    n_prompt = next((i for i, inside in enumerate(is_prompt) if not inside), len(is_prompt))
    before, completion = encoded["input_ids"][:n_prompt], encoded["input_ids"][n_prompt:]
    if not completion:
        raise InputError(f"record {shown(record.id)}: its completion {shown(record.reply)} holds no token")
    if tokenizer.eos_token_id is not None:
        completion = [*completion, tokenizer.eos_token_id]
    room = max_length - len(language.bos) - len(completion)
    if room < 1:
        raise InputError(
            f"record {shown(record.id)}: its completion has {len(completion)} tokens, and would be cut away",
            allowed=f"at most {max_length - len(language.bos) - 1} (max_length {max_length})",
            remedy="raise max_length, or set max_completion_characters for the behavior to drop such rows",
        )
    kept = before[-room:]
    return [*language.bos, *kept, *completion], len(language.bos) + len(kept)


def rendered_prompt(record: Record, language: LoadedModel) -> str:
    """Return the prompt as text: a string as it is, messages through the tokenizer's chat template where it has one."""
    if isinstance(record.prompt, str):
        return record.prompt
    if language.tokenizer.chat_template:
        text = language.tokenizer.apply_chat_template(
            prompt_messages(record.prompt), tokenize=False, add_generation_prompt=True
        )
        bos = language.tokenizer.bos_token or ""
        return text.removeprefix(bos) if bos else text
    return prompt_text(record.prompt)


def _predicts(n_tokens: int, n_before: int) -> torch.Tensor:
    """Mark the positions whose next token belongs to the completion."""
    position = torch.arange(n_tokens)
    return (position >= n_before - 1) & (position < n_tokens - 1)


def _to_cpu(codes: Codes) -> Codes:
    return Codes(codes.indices.cpu(), codes.values.cpu(), codes.starts.cpu(), codes.d_sae)
