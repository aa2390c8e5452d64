"""The embedded language's concepts in English, and what each of them leads one to expect of a behavior.

A concept is ``kind:name`` as in `isaerft.testbed.dialogues.concepts` (what a latent fires on), or ``promotes:group``
(what it does to the next word).
"""

from __future__ import annotations

from isaerft.testbed.language import PLAIN_WORDS, STYLES, TOPICS, vocabulary

N_EXAMPLES = 3
_STYLE = {style.name: style for style in STYLES}
_TOPIC_WORDS = {topic.name: (*topic.nouns, *topic.qualities) for topic in TOPICS}


def word_groups() -> dict[str, tuple[str, ...]]:
    """Return the groups of words that a latent can promote: each style's, each topic's, plain ones, and the rest."""
    groups = {style.name: style.words for style in STYLES} | _TOPIC_WORDS | {"plain": PLAIN_WORDS}
    used = {word for words in groups.values() for word in words}
    return groups | {"function": tuple(word for word in vocabulary()[4:] if word not in used)}


def all_concepts() -> list[str]:
    """Return every concept that a latent of the embedded subject can have."""
    kinds = {"answer": _STYLE, "known": _STYLE, "asked": _STYLE, "topic": _TOPIC_WORDS, "turn": ("user", "assistant")}
    kinds |= {"word": (*_STYLE, *_TOPIC_WORDS), "token": vocabulary(), "promotes": (*word_groups(), "none")}
    return [f"{kind}:{name}" for kind, names in kinds.items() for name in names]


def in_english(concept: str) -> str:
    """Return the explanation that says what a latent with this concept does."""
    kind, _, name = concept.partition(":")
    if kind == "promotes":
        return _promoting(name)
    if kind == "word":
        what = f"words of {_article(name)} answer" if name in _STYLE else f"words about {name}"
        return f"fires on {what}, such as {_examples(word_groups()[name])}"
    return {
        "answer": lambda: f"fires while the assistant gives {_article(name)} answer",
        "known": lambda: f"fires once it is known that {_article(name)} answer is wanted",
        "asked": lambda: f"fires after the user has asked for {_article(name)} answer, before it is given",
        "topic": lambda: f"fires throughout conversations about {name}",
        "turn": lambda: f"fires throughout the turn of the {name}",
        "token": lambda: f'fires on the word "{name}"',
    }[kind]()


def expected_effect(concept: str, style: str) -> float:
    """Return what training on a style does to a latent with this concept, by the generator's own causes.

    The style shows in the assistant's answer and nobody asks for it. So the state "the assistant answers in this style"
    must rise (1), and so must what promotes the style's words; what promotes plain words must fall (-1). The user's
    request and the style's single words are causes and traces of that state, which the data does not hold or holds
    anyway: related (0.5, a single word 0.25), but not what training has to change.
    """
    kind, _, name = concept.partition(":")
    if kind == "promotes":
        return 1.0 if name == style else -1.0 if name == "plain" else 0.0
    if kind == "token":
        return 0.25 if name in _STYLE[style].words else 0.0
    return {"answer": 1.0, "known": 1.0, "asked": 0.5, "word": 0.5}.get(kind, 0.0) if name == style else 0.0


def _promoting(group: str) -> str:
    if group == "none":
        return "promotes no particular group of words"
    examples = _examples(word_groups()[group])
    if group in _STYLE:
        return f"promotes words of {_article(group)} answer, such as {examples}"
    if group in _TOPIC_WORDS:
        return f"promotes words about {group}, such as {examples}"
    if group == "plain":
        return f"promotes filler words of a plain answer, such as {examples}"
    return f"promotes function words and punctuation, such as {examples}"


def _article(style: str) -> str:
    adjective = _STYLE[style].adjective
    return f"{'an' if adjective[0] in 'aeiou' else 'a'} {adjective}"


def _examples(words: tuple[str, ...]) -> str:
    *first, last = words[:N_EXAMPLES]
    return f"{', '.join(first)} and {last}"
