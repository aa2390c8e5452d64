"""Answers to prompts, with or without an adapter at work in the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from tqdm import tqdm
from transformers import GenerationConfig

from isaerft.adapters.base import LatentAdapter
from isaerft.adapters.hooked import Passes, Place
from isaerft.behaviors import Record
from isaerft.errors import InputError
from isaerft.subjects.capture import render_prompt
from isaerft.subjects.load import LoadedModel, LoadedSubject


def prompt_tokens(record: Record, language: LoadedModel, max_length: int) -> list[int]:
    """Return the token ids of a record's prompt, BOS in front; one that is too long loses its beginning.

    Parameters
    ----------
    max_length : int
        Most tokens, BOS included.
    """
    encoded = language.tokenizer(render_prompt(record, language), add_special_tokens=False)["input_ids"]
    room = max_length - len(language.bos)
    if room < 1 or not [*language.bos, *encoded]:
        raise InputError(f"record {record.id!r}: no token of its prompt fits", remedy="raise max_length")
    return [*language.bos, *encoded[-room:]]


def answers(
    subject: LoadedSubject,
    prompts: Sequence[list[int]],
    adapter: LatentAdapter | None,
    *,
    max_new_tokens: int,
    batch_size: int,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[str]:
    """Return the model's answer to each prompt, special tokens left out.

    Parameters
    ----------
    adapter : LatentAdapter or None
        At work from the first token of the prompt; None for the model as it is.
    temperature : float
        0 for the most likely token each time, else sampling from the whole vocabulary with `seed`.
    """
    found = []
    starts = range(0, len(prompts), batch_size)
    with torch.random.fork_rng(enabled=temperature > 0), torch.no_grad():
        if temperature > 0:
            torch.manual_seed(seed)
        for start in tqdm(starts, desc="answers", unit="batch", disable=None, leave=False):
            found += _answered(subject, prompts[start : start + batch_size], adapter, max_new_tokens, temperature)
    return found


def _answered(
    subject: LoadedSubject,
    prompts: Sequence[list[int]],
    adapter: LatentAdapter | None,
    max_new_tokens: int,
    temperature: float,
) -> list[str]:
    language, model = subject.language, subject.model
    tokens, mask = padded_left(prompts, language.padding)
    # The model's own settings (a repetition penalty, say) would bend what is compared; only where it ends is kept.
    own, ends = model.generation_config, {language.tokenizer.eos_token_id}
    ends |= set(own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id])
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature > 0 else {"do_sample": False}
    model.generation_config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        pad_token_id=language.padding,
        eos_token_id=sorted(ends - {None}) or None,
        **sampling,
    )
    try:
        with nullcontext() if adapter is None else acting(subject, adapter):
            made = model.generate(input_ids=tokens.to(model.device), attention_mask=mask.to(model.device))
    finally:
        model.generation_config = own
    return language.tokenizer.batch_decode(made[:, tokens.shape[1] :], skip_special_tokens=True)


@contextmanager
def acting(subject: LoadedSubject, adapter: LatentAdapter) -> Iterator[None]:
    """Let an adapter act in the model's own forward passes inside the block, as on the cached path it learned on."""
    passes = Passes()
    place = Place(subject.dictionary, subject.hook, passes)
    place.adapters["trained"] = adapter
    place.active = {"trained"}
    bos = subject.language.bos[0] if subject.language.bos else None
    handles = [*passes.follow(subject.model, bos), *place.hook(subject.model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def padded_left(rows: Sequence[list[int]], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and attention mask, both (n_rows, longest) int64, so that every row ends where the answer goes.

    Positions follow the mask: `generate` counts them from each row's first token.
    """
    longest = max(len(row) for row in rows)
    tokens = torch.full((len(rows), longest), padding)
    mask = torch.zeros_like(tokens)
    for number, row in enumerate(rows):
        tokens[number, longest - len(row) :] = torch.tensor(row)
        mask[number, longest - len(row) :] = 1
    return tokens, mask
