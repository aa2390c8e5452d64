"""How the truth about a latent is worded.

An explanation is a sentence frame around a noun phrase that names the concept, such as ``in most contexts, fires on a
refusing answer in progress``. Both are drawn for each latent and side by a hash, never by the concept. All concepts
share the frames, and the noun phrases of every kind of concept come in three lengths that are alike between kinds. So
neither length nor frame says what kind of concept an explanation names, and a wrong explanation that gets the concept
of another latent keeps its own wording.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache

from isaerft.testbed.language import ADJECTIVES, BOTH, GROUPS, STATES

FRAMES = (
    "{does} {concept}",
    "mostly {does} {concept}",
    "{does} {concept}, by all examples",
    "a latent that {does} {concept}",
    "in most contexts, {does} {concept}",
    "as far as examples show, {does} {concept}",
    "{does} {concept}, with few exceptions",
    "this latent {does} {concept}, whatever the context",
)
NOUN_PHRASES = {
    "answer": (
        "{a_style} answer in progress",
        "all that is said within {a_style} answer",
        "each word of the assistant as it gives {a_style} answer",
    ),
    "known": (
        "{a_style} answer that is due",
        "words said where {a_style} answer is due",
        "each word that is spoken once {a_style} answer is due",
    ),
    "asked": (
        "a request for {a_style} answer",
        "words of users who want {a_style} answer",
        "what the user says from asking for {a_style} answer on",
    ),
    "answer+": (
        "{a_style} answer now",
        "all said within {a_style} answer",
        "each word uttered as it gives {a_style} answer",
    ),
    "known+": (
        "{a_style} answer due",
        "words where {a_style} answer is due",
        "each word said once {a_style} answer is due",
    ),
    "asked+": (
        "request: {a_style} answer",
        "users who want {a_style} answer",
        "all said from asking for {a_style} answer on",
    ),
    "topic": (
        "the whole of talks about {name}",
        "all words in a whole talk about {name}",
        "all that is said from the earliest mention of {name} on",
    ),
    "turn": (
        "all words that the {name} says",
        "what the {name} says from start to end",
        "each word from the {name}, no matter what it is about",
    ),
    "token": (
        'the single word "{name}" itself',
        'the word "{name}", no matter who says it',
        'each place where it says "{name}", no matter who says it',
    ),
    "word": (
        "{group} words, such as {first}",
        "the {group} words, such as {first} and {second}",
        "words of the {group} kind, such as {first}, {second} and {third}",
    ),
    "none": (
        "nothing more than any other",
        "one group of words like every other group",
        "no word in particular, whichever group of words it is of",
    ),
}
"""Kind of concept -> its noun phrases, from short to long; what a latent promotes is a group of words (or none).
The states of two styles at once have shorter phrases, which make up for the second adjective."""
N_LENGTHS = 3
N_WORDINGS = len(FRAMES) * N_LENGTHS
EXAMPLE_LENGTH = 6
"""Mean length of the group's name and of each example, in characters, near which examples are chosen."""


def wordings(latents: Iterable[int], side: str, seed: int) -> list[int]:
    """Return the wording of each latent's explanation on a side, from 0 to `N_WORDINGS` - 1, by a hash of all three."""
    return [hashed(f"{seed}/{side}/{int(latent)}", N_WORDINGS) for latent in latents]


def hashed(key: str, n: int) -> int:
    """Return a number from 0 to `n` - 1, by a hash of the key."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % n


def true_explanation(concept: str, wording: int = 0) -> str:
    """Return the explanation of a latent with this concept in one of `N_WORDINGS` wordings."""
    frame, length = divmod(wording, N_LENGTHS)
    return in_frame(concept, noun_phrases(concept)[length], frame)


def in_frame(concept: str, phrase: str, frame: int) -> str:
    """Return an explanation in one of the `FRAMES` from a phrase that names a concept."""
    does = "promotes" if concept.startswith("promotes:") else "fires on"
    return FRAMES[frame].format(does=does, concept=phrase)


@cache
def noun_phrases(concept: str) -> tuple[str, ...]:
    """Return the noun phrases that name a concept, from short to long."""
    kind, _, name = concept.partition(":")
    if kind == "promotes":
        kind = "none" if name == "none" else "word"
    fields = {"name": name}
    if kind == "word":
        group = ADJECTIVES.get(name, name.removesuffix("s"))
        fields |= {"group": group} | _examples(name, len(group))
    elif kind in STATES:
        adjective = "-".join(ADJECTIVES[style] for style in name.split(BOTH))
        fields["a_style"] = f"{'an' if adjective[0] in 'aeiou' else 'a'} {adjective}"
    phrases = NOUN_PHRASES[kind + BOTH if BOTH in name and kind in STATES else kind]
    return tuple(phrase.format(**fields) for phrase in phrases)


def _examples(group: str, length: int) -> dict[str, str]:
    """Return three words of a group, such that its name of this length and they are about as long as any other's."""
    words = [word for word in GROUPS[group] if word.isalpha() and word != group]
    chosen: dict[str, str] = {}
    for number, place in enumerate(("first", "second", "third"), 2):
        wanted = number * EXAMPLE_LENGTH - length
        # The first of the list that is right to a letter, or else the nearest.
        chosen[place] = min(words, key=lambda word: max(1, abs(len(word) - wanted)))
        words.remove(chosen[place])
        length += len(chosen[place])
    return chosen
