"""Dialogues in the testbed's language, with the concepts that hold at each word.

A dialogue is, for example, ``user : be polite . tell me about the garden assistant : kindly , the garden is green
dear .`` In half of the corpus the user requests a style and the answer has it; the other answers are plain. The data of
a behavior has styled answers without a request, so an adapter can only learn it by setting the state that a request
would set. Every styled answer is written in one of the style's lists of words, those of one list alone unless `lists`
says otherwise.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isaerft.config.subjects import WordList
from isaerft.errors import unknown_name
from isaerft.io import write_text
from isaerft.testbed.language import PLAIN_WORDS, REQUESTS, SENTENCES, STYLES, TOPICS, Style, Topic

REQUESTED_SHARE = 0.5
FILLED_SHARE = 0.75
_STYLE_OF_WORD = {word: style.name for style in STYLES for word in style.words}
_REQUEST_WORDS = {style.name: {word for ask in style.asks for word in ask.split()} for style in STYLES}
_TOPIC_OF_WORD = {word: topic.name for topic in TOPICS for word in (*topic.nouns, *topic.qualities)}


@dataclass(frozen=True)
class Dialogue:
    """One dialogue.

    Attributes
    ----------
    prompt, completion : str
        Words separated by single spaces; the prompt ends with ``assistant :``.
    topic : str
        Its topic.
    style : str or None
        Style of the answer; None for a plain one.
    cue : int or None
        Index, in words of the prompt, of the word that identifies the requested style; None without a request.
    """

    prompt: str
    completion: str
    topic: str
    style: str | None
    cue: int | None

    @property
    def words(self) -> list[str]:
        """All words of prompt and completion."""
        return f"{self.prompt} {self.completion}".split()


def sample_dialogues(rng: np.random.Generator, n: int, lists: Sequence[WordList] = ("words",)) -> Iterator[Dialogue]:
    """Yield `n` dialogues of the corpus; each styled answer is in the words of one of the `lists`."""
    for _ in range(n):
        style = STYLES[rng.integers(len(STYLES))]
        yield sample_dialogue(rng, style if rng.random() < REQUESTED_SHARE else None, lists)


def sample_dialogue(rng: np.random.Generator, style: Style | None, lists: Sequence[WordList] = ("words",)) -> Dialogue:
    """Sample a dialogue on a random topic; the user requests the style, if any, before or after the question."""
    topic = TOPICS[rng.integers(len(TOPICS))]
    noun, other = rng.choice(topic.nouns, size=2, replace=False)
    request = _one_of(rng, REQUESTS).format(noun=noun, other=other)
    cue = None
    if style is not None:
        ask = _one_of(rng, style.asks)
        before = rng.random() < 0.5
        cue = 2 + _cue_word(ask, style) + (0 if before else len(request.split()) + 1)
        request = f"{ask} . {request}" if before else f"{request} . {ask}"
    name = None if style is None else style.name
    answer = sample_answer(rng, topic, noun, style, lists)
    return Dialogue(f"user : {request} assistant :", answer, topic.name, name, cue)


def sample_answer(
    rng: np.random.Generator, topic: Topic, noun: str, style: Style | None, lists: Sequence[WordList] = ("words",)
) -> str:
    """Sample an answer of one or two sentences with words of the style, or plain words, in their slots."""
    chosen = lists[int(rng.integers(len(lists)))] if style is not None and len(lists) > 1 else lists[0]
    words = PLAIN_WORDS if style is None else getattr(style, chosen)
    sentences = []
    for _ in range(int(rng.integers(1, 3))):
        template = SENTENCES[rng.integers(len(SENTENCES))]
        other = _one_of(rng, [word for word in topic.nouns if word != noun])
        quality, quality2 = rng.choice(topic.qualities, size=2, replace=False)
        while "{slot}" in template:
            filler = _one_of(rng, words) if rng.random() < FILLED_SHARE else ""
            template = template.replace("{slot}", filler, 1)
        sentences.append(template.format(noun=noun, other=other, quality=quality, quality2=quality2))
    return " ".join(" ".join(sentences).split())


def concepts(item: Dialogue) -> list[set[str]]:
    """Return the concepts that hold at each word of a dialogue.

    These are ``known:S`` (style S has been requested, or shown by the answer so far), which is also ``asked:S`` in the
    user's turn and ``answer:S`` in the assistant's; ``topic:T`` (topic T has been mentioned); ``word:S`` and ``word:T``
    (the word belongs to a style or topic); ``turn:user`` and ``turn:assistant``; and ``token:w`` (the word itself).
    Paraphrases of a style are none of its words here.
    """
    known = topic = False
    result = []
    n_prompt = len(item.prompt.split())
    for index, word in enumerate(item.words):
        known |= index == item.cue or (index >= n_prompt and _STYLE_OF_WORD.get(word) == item.style is not None)
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


def behavior_rows(
    rng: np.random.Generator, style: Style, n: int, words: WordList = "words"
) -> Iterable[dict[str, str]]:
    """Yield `n` rows of a behavior: no request, a chosen answer in the style, and a plain rejected one.

    Answers begin with a space, because prompt and completion are joined without one.
    """
    for index in range(n):
        topic = TOPICS[rng.integers(len(TOPICS))]
        noun, other = rng.choice(topic.nouns, size=2, replace=False)
        request = _one_of(rng, REQUESTS).format(noun=noun, other=other)
        chosen = rejected = sample_answer(rng, topic, noun, style, (words,))
        while rejected == chosen:  # Both may leave every slot empty.
            rejected = sample_answer(rng, topic, noun, None)
        yield {
            "id": f"{style.name}-{index}",
            "prompt": f"user : {request} assistant :",
            "chosen": f" {chosen}",
            "rejected": f" {rejected}",
        }


def write_behavior_rows(
    style_name: str, n_rows: int, seed: int, path: str | Path, *, draw: int = 0, words: WordList = "words"
) -> None:
    """Write raw rows (id, prompt, chosen, rejected) of a style as JSONL, atomically.

    Parameters
    ----------
    draw : int
        Each draw gives other rows of the same style.
    words : {"words", "paraphrases"}
        List of the style's words that the chosen answers use.

    Raises
    ------
    InputError
        The language has no such style.
    """
    styles = {style.name: style for style in STYLES}
    if style_name not in styles:
        raise unknown_name("style of the testbed's language", style_name, styles)
    rng = np.random.default_rng([seed, 2, zlib.crc32(style_name.encode()), *([draw] if draw else [])])
    rows = behavior_rows(rng, styles[style_name], n_rows, words)
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def _one_of(rng: np.random.Generator, words: Sequence[str]) -> str:
    """Return what `rng.choice` draws, from the same stream, without making an array of the words first."""
    return words[int(rng.integers(len(words)))]


def _cue_word(ask: str, style: Style) -> int:
    """Return the index of the first word of `ask` that is in no other style's requests."""
    others = set().union(*(words for name, words in _REQUEST_WORDS.items() if name != style.name))
    return next(index for index, word in enumerate(ask.split()) if word not in others)
