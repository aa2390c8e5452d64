"""Let a model reply to prompts: greedily, or sampled from its own probabilities with a seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from tqdm import tqdm
from transformers import GenerationConfig

from isaerft.behaviors import Record
from isaerft.errors import InputError
from isaerft.subjects.capture import render_prompt
from isaerft.subjects.load import LoadedModel


class Reply(NamedTuple):
    """A model's reply to a prompt.

    Attributes
    ----------
    text : str
        Without special tokens.
    truncated : bool
        Whether it was cut before the model ended it.
    """

    text: str
    truncated: bool


def longest_prompt(language: LoadedModel, max_length: int, max_new_tokens: int) -> int:
    """Return the largest number of prompt tokens, at most `max_length`, that leaves the model room for a reply."""
    longest = getattr(language.model.config.get_text_config(), "max_position_embeddings", None)
    return max_length if longest is None else min(max_length, int(longest) - max_new_tokens)


def prompt_tokens(record: Record, language: LoadedModel, max_length: int) -> list[int]:
    """Return BOS and the token ids of a record's prompt; a prompt that is too long loses its beginning.

    Parameters
    ----------
    max_length : int
        Largest number of tokens, with BOS.
    """
    encoded = language.tokenizer(render_prompt(record, language), add_special_tokens=False)["input_ids"]
    room = max_length - len(language.bos)
    if room < 1 or not [*language.bos, *encoded]:
        raise InputError(f"record {record.id!r}: no token of its prompt fits", remedy="raise max_length")
    return [*language.bos, *encoded[-room:]]


def generate(
    language: LoadedModel,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
    temperature: float = 0.0,
    seed: int = 0,
    description: str = "answers",
) -> list[Reply]:
    """Return the model's reply to each prompt.

    Parameters
    ----------
    prompts : sequence of list of int
        Token ids of each prompt.
    temperature : float
        0 for greedy decoding, else sampling from the whole vocabulary with `seed`.
    description : str
        For the progress bar.
    """
    found: list[Reply] = []
    starts = range(0, len(prompts), batch_size)
    with torch.random.fork_rng(enabled=temperature > 0), torch.no_grad():
        if temperature > 0:
            torch.manual_seed(seed)
        for start in tqdm(starts, desc=description, unit="batch", disable=None, leave=False):
            found += _replies(language, prompts[start : start + batch_size], max_new_tokens, temperature)
    return found


def _replies(
    language: LoadedModel, prompts: Sequence[list[int]], max_new_tokens: int, temperature: float
) -> list[Reply]:
    model = language.model
    tokens, mask = padded_left(prompts, language.padding)
    # The model's own settings (a repetition penalty, say) would distort comparisons; only its EOS tokens are kept.
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
        generated = cast("Any", model).generate(input_ids=tokens.to(model.device), attention_mask=mask.to(model.device))
    finally:
        model.generation_config = own
    rows = generated[:, tokens.shape[1] :]
    texts = language.tokenizer.batch_decode(rows, skip_special_tokens=True)
    return [Reply(text, not ends & set(row)) for text, row in zip(texts, rows.tolist(), strict=True)]


def padded_left(rows: Sequence[list[int]], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and attention mask, both (n_rows, longest) int64, of rows that end where the reply begins.

    `generate` counts positions from each row's first unmasked token.
    """
    longest = max(len(row) for row in rows)
    tokens = torch.full((len(rows), longest), padding)
    mask = torch.zeros_like(tokens)
    for number, row in enumerate(rows):
        tokens[number, longest - len(row) :] = torch.tensor(row)
        mask[number, longest - len(row) :] = 1
    return tokens, mask
