"""The answers of a model to prompts, with its adapters if it has any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from tqdm import tqdm
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from isaerft.behaviors import Record
from isaerft.errors import InputError
from isaerft.subjects.capture import render_prompt
from isaerft.subjects.load import LoadedModel, LoadedSubject


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


def answers(
    subject: LoadedSubject,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[str]:
    """Return the model's answer to each prompt, without special tokens.

    Parameters
    ----------
    prompts : sequence of list of int
        Token ids of each prompt.
    temperature : float
        0 for greedy decoding, else sampling from the whole vocabulary with `seed`.
    """
    found = continuations(
        subject, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size, temperature=temperature, seed=seed
    )
    return subject.language.tokenizer.batch_decode(found, skip_special_tokens=True)


def continuations(
    subject: LoadedSubject,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
    temperature: float,
    seed: int,
    preference: torch.Tensor | None = None,
) -> list[list[int]]:
    """Return the token ids of the model's answer to each prompt, with the EOS that ends it; see `answers`.

    Parameters
    ----------
    preference : (n_vocabulary,) float32, optional
        Added to the model's logits.
    """
    found: list[list[int]] = []
    starts = range(0, len(prompts), batch_size)
    with torch.random.fork_rng(enabled=temperature > 0), torch.no_grad():
        if temperature > 0:
            torch.manual_seed(seed)
        for start in tqdm(starts, desc="answers", unit="batch", disable=None, leave=False):
            part = prompts[start : start + batch_size]
            found += _continued(subject, part, max_new_tokens, temperature, preference)
    return found


def _continued(
    subject: LoadedSubject,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    temperature: float,
    preference: torch.Tensor | None,
) -> list[list[int]]:
    language, model = subject.language, subject.model
    tokens, mask = padded_left(prompts, language.padding)
    # The model's own settings (a repetition penalty, say) would distort the comparison; only its EOS tokens are kept.
    own, ends = model.generation_config, {language.tokenizer.eos_token_id}
    ends |= set(own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id])
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature > 0 else {"do_sample": False}
    model.generation_config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        pad_token_id=language.padding,
        eos_token_id=sorted(ends - {None}) or None,
        **sampling,
    )
    processors = [] if preference is None else [_Preferring(preference.to(model.device))]
    try:
        generated = cast("Any", model).generate(
            input_ids=tokens.to(model.device),
            attention_mask=mask.to(model.device),
            logits_processor=LogitsProcessorList(processors),
        )
    finally:
        model.generation_config = own
    # After EOS a row is filled with padding, which in some models is a token of the text.
    rows = [row[tokens.shape[1] :] for row in generated.tolist()]
    return [row[: next((place + 1 for place, token in enumerate(row) if token in ends), len(row))] for row in rows]


class _Preferring(LogitsProcessor):
    """Adds the same to the logits of every next token."""

    def __init__(self, preference: torch.Tensor) -> None:
        self.preference = preference

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores + self.preference


def padded_left(rows: Sequence[list[int]], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and attention mask, both (n_rows, longest) int64, of rows that end where the answer begins.

    `generate` counts positions from each row's first unmasked token.
    """
    longest = max(len(row) for row in rows)
    tokens = torch.full((len(rows), longest), padding)
    mask = torch.zeros_like(tokens)
    for number, row in enumerate(rows):
        tokens[number, longest - len(row) :] = torch.tensor(row)
        mask[number, longest - len(row) :] = 1
    return tokens, mask
