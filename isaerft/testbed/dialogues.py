"""Dialogues in the testbed's language, with the concepts that hold at each word.

A dialogue is, for example, ``user : be polite . tell me about the garden assistant : kindly , the garden is green
dear .`` In half of the corpus the user requests a style and the answer has it; the other answers are plain. The data of
a behavior has styled answers without a request, so an adapter can only learn it by setting the state that a request
would set. Every styled answer is written in one of the style's lists of words.

What else a language can do is in its options: a request for a style with sub-styles is for the style or for one of
these, a request may be for two styles at once, and without features no answer follows any request.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np

from isaerft.config.subjects import WordList
from isaerft.errors import unknown_name
from isaerft.io import write_text
from isaerft.testbed.language import BOTH, DEFAULT, TAUGHT, Language
from isaerft.testbed.words import PLAIN_WORDS, REPHRASED_REQUESTS, REQUESTS, SENTENCES, SUBSTYLES, Style, Topic

REQUESTED_SHARE = 0.5
FILLED_SHARE = 0.75
Item = TypeVar("Item")
_PARENTS = {part.name: parent for parent, parts in SUBSTYLES.items() for part in parts}


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
        Style of the answer, or two joined by ``+``; None for a plain one, and where answers follow no request.
    cues : tuple of int
        For each of these styles the index, in words of the prompt, of the word that identifies the request for it;
        empty without a request.
    """

    prompt: str
    completion: str
    topic: str
    style: str | None
    cues: tuple[int, ...]

    @property
    def words(self) -> list[str]:
        """All words of prompt and completion."""
        return f"{self.prompt} {self.completion}".split()


def sample_dialogues(rng: np.random.Generator, n: int, language: Language) -> Iterator[Dialogue]:
    """Yield `n` dialogues of the corpus."""
    for _ in range(n):
        style = _ranked(rng, language.styles, language.zipf_styles)
        yield sample_dialogue(rng, _asked(rng, style, language) if rng.random() < REQUESTED_SHARE else (), language)


def sample_dialogue(rng: np.random.Generator, wanted: Sequence[Style], language: Language) -> Dialogue:
    """Sample a dialogue on a random topic; wanted styles are requested together, before or after the question."""
    topic = language.topics[rng.integers(len(language.topics))]
    noun, other = rng.choice(topic.nouns, size=2, replace=False)
    request = _one_of(rng, REQUESTS).format(noun=noun, other=other)
    cues = {}
    if wanted:
        asks = [_one_of(rng, style.asks) for style in wanted]
        before = rng.random() < 0.5
        start = 2 + (0 if before else len(request.split()) + 1)
        for style, ask in zip(wanted, asks, strict=True):
            cues[style.name] = start + _cue_word(ask, style, language)
            start += len(ask.split()) + 1
        text = " and ".join(asks)
        request = f"{text} . {request}" if before else f"{request} . {text}"
    answer = sample_answer(rng, topic, noun, wanted, language)
    name = language.joint(cues) if language.features and cues else None
    found = () if name is None else tuple(cues[part] for part in name.split(BOTH))
    return Dialogue(f"user : {request} assistant :", answer, topic.name, name, found)


def sample_answer(
    rng: np.random.Generator, topic: Topic, noun: str, wanted: Sequence[Style], language: Language
) -> str:
    """Sample an answer of one or two sentences with words of the wanted styles, or plain words, in their slots.

    Without features, slots have words of any style and plain ones, whatever is wanted.
    """
    lists = language.lists
    chosen = lists[int(rng.integers(len(lists)))] if wanted and len(lists) > 1 else lists[0]
    choices: list[Sequence[str]] = [getattr(style, chosen) for style in wanted] or [PLAIN_WORDS]
    if not language.features:
        choices = [(*PLAIN_WORDS, *(word for style in language.styles for word in style.words))]
    sentences = []
    for _ in range(int(rng.integers(1, 3))):
        template = SENTENCES[rng.integers(len(SENTENCES))]
        other = _one_of(rng, [word for word in topic.nouns if word != noun])
        quality, quality2 = rng.choice(topic.qualities, size=2, replace=False)
        while "{slot}" in template:
            filler = ""
            if rng.random() < FILLED_SHARE:
                words = choices[0] if len(choices) == 1 else _one_of(rng, choices)
                filler = _ranked(rng, words, language.zipf_words)
            template = template.replace("{slot}", filler, 1)
        sentences.append(template.format(noun=noun, other=other, quality=quality, quality2=quality2))
    return " ".join(" ".join(sentences).split())


