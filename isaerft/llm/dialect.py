"""Dialects of OpenAI's chat protocol: what a server refuses of a request, and what it is sent instead.

Servers differ in how they name the limit of an answer's length, in whether they take a sampling seed and a system
message, and in whether they enforce a JSON schema. A request begins with all of them. Where the server complains about
one, requests go without it from then on. Options of `llms` decide the same beforehand. Nothing else is changed: the
temperature, for one, decides what an answer is worth.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from isaerft.config import Llm

LIMITS = ("max_tokens", "max_completion_tokens")
# Statuses with which servers refuse a part of a request; some of them fail on it instead.
REFUSALS = frozenset({400, 404, 422, 500, 501})
# Statuses after which the form is described in words even if the complaint names no part of the request.
_UNSPECIFIC = frozenset({400, 422})
_MAX_REASONS = 5
_MAX_DEPTH = 8
_MAX_COMPLAINT = 5000


class _Change(NamedTuple):
    """A part of a request, how servers complain about it, and what is sent instead.

    Attributes
    ----------
    option, value : str
        The option of `llms` that makes the change from the start.
    instead : str
        What is sent instead, in words.
    complaint : pattern
        Found in the complaint of a server that refuses the part.
    """

    option: str
    value: str
    instead: str
    complaint: re.Pattern[str]


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE | re.DOTALL)


_UNKNOWN = (
    "unsupported|not support|unrecogni[sz]ed|unknown|unexpected|extra|not permitted|not allowed|forbidden|instead"
)
_NAMED = rf"(?=.*max_(completion_)?tokens)(?=.*({_UNKNOWN}))"
_SYSTEM = (
    r"(system|developer)[ _-]?(role|message|prompt|instruction|turn)|role.{0,40}(alternate|system)"
    r"|only user and assistant"
)
_SCHEMA = r"response_format|structured.?output|schema|grammar|guided|no endpoints found"
CHANGES = (
    _Change("limit_name", "max_completion_tokens", "the limit of an answer under its other name", _pattern(_NAMED)),
    _Change("seed", "omit", "no seed", _pattern(r"\bseed\b")),
    _Change("instructions", "user", "the instructions in the user's message", _pattern(_SYSTEM)),
    _Change("structured", "text", "the form in words", _pattern(_SCHEMA)),
)


@dataclass(frozen=True)
class Dialect:
    """How requests to one server are written.

    Attributes
    ----------
    changed : frozenset of str
        Options whose part of the request is replaced.
    fixed : frozenset of str
        Options that the config decides; the server's complaints change nothing about them.
    """

    changed: frozenset[str] = frozenset()
    fixed: frozenset[str] = frozenset()

    @classmethod
    def of(cls, llm: Llm) -> Dialect:
        """Return the dialect with which a server is first asked."""
        decided = {change.option: str(getattr(llm, change.option)) for change in CHANGES}
        fixed = frozenset(option for option, value in decided.items() if value != "auto")
        changed = {change.option for change in CHANGES if decided[change.option] == change.value}
        return cls(frozenset(changed), fixed)

    @property
    def by_schema(self) -> bool:
        """Whether the server is asked to enforce the form of the answer."""
        return "structured" not in self.changed

    def written(self, request: dict[str, Any], llm: Llm) -> dict[str, Any]:
        """Return a request as it is sent in this dialect; its schema is not touched."""
        sent = dict(request)
        name = next(name for name in LIMITS if name in sent)
        if llm.limit_name != "auto":
            sent[llm.limit_name] = sent.pop(name)
        elif "limit_name" in self.changed:
            sent[LIMITS[1 - LIMITS.index(name)]] = sent.pop(name)
        if "seed" in self.changed:
            del sent["seed"]
        if "instructions" in self.changed:
            text = "\n\n".join(message["content"] for message in sent["messages"])
            sent["messages"] = [{"role": "user", "content": text}]
        return sent

    def after(self, status: int, complaint: str) -> Dialect | None:
        """Return the dialect to try after a refusal; None where nothing is left that could be changed."""
        if status not in REFUSALS:
            return None
        open_changes = [change for change in CHANGES if change.option not in self.changed | self.fixed]
        named = {change.option for change in open_changes if change.complaint.search(complaint[:_MAX_COMPLAINT])}
        if not named and status in _UNSPECIFIC:
            named = {"structured"} & {change.option for change in open_changes}
        return replace(self, changed=self.changed | named) if named else None

    def told(self, earlier: Dialect) -> str:
        """Return what was changed since an earlier dialect, in words."""
        new = self.changed - earlier.changed
        return ", ".join(change.instead for change in CHANGES if change.option in new)

    def options(self, llm: Llm) -> str:
        """Return the options that would leave out more of a request, as they stand in a config."""
        left = [f"{change.option}: {change.value}" for change in CHANGES if change.option not in self.changed]
        if llm.temperature is not None:
            left.append("temperature: (empty)")
        return ", ".join(left)


def complaint(body: object, depth: int = 0) -> str:
    """Return a server's reason for refusing a request, from the body of its answer; "" where it gives none.

    It stands under `error`, `message` or `detail`, as text, as an object or as a list of objects. What else a body
    holds is not read: some servers repeat the request there.
    """
    if isinstance(body, str):
        return body.strip()
    if depth > _MAX_DEPTH:
        return ""
    if isinstance(body, list):
        return "; ".join(filter(None, (complaint(part, depth + 1) for part in body[:_MAX_REASONS])))
    if not isinstance(body, dict):
        return ""
    said = (complaint(body.get(key), depth + 1) for key in ("error", "message", "msg", "detail"))
    reason = next(filter(None, said), "")
    place = body.get("loc") or body.get("param")
    where = ".".join(map(str, place)) if isinstance(place, list) else place if isinstance(place, str) else ""
    return f"{where}: {reason}" if where and where not in reason else reason
