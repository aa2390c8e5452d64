"""Credentials: found in what is about to leave this machine, and hidden in what is told.

Two kinds are known: values of environment variables that are named like secrets, and texts in the form that services
give their keys.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

HIDDEN = "***"
# Shorter values would be found everywhere.
MIN_LENGTH = 8
_NAMES = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
_IN_ADDRESS = re.compile(rb"\w://[^\s/:@]*:([^\s/@]{3,})@")
_FORMS = {
    "a Hugging Face token": rb"\bhf_[A-Za-z0-9]{30,}\b",
    "a key of OpenAI or a service like it": rb"\bsk-[A-Za-z0-9_-]{20,}",
    "a GitHub token": rb"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,})\b",
    "an AWS key": rb"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "a Google key": rb"\bAIza[A-Za-z0-9_-]{35}\b",
    "a Slack token": rb"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    "a private key": rb"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a password in an address": _IN_ADDRESS.pattern,
}
_COMPILED = {name: re.compile(pattern) for name, pattern in _FORMS.items()}


def found_in(content: bytes) -> list[str]:
    """Return what credentials a file's content holds, in words; no word repeats one."""
    own = [f"the value of {name}" for name, value in _own_secrets() if value.encode() in content]
    return own + [name for name, pattern in _COMPILED.items() if pattern.search(content)]


def hidden(text: str) -> str:
    """Return text with every credential in it replaced by `HIDDEN`."""
    for _, value in _own_secrets():
        text = text.replace(value, HIDDEN)
    content = _IN_ADDRESS.sub(
        lambda match: match[0].replace(match[1], HIDDEN.encode()), text.encode("utf-8", "replace")
    )
    for pattern in _COMPILED.values():
        if pattern.pattern != _IN_ADDRESS.pattern:
            content = pattern.sub(HIDDEN.encode(), content)
    return content.decode()


def _own_secrets() -> Iterator[tuple[str, str]]:
    """Yield the environment variables that are named like secrets, the longest values first."""
    named = [(name, value.strip()) for name, value in os.environ.items() if _NAMES.search(name)]
    yield from sorted((pair for pair in named if len(pair[1]) >= MIN_LENGTH), key=lambda pair: -len(pair[1]))
