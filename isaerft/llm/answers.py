"""From what a language model said to an answer in the form that was asked for, or to a failure with its reason."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from isaerft.llm.cache import MAX_CONTENT, Reply

MAX_OBJECTS = 20
Form = TypeVar("Form", bound=BaseModel)


@dataclass(frozen=True)
class Failure:
    """Why there is no answer: "refused", "truncated", "empty", "no_json" or "wrong_form"."""

    reason: str


def parsed(reply: Reply, form: type[Form]) -> Form | Failure:
    """Return a reply as its form; whatever does not fit it wholly is a `Failure`.

    A server without structured outputs may wrap the object in words or a code fence; then the one object in the text
    that fits is the answer, and two different ones are none.
    """
    if reply.refusal or reply.finish_reason == "content_filter":
        return Failure("refused")
    if reply.finish_reason == "length" or len(reply.content) >= MAX_CONTENT:
        return Failure("truncated")
    if not reply.content.strip():
        return Failure("empty")
    objects = _objects(reply.content)
    fitting = [value for value in (_fits(value, form) for value in objects) if value is not None]
    if not objects:
        return Failure("no_json")
    if not fitting or any(value != fitting[0] for value in fitting):
        return Failure("wrong_form")
    return fitting[0]


def _objects(text: str) -> list[dict[str, object]]:
    """Return the JSON objects that stand in a text side by side, the first `MAX_OBJECTS`."""
    decoder, found, position = json.JSONDecoder(), [], 0
    for _ in range(MAX_OBJECTS):
        position = text.find("{", position)
        if position < 0:
            break
        try:
            value, position = decoder.raw_decode(text, position)
            found.append(value)
        except (ValueError, RecursionError):
            position += 1
    return found


def _fits(value: dict[str, object], form: type[Form]) -> Form | None:
    try:
        return form.model_validate(value, strict=True)
    except ValidationError:
        return None
