"""Elicit a behavior: sample replies with an instruction in the prompt, beside plain replies without it.

Training then sees the plain prompt only, as in context distillation (Askell et al. 2021, arXiv 2112.00861), so the
behavior is one that the model has. The plain replies serve as the rejected side of preference pairs.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from isaerft.behaviors import Record
from isaerft.behaviors.elicited import Request
from isaerft.config import Elicit
from isaerft.errors import InputError
from isaerft.io import replacing
from isaerft.subjects.chat import render_chat
from isaerft.subjects.generate import Reply, generate, longest_prompt, prompt_tokens
from isaerft.subjects.load import LoadedModel

# White space, and what stands for half of a character that the limit has split.
CUT_OFF = " \t\r\n\ufffd"


def write_elicited(
    language: LoadedModel,
    requests: Sequence[Request],
    options: Elicit,
    path: str | Path,
    *,
    behavior: str,
    seed: int,
    batch_size: int,
    max_length: int,
) -> None:
    """Sample an elicited and a plain reply to each request, and write all of them as JSONL, atomically.

    Parameters
    ----------
    behavior : str
        Each behavior has random streams of its own.
    max_length : int
        Largest number of tokens of prompt and reply; a longer prompt is refused.

    Notes
    -----
    A row has id, prompt, chosen (the elicited reply), rejected (the plain one), and truncated (the names of those that
    `options.max_new_tokens` cut).
    """
    for request in requests:  # what training would refuse later is refused before hours of sampling
        render_chat(Record(request.id, request.prompt, "A reply."), language)
    room = longest_prompt(language, max_length - options.max_new_tokens, options.max_new_tokens)

    def replies(texts: list[str], stream: str) -> list[Reply]:
        records = [Record(request.id, text) for request, text in zip(requests, texts, strict=True)]
        return generate(
            language,
            list(_whole_prompts(records, language, room)),
            max_new_tokens=options.max_new_tokens,
            batch_size=batch_size,
            temperature=options.temperature,
            seed=zlib.crc32(f"{seed} {behavior} {stream}".encode()),
            description=f"{stream} replies",
        )

    chosen = replies([request.asked for request in requests], "elicited")
    rejected = replies([request.prompt for request in requests], "plain")
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as stream:
        for request, *pair in zip(requests, chosen, rejected, strict=True):
            row: dict[str, object] = {"id": request.id, "prompt": request.prompt}
            named = dict(zip(("chosen", "rejected"), pair, strict=True))
            row |= {name: reply.text.replace("\0", "").rstrip(CUT_OFF) for name, reply in named.items()}
            row["truncated"] = [name for name, reply in named.items() if reply.truncated]
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def _whole_prompts(records: Sequence[Record], language: LoadedModel, room: int) -> Iterator[list[int]]:
    """Yield the token ids of prompts; one that does not fit would lose its chat template's beginning."""
    for record in records:
        tokens = prompt_tokens(record, language, max(room, 1) + 1)
        if len(tokens) > room:
            raise InputError(
                f"prompt {record.id} does not fit with its reply", remedy="raise max_length, or lower max_new_tokens"
            )
        yield tokens
