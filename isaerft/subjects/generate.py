"""Let a model reply to prompts: greedily, or sampled from its own probabilities with a seed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import cycle, islice
from typing import Any, NamedTuple, cast

import torch
from transformers import GenerationConfig

from isaerft.behaviors import Record
from isaerft.errors import InputError, shown
from isaerft.progress import Progress
from isaerft.subjects.capture import encode
from isaerft.subjects.chat import render_prompt
from isaerft.subjects.corpus import TokenRows, pad_rows
from isaerft.subjects.load import LoadedModel


class Reply(NamedTuple):
    """A model's reply to a prompt.

    Attributes
    ----------
    tokens : list of int
        Token ids, up to the first EOS and with it.
    text : str
        Without special tokens.
    truncated : bool
        Whether it was cut before the model ended it.
    """

    tokens: list[int]
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
    description: str = "replies",
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
    starts, ends = range(0, len(prompts), batch_size), _end_tokens(language)
    with torch.random.fork_rng(enabled=temperature > 0), torch.no_grad():
        if temperature > 0:
            torch.manual_seed(seed)
        for start in Progress(starts, desc=description, unit="batch"):
            rows = _replies(language, prompts[start : start + batch_size], max_new_tokens, temperature)
            texts = language.tokenizer.batch_decode(rows, skip_special_tokens=True)
            found += [Reply(row, text, row[-1] not in ends) for row, text in zip(rows, texts, strict=True)]
    return found


def sample_chats(
    language: LoadedModel, prompts: Sequence[str], *, n_tokens: int, context_size: int, batch_size: int, seed: int
) -> TokenRows:
    """Sample a corpus of chats: each prompt with the model's reply at temperature 1, again and again.

    Parameters
    ----------
    n_tokens : int
        Size of the corpus in tokens, BOS included.
    context_size : int
        Rows end with the model's end token or at this length.

    Raises
    ------
    InputError
        A prompt leaves no room for a reply.
    """
    asked = [prompt_tokens(Record(str(number), text), language, context_size) for number, text in enumerate(prompts)]
    for text, row in zip(prompts, asked, strict=True):
        if len(row) >= context_size:
            raise InputError(
                f"corpus prompt {shown(text)} has {len(row)} tokens with its chat template",
                allowed=f"fewer than context_size, {context_size}",
                remedy="raise corpus.context_size, or shorten the prompt",
            )
    rows: list[list[int]] = []
    total = 0
    waiting = cycle(asked)
    with (
        Progress(total=n_tokens, desc="sampling chats", unit="token") as progress,
        torch.random.fork_rng(),
        torch.no_grad(),
    ):
        torch.manual_seed(seed)
        while total < n_tokens:
            batch = list(islice(waiting, batch_size))
            replies = _replies(language, batch, context_size - min(map(len, batch)), 1.0)
            found = [(prompt + reply)[:context_size] for prompt, reply in zip(batch, replies, strict=True)]
            rows += found
            total += sum(map(len, found))
            progress.update(sum(map(len, found)))
    return pad_rows(rows, language.padding)


def _end_tokens(language: LoadedModel) -> set[int]:
    """Return the token ids with which the model ends a reply: EOS, its own, and the end of its template's turns."""
    own = language.model.generation_config.eos_token_id
    found = {language.tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])}
    if language.uses_chat_template and language.tokenizer.chat_template:
        with suppress(InputError):  # a template that refuses this chat has no say in where others end
            last = encode(Record("turn", [{"role": "user", "content": "1"}], "A"), language).tokens[-1]
            found |= {last} & language.special_ids
    return found - {None}


def _replies(
    language: LoadedModel,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    temperature: float,
) -> list[list[int]]:
    """Return the token ids of the model's replies, each with its end token if the model ended it."""
    model = language.model
    tokens, mask = padded_left(prompts, language.padding)
    # The model's own settings (a repetition penalty, say) would distort comparisons; only its EOS tokens are kept.
    own, ends = model.generation_config, _end_tokens(language)
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature > 0 else {"do_sample": False}
    model.generation_config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        pad_token_id=language.padding,
        eos_token_id=sorted(ends) or None,
        **sampling,
    )
    try:
        generated = cast("Any", model).generate(
            input_ids=tokens.to(model.device),
            attention_mask=mask.to(model.device),
        )
    finally:
        model.generation_config = own
    # After its end token a row is filled with padding, which in some models is a token of the text.
    return [_until(row, ends) for row in generated[:, tokens.shape[1] :].tolist()]


def _until(row: list[int], ends: set[int]) -> list[int]:
    """Return token ids up to the first end token, with it."""
    return next((row[: at + 1] for at, token in enumerate(row) if token in ends), row)


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