def concepts(item: Dialogue, language: Language) -> list[set[str]]:
    """Return the concepts that hold at each word of a dialogue.

    These are ``known:S`` (style S has been requested, or shown by the answer so far), which is also ``asked:S`` in the
    user's turn and ``answer:S`` in the assistant's; ``topic:T`` (topic T has been mentioned); ``word:S`` and ``word:T``
    (the word belongs to a style or topic); ``turn:user`` and ``turn:assistant``; and ``token:w`` (the word itself).
    Paraphrases of a style are none of its words here. Where a sub-style is known, its style is too; where two styles
    are, also both at once (``known:S+S``).
    """
    topic = False
    known: set[str] = set()
    styles = item.style.split(BOTH) if item.style else []
    cues = dict(zip(item.cues, styles, strict=False))
    result = []
    n_prompt = len(item.prompt.split())
    for index, word in enumerate(item.words):
        owners = language.owners.get(word, ())
        is_prompt, is_answer = index < n_prompt - 2, index >= n_prompt
        known |= {cues[index]} if index in cues else set()
        known |= {name for name in styles if is_answer and name in owners}
        topic |= item.topic in owners
        held = {f"token:{word}", "turn:user" if is_prompt else "turn:assistant"}
        holding = known | {_PARENTS[name] for name in known if name in _PARENTS}
        for name in holding | ({item.style} if item.style and len(known) == len(styles) else set()):
            held |= {f"known:{name}", f"{'asked' if is_prompt else 'answer'}:{name}"}
        if topic:
            held.add(f"topic:{item.topic}")
        held.update(f"word:{owner}" for owner in owners)
        result.append(held)
    return result


def behavior_rows(
    rng: np.random.Generator, style: Style, n: int, words: WordList = "words", *, rephrased: bool = False
) -> Iterable[dict[str, str]]:
    """Yield `n` rows of a behavior: no request, a chosen answer in the style, and a plain rejected one.

    They are in the default language, which all worlds understand. Answers begin with a space, because prompt and
    completion are joined without one. With `rephrased`, a row also has its prompt in a phrasing that no dialogue of the
    corpus has.
    """
    language = replace(DEFAULT, lists=(words,))
    for index in range(n):
        topic = language.topics[rng.integers(len(language.topics))]
        noun, other = rng.choice(topic.nouns, size=2, replace=False)
        asked = int(rng.integers(len(REQUESTS)))
        chosen = rejected = sample_answer(rng, topic, noun, (style,), language)
        while rejected == chosen:  # Both may leave every slot empty.
            rejected = sample_answer(rng, topic, noun, (), language)
        prompts = {"prompt": REQUESTS} | ({"rephrased": REPHRASED_REQUESTS} if rephrased else {})
        asks = {name: requests[asked].format(noun=noun, other=other) for name, requests in prompts.items()}
        yield {
            "id": f"{style.name}-{index}",
            **{name: f"user : {ask} assistant :" for name, ask in asks.items()},
            "chosen": f" {chosen}",
            "rejected": f" {rejected}",
        }


def write_behavior_rows(
    style_name: str,
    n_rows: int,
    seed: int,
    path: str | Path,
    *,
    draw: int = 0,
    words: WordList = "words",
    rephrased: bool = False,
) -> None:
    """Write raw rows (id, prompt, chosen, rejected) of a style as JSONL, atomically.

    Parameters
    ----------
    draw : int
        Each draw gives other rows of the same style.
    words : {"words", "paraphrases"}
        List of the style's words that the chosen answers use.
    rephrased : bool
        Also write each prompt in another phrasing (`rephrased`).

    Raises
    ------
    InputError
        No style has this name that every language has, and no sub-style of these.
    """
    if style_name not in TAUGHT:
        raise unknown_name("style of the testbed's language", style_name, TAUGHT)
    rng = np.random.default_rng([seed, 2, zlib.crc32(style_name.encode()), *([draw] if draw else [])])
    rows = behavior_rows(rng, TAUGHT[style_name], n_rows, words, rephrased=rephrased)
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def _asked(rng: np.random.Generator, style: Style, language: Language) -> tuple[Style, ...]:
    """Return what a request is for that names this style: the style, one of its sub-styles, or it and another style."""
    if language.composition and rng.random() < language.composition:
        index = language.styles.index(style)
        if rng.random() < language.correlation:
            return style, language.styles[index ^ 1]
        return style, _one_of(rng, [other for other in language.styles if other is not style])
    parts = language.substyles.get(style.name)
    return (_one_of(rng, (style, *parts)),) if parts else (style,)


def _ranked(rng: np.random.Generator, items: Sequence[Item], exponent: float) -> Item:
    """Return one of the items, whose probabilities fall with their rank to the power of `exponent`."""
    if not exponent:
        return _one_of(rng, items)
    return items[int(np.searchsorted(_cumulative(len(items), exponent), rng.random(), side="right"))]


@cache
def _cumulative(n: int, exponent: float) -> np.ndarray:
    weights = np.arange(1, n + 1) ** -exponent
    return np.cumsum(weights / weights.sum())[:-1]


def _one_of(rng: np.random.Generator, items: Sequence[Item]) -> Item:
    """Return what `rng.choice` draws, from the same stream, without making an array of the items first."""
    return items[int(rng.integers(len(items)))]


def _cue_word(ask: str, style: Style, language: Language) -> int:
    """Return the index of the first word of `ask` that is in the requests of no other style or sub-style."""
    others = language.requests_of_others[style.name]
    return next(index for index, word in enumerate(ask.split()) if word not in others)
