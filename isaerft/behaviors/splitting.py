"""Which rows are held out: fixed by a hash of the normalised prompt, so that no prompt straddles the split."""

from __future__ import annotations

import hashlib
import unicodedata

from isaerft.behaviors.records import Message, prompt_messages


def is_heldout(prompt: str | list[Message], heldout_fraction: float) -> bool:
    """Tell from the prompt alone whether its rows are held out (letter case and white space make no difference)."""
    messages = prompt_messages(prompt)
    texts = [message["content"] for message in messages]
    if len(messages) > 1:
        texts = [f"{message['role']}: {message['content']}" for message in messages]
    normal = " ".join(unicodedata.normalize("NFKC", "\n".join(texts)).casefold().split())
    return stable_hash(normal) / 2**64 < heldout_fraction


def stable_hash(text: str) -> int:
    """Return a 64-bit hash that is the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
