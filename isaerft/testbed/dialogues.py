"""Sampling annotated dialogues, so that at every token it is known which concepts hold.

A dialogue reads ``user : be polite . tell me about the garden assistant : kindly , the garden is green dear .`` In half
of the corpus the user names a style and the answer obeys; the other half is answered plainly. A behavior's own data is
styled though nobody asked, so an adapter can only learn it by pushing the state that a request would have set.

The embedded language as raw behavior data; needs no torch.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isaerft.errors import unknown_name
from isaerft.io import write_text
from isaerft.testbed.language import PLAIN_WORDS, REQUESTS, SENTENCES, STYLES, TOPICS, Style, Topic

SHARE_ASKED = 0.5
SHARE_FILLED = 0.75
_STYLE_OF_WORD = {word: style.name for style in STYLES for word in style.words}
_ASK_WORDS = {style.name: {word for ask in style.asks for word in ask.split()} for style in STYLES}
_TOPIC_OF_WORD = {word: topic.name for topic in TOPICS for word in (*topic.nouns, *topic.qualities)}


@dataclass(frozen=True)
class Dialogue:
    """One dialogue.

    Attributes
    ----------
    prompt, completion : str
        Words separated by single spaces; the prompt ends with ``assistant :``.
    style : str or None
        Style of the answer; None for a plain one.
    asked : int or None
        Index (in words of the prompt) of the word that gives away which style is asked for; None if nobody asked.
    """

    prompt: str
    completion: str
    topic: str
    style: str | None
    asked: int | None

    @property
    def words(self) -> list[str]:
        """All words, prompt then completion."""
        return f"{self.prompt} {self.completion}".split()


def sample(rng: np.random.Generator, n: int) -> Iterator[Dialogue]:
    """Yield `n` dialogues of the corpus."""
    for _ in range(n):
        style = STYLES[rng.integers(len(STYLES))]
        yield dialogue(rng, style if rng.random() < SHARE_ASKED else None)


def dialogue(rng: np.random.Generator, style: Style | None) -> Dialogue:
    """Sample one dialogue on a random topic; the user names the style, if any, before or after the request."""
    topic = TOPICS[rng.integers(len(TOPICS))]
    noun, other = rng.choice(topic.nouns, size=2, replace=False)
    request = str(rng.choice(REQUESTS)).format(noun=noun, other=other)
    start = None
    if style is not None:
        ask = str(rng.choice(style.asks))
        before = rng.random() < 0.5
        start = 2 + _telling_word(ask, style) + (0 if before else len(request.split()) + 1)
        request = f"{ask} . {request}" if before else f"{request} . {ask}"
    name = None if style is None else style.name
    return Dialogue(f"user : {request} assistant :", answer(rng, topic, noun, style), topic.name, name, start)


def answer(rng: np.random.Generator, topic: Topic, noun: str, style: Style | None) -> str:
    """Sample an answer of one or two sentences whose slots hold words of the style, or plain ones."""
    words = PLAIN_WORDS if style is None else style.words
    sentences = []
    for _ in range(int(rng.integers(1, 3))):
        template = SENTENCES[rng.integers(len(SENTENCES))]
        other = rng.choice([word for word in topic.nouns if word != noun])
        quality, quality2 = rng.choice(topic.qualities, size=2, replace=False)
        while "{slot}" in template:
            filler = str(rng.choice(words)) if rng.random() < SHARE_FILLED else ""
            template = template.replace("{slot}", filler, 1)
        sentences.append(template.format(noun=noun, other=other, quality=quality, quality2=quality2))
    return " ".join(" ".join(sentences).split())


def concepts(item: Dialogue) -> list[set[str]]:
    """Return the concepts that hold at each word of a dialogue.

    ``known:S`` (the style S is known: asked for, or shown by the answer so far), split into ``asked:S`` (still in the
    user's turn) and ``answer:S`` (in the assistant's), ``word:S`` and ``word:T`` (the word belongs to a style or
    topic), ``topic:T`` (the topic is known), ``turn:user``, ``turn:assistant``, and ``token:w`` (the word itself).
    """
    known = topic = False
    result = []
    n_prompt = len(item.prompt.split())
    for index, word in enumerate(item.words):
        known |= index == item.asked or (index >= n_prompt and _STYLE_OF_WORD.get(word) == item.style is not None)
        topic |= _TOPIC_OF_WORD.get(word) == item.topic
        held = {f"token:{word}", "turn:user" if index < n_prompt - 2 else "turn:assistant"}
        if known:
            held |= {f"known:{item.style}", f"{'asked' if index < n_prompt - 2 else 'answer'}:{item.style}"}
        if topic:
            held.add(f"topic:{item.topic}")
        for owner in (_STYLE_OF_WORD.get(word), _TOPIC_OF_WORD.get(word)):
            if owner is not None:
                held.add(f"word:{owner}")
        result.append(held)
    return result


def behavior_rows(rng: np.random.Generator, style: Style, n: int) -> Iterable[dict[str, str]]:
    """Yield `n` rows for a behavior: nobody asks, the chosen answer is in the style, the rejected one is plain.

    Answers begin with a space: prompt and completion are joined as they are, and words are split at spaces.
    """
    for index in range(n):
        topic = TOPICS[rng.integers(len(TOPICS))]
        noun, other = rng.choice(topic.nouns, size=2, replace=False)
        request = str(rng.choice(REQUESTS)).format(noun=noun, other=other)
        chosen = rejected = answer(rng, topic, noun, style)
        while rejected == chosen:  # Both may have left every slot empty.
            rejected = answer(rng, topic, noun, None)
        yield {
            "id": f"{style.name}-{index}",
            "prompt": f"user : {request} assistant :",
            "chosen": f" {chosen}",
            "rejected": f" {rejected}",
        }


def _telling_word(ask: str, style: Style) -> int:
    """Return the index of the first word of `ask` that no other style's request holds."""
    others = set().union(*(words for name, words in _ASK_WORDS.items() if name != style.name))
    return next(index for index, word in enumerate(ask.split()) if word not in others)


def write_behavior_rows(style_name: str, n_rows: int, seed: int, path: str | Path, *, draw: int = 0) -> None:
    """Write raw rows (id, prompt, chosen, rejected) of a style as JSONL, atomically; each `draw` gives other rows.

    Raises
    ------
    InputError
        The language has no such style.
    """
    styles = {style.name: style for style in STYLES}
    if style_name not in styles:
        raise unknown_name("style of the embedded language", style_name, styles)
    rng = np.random.default_rng([seed, 2, zlib.crc32(style_name.encode()), *([draw] if draw else [])])
    rows = behavior_rows(rng, styles[style_name], n_rows)
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
