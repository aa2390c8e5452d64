"""What is sent to a language model, and the digest by which its answer is kept."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel

from isaerft.config import Llm

# Servers of other makers know only the older name of this parameter; OpenAI's newer models only the newer.
_NEWER_NAME = "api.openai.com"


@dataclass(frozen=True)
class Prompt:
    """One question to a language model.

    Attributes
    ----------
    system, user : str
        The two messages: what is asked for, and the data that it is asked of.
    form : type of BaseModel
        Form of the answer; every field required, unknown ones forbidden.
    answer_tokens : int
        Longest answer that the form can need, in tokens.
    seed : int
        Sampling seed, for servers that have one.
    """

    system: str
    user: str
    form: type[BaseModel]
    answer_tokens: int
    seed: int

    def body(self, llm: Llm, *, by_schema: bool) -> dict[str, Any]:
        """Return the request's JSON body; the form is asked of the server (`by_schema`) or of the model, in words."""
        schema = _schema(self.form)
        system = self.system
        if not by_schema:
            system += (
                "\n\nAnswer with one JSON object and nothing around it, in the form of this JSON schema:\n"
                + json.dumps(schema, sort_keys=True)
            )
        limit = "max_completion_tokens" if urlsplit(llm.base_url).hostname == _NEWER_NAME else "max_tokens"
        body: dict[str, Any] = {
            "model": llm.model,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": self.user}],
            "seed": self.seed,
            limit: llm.answer_tokens or self.answer_tokens,
        }
        if llm.temperature is not None:
            body["temperature"] = float(llm.temperature)
        if by_schema:
            json_schema = {"name": self.form.__name__, "schema": schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": json_schema}
        return body

    def bodies(self, llm: Llm) -> list[dict[str, Any]]:
        """Return the bodies that may be sent for this prompt, the preferred one first."""
        ways = {"json_schema": (True,), "text": (False,), "auto": (True, False)}[llm.structured]
        return [self.body(llm, by_schema=way) for way in ways]


@cache
def _schema(form: type[BaseModel]) -> dict[str, Any]:
    return form.model_json_schema()


def marker_of(text: str) -> str:
    """Return the code that delimits a text in a prompt: made of the text's own digest, so the text cannot hold it."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:12]


def between_markers(line: str, marker: str) -> str:
    """Return a line of other people's text, quoted as JSON, as a block that nothing in it can close."""
    return f"--- begin {marker} ---\n{line}\n--- end {marker} ---"


def canonical(body: dict[str, Any]) -> str:
    """Return a body as JSON that has one spelling: sorted keys, ASCII, no spaces."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(body: dict[str, Any]) -> str:
    """Return the SHA-256 of a body: the address of its answer. Neither server nor key is in it."""
    return hashlib.sha256(canonical(body).encode("ascii")).hexdigest()
