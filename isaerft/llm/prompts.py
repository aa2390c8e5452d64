"""Prompts and replies: the request to a server, its digest, and the answer in a reply.

A prompt asks for an answer of a fixed form. A reply is text from outside; it becomes data only through `parsed`, and
whatever does not fit the form is a `Failure`, which is counted and never taken for an answer.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from isaerft.config import Llm

MAX_CONTENT = 200_000
MAX_BRACES = 500
# Other servers know only the older name of this parameter; OpenAI's newer models know only the newer one.
_NEWER_NAME = "api.openai.com"
# What failures mean, for those who count them.
ASK_AGAIN = "failed replies are asked for again when this is run again (snakemake --forcerun RULE)"
NO_ANSWER = f"its answers do not have the required form: try another model, or another `structured`; {ASK_AGAIN}"
Form = TypeVar("Form", bound=BaseModel)


@dataclass(frozen=True)
class Prompt:
    """One prompt to a language model.

    Attributes
    ----------
    system, user : str
        The two messages: the instructions, and the data that they apply to.
    form : type of BaseModel
        Form of the answer; every field is required, and unknown ones are forbidden.
    answer_tokens : int
        Longest answer that the form can need, in tokens.
    seed : int
        Sampling seed, for servers that have one.
    code : (str, str)
        A field of the form, and the code that it must repeat, so that an answer about another text does not count.
    """

    system: str
    user: str
    form: type[BaseModel]
    answer_tokens: int
    seed: int
    code: tuple[str, str] | None = None

    def request(self, llm: Llm, *, by_schema: bool) -> dict[str, Any]:
        """Return the JSON of a request; the form is enforced by the server (`by_schema`) or described in words."""
        schema = _schema(self.form)
        system = self.system
        if not by_schema:
            system += (
                "\n\nAnswer with one JSON object and nothing around it, in the form of this JSON schema:\n"
                + json.dumps(schema, sort_keys=True)
            )
        limit = "max_completion_tokens" if urlsplit(llm.base_url).hostname == _NEWER_NAME else "max_tokens"
        request: dict[str, Any] = {
            "model": llm.model,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": self.user}],
            "seed": self.seed,
            limit: llm.answer_tokens or self.answer_tokens,
        }
        if llm.temperature is not None:
            request["temperature"] = float(llm.temperature)
        if by_schema:
            json_schema = {"name": self.form.__name__, "schema": schema, "strict": True}
            request["response_format"] = {"type": "json_schema", "json_schema": json_schema}
        return request

    def requests(self, llm: Llm) -> list[dict[str, Any]]:
        """Return the requests that may be sent for this prompt, the preferred one first."""
        by_schema = {"json_schema": (True,), "text": (False,), "auto": (True, False)}[llm.structured]
        return [self.request(llm, by_schema=choice) for choice in by_schema]

    def answer(self, reply: Reply) -> BaseModel | Failure:
        """Return the answer in a reply; one that repeats another code is the `Failure` "of_another"."""
        answer = parsed(reply, self.form)
        if isinstance(answer, Failure) or self.code is None or getattr(answer, self.code[0]) == self.code[1]:
            return answer
        return Failure("of_another")

    def is_answered_by(self, reply: Reply) -> bool:
        """Tell whether a reply holds an answer."""
        return not isinstance(self.answer(reply), Failure)


@dataclass(frozen=True)
class Reply:
    """A language model's reply as it came: text from outside.

    Attributes
    ----------
    content, refusal : str
        The answer, and the refusal given instead of it.
    finish_reason : str
        Why the model stopped, in the server's words: "stop", "length", "content_filter", ...
    prompt_tokens, completion_tokens : int
        As the server counted them; 0 where it does not.
    """

    content: str
    refusal: str = ""
    finish_reason: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class Failure:
    """Why a reply holds no answer: "refused", "truncated", "empty", "no_json", "wrong_form" or "of_another"."""

    reason: str


def parsed(reply: Reply, form: type[Form]) -> Form | Failure:
    """Return the answer in a reply, or a `Failure` where nothing fits the form completely.

    A server without structured outputs may wrap the object in words, in a code fence, or in a model's thoughts. What
    comes before a closing `</think>` is not read. Of several objects that fit, the last is the answer: models write
    drafts before it.
    """
    if reply.refusal or reply.finish_reason == "content_filter":
        return Failure("refused")
    if reply.finish_reason == "length" or len(reply.content) >= MAX_CONTENT:
        return Failure("truncated")
    if not reply.content.strip():
        return Failure("empty")
    objects = _objects(reply.content.rpartition("</think>")[2])
    if not objects:
        return Failure("no_json")
    fitting = (fitted for value in reversed(objects) if (fitted := _fitted(value, form)) is not None)
    return next(fitting, Failure("wrong_form"))


def marker_of(text: str) -> str:
    """Return the code that delimits a text in a prompt: made of the text's own digest, so the text cannot hold it."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]


def between_markers(line: str, marker: str) -> str:
    """Return a line of other people's text, quoted as JSON, as a block that nothing in it can close."""
    return f"--- begin {marker} ---\n{line}\n--- end {marker} ---"


def canonical(request: dict[str, Any]) -> str:
    """Return the one spelling of a request as JSON: sorted keys, ASCII, no spaces."""
    return json.dumps(request, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(request: dict[str, Any]) -> str:
    """Return the SHA-256 of a request, the cache key of its reply. It covers neither server nor API key."""
    return hashlib.sha256(canonical(request).encode("ascii")).hexdigest()


@cache
def _schema(form: type[BaseModel]) -> dict[str, Any]:
    return form.model_json_schema()


def _objects(text: str) -> list[dict[str, object]]:
    """Return the consecutive JSON objects in a text that the first `MAX_BRACES` braces outside of them begin."""
    decoder, found, position = json.JSONDecoder(), [], 0
    for _ in range(MAX_BRACES):
        position = text.find("{", position)
        if position < 0:
            break
        try:
            value, position = decoder.raw_decode(text, position)
            found.append(value)
        except (ValueError, RecursionError):
            position += 1
    return found


def _fitted(value: dict[str, object], form: type[Form]) -> Form | None:
    try:
        return form.model_validate(value, strict=True)
    except ValidationError:
        return None
