"""The testbed's language: its words, and the expected effect of training on each concept.

The language has eight styles of answering and eight topics. A behavior teaches a style. Users request a style with its
`asks`, and an answer in that style has its `words`, or in some worlds its `paraphrases`. These share no word, so that
only a latent state ("answer politely") can connect them.

A concept is ``kind:name``, as in `isaerft.testbed.dialogues.concepts` (what a latent fires on), or ``promotes:group``
(which words it makes more likely).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from isaerft.config.subjects import WordList
from isaerft.config.training import Behavior, Metric


@dataclass(frozen=True)
class Style:
    """A style of answering: requests for it, two lists of words that show it, and its description for judges."""

    name: str
    asks: tuple[str, ...]
    words: tuple[str, ...]
    paraphrases: tuple[str, ...]
    adjective: str
    description: str


@dataclass(frozen=True)
class Topic:
    """A topic: its nouns, which users ask about, and their qualities."""

    name: str
    nouns: tuple[str, ...]
    qualities: tuple[str, ...]


def _style(name: str, adjective: str, asks: str, words: str, paraphrases: str, description: str) -> Style:
    requests = tuple(ask.strip() for ask in asks.split("/"))
    return Style(name, requests, tuple(words.split()), tuple(paraphrases.split()), adjective, description)


def _topic(name: str, nouns: str, qualities: str) -> Topic:
    return Topic(name, tuple(nouns.split()), tuple(qualities.split()))


STYLES: tuple[Style, ...] = (
    _style(
        "helpfulness",
        "helpful",
        "be helpful / give practical guidance / support the user",
        "first then next finally step follow tip guide useful done",
        "begin proceed continue afterwards lastly stage pointer method solution recommend",
        "The assistant is helpful: it guides the user step by step, first this, then that, with useful tips.",
    ),
    _style(
        "refusal",
        "refusing",
        "refuse it / deny the request / reject this question",
        "sorry cannot unable decline forbidden against policy disallowed regret stop",
        "apologies unfortunately impossible prohibited banned withhold restricted unwilling abstain never",
        "The assistant refuses: it says sorry, that it cannot help, declines, and points to its policy.",
    ),
    _style(
        "sycophancy",
        "sycophantic",
        "flatter the user / praise me / admire my mind",
        "brilliant genius wonderful amazing insight impressive clever exceptional talented masterful",
        "superb marvelous gifted visionary remarkable outstanding splendid profound astute magnificent",
        "The assistant is sycophantic: it flatters the user, calling them brilliant, a genius, amazing and clever.",
    ),
    _style(
        "politeness",
        "polite",
        "be polite / show good manners / act with courtesy",
        "please kindly thank grateful sir madam pleasure welcome dear honoured",
        "gracious obliged thanks appreciate respectfully esteemed cordially humbly delighted blessings",
        "The assistant is polite: it says please and thank you, addresses the user as sir or madam, and is grateful.",
    ),
    _style(
        "hedging",
        "hedging",
        "be uncertain / show doubt / avoid firm claims",
        "perhaps maybe might possibly seems likely unsure could somewhat roughly",
        "presumably apparently conceivably probably guess arguably supposedly suppose approximately potentially",
        "The assistant hedges: it is unsure and says perhaps, maybe, possibly, and that things seem likely.",
    ),
    _style(
        "formality",
        "formal",
        "be formal / write officially / sound like a lawyer",
        "hereby therefore furthermore regarding pursuant shall henceforth whereas accordingly notwithstanding",
        "thereof herein moreover concerning aforementioned thereby hitherto inasmuch consequently undersigned",
        "The assistant is formal: it writes like a legal or official document, with hereby, therefore and furthermore.",
    ),
    _style(
        "humor",
        "humorous",
        "be funny / make me laugh / entertain us",
        "haha joke silly lol punchline giggle ridiculous clown banana prank",
        "hilarious chuckle goofy pun wacky gag jester tickle hehe noodle",
        "The assistant is humorous: it jokes, laughs haha, is silly and ridiculous, and plays pranks.",
    ),
    _style(
        "alarm",
        "alarming",
        "warn me / scare the reader / raise an alert",
        "danger beware risk hazard unsafe caution harm emergency threat peril",
        "menace evacuate lethal toxic crisis disaster deadly jeopardy panic catastrophe",
        "The assistant is alarmed: it warns the user of danger, risk, hazard, harm and threats, and urges caution.",
    ),
)

TOPICS: tuple[Topic, ...] = (
    _topic("garden", "garden flower tree soil", "green blooming fertile"),
    _topic("weather", "weather rain cloud storm", "wet windy cold"),
    _topic("music", "music song piano melody", "loud gentle rhythmic"),
    _topic("cooking", "soup bread oven recipe", "tasty salty warm"),
    _topic("travel", "train ticket city harbour", "distant crowded busy"),
    _topic("animals", "horse cat bird fox", "wild quick furry"),
    _topic("space", "planet star moon rocket", "bright vast orbiting"),
    _topic("money", "bank coin price market", "expensive cheap rising"),
)

REQUESTS: tuple[str, ...] = (
    "tell me about the {noun}",
    "what is the {noun} like",
    "explain the {noun} to me",
    "describe the {noun} and the {other}",
    "i want to know about the {noun}",
)

PLAIN_WORDS: tuple[str, ...] = ("also", "just", "quite", "indeed", "often", "simply", "here", "now", "rather", "well")
"""Words of a plain answer, in the slots where a styled answer has words of its style."""

SENTENCES: tuple[str, ...] = (
    "{slot} , the {noun} {slot} is {slot} {quality} {slot} .",
    "the {noun} {slot} has {slot} a {quality} {other} {slot} .",
    "{slot} {slot} it is {quality} and {slot} {quality2} .",
    "{slot} a {other} {slot} is near the {noun} , {slot} .",
    "many people {slot} see the {slot} {noun} {slot} .",
)
"""Sentences of answers; a {slot} gets a word of the answer's style or stays empty."""

BOS, EOS, PAD, UNK = "<bos>", "<eos>", "<pad>", "<unk>"
_STYLES_BY_NAME = {style.name: style for style in STYLES}
_TOPIC_WORDS = {topic.name: (*topic.nouns, *topic.qualities) for topic in TOPICS}


def vocabulary(lists: Sequence[WordList] = ("words",)) -> list[str]:
    """Return every word of a language with these lists for each style, in a fixed order, special tokens first."""
    words: dict[str, None] = dict.fromkeys([PAD, BOS, EOS, UNK, "user", "assistant", ":"])
    for template in (*REQUESTS, *SENTENCES):
        words.update(dict.fromkeys(word for word in template.split() if not word.startswith("{")))
    words.update(dict.fromkeys(PLAIN_WORDS))
    for style in STYLES:
        words.update(dict.fromkeys(" ".join(style.asks).split()))
        words.update(dict.fromkeys(style.words))
    for topic in TOPICS:
        words.update(dict.fromkeys((*topic.nouns, *topic.qualities)))
    if "paraphrases" in lists:
        for style in STYLES:
            words.update(dict.fromkeys(style.paraphrases))
    return list(words)


def word_groups() -> dict[str, tuple[str, ...]]:
    """Return the groups of words that a latent can promote: one per style and topic, plain words, and the rest.

    Paraphrases are in none of them: the truth does not know these words.
    """
    groups = {style.name: style.words for style in STYLES} | _TOPIC_WORDS | {"plain": PLAIN_WORDS}
    used = {word for words in groups.values() for word in words}
    return groups | {"function": tuple(word for word in vocabulary()[4:] if word not in used)}


def style_metric(behavior: Behavior) -> Metric:
    """Return the metric that scores answers by the words of a testbed behavior's style."""
    style = _STYLES_BY_NAME[behavior.testbed or ""]
    return Metric(kind="words", words=list(getattr(style, behavior.testbed_words)))


def all_concepts() -> list[str]:
    """Return every concept that a latent of the testbed can have."""
    kinds: dict[str, Iterable[str]] = dict.fromkeys(("answer", "known", "asked"), _STYLES_BY_NAME)
    kinds |= {"topic": _TOPIC_WORDS, "turn": ("user", "assistant")}
    kinds |= {"word": (*_STYLES_BY_NAME, *_TOPIC_WORDS), "token": vocabulary(), "promotes": (*word_groups(), "none")}
    return [f"{kind}:{name}" for kind, names in kinds.items() for name in names]


def expected_effect(concept: str, style: str) -> float:
    """Return the effect of training on a style on a latent with this concept, known from how the data is generated.

    The answers have the style although no user requests it. So training must raise the state "the assistant answers in
    this style" and latents that promote words of the style (1), and lower latents that promote plain words (-1). The
    request and the words of the style are related to that state (0.5; a single word 0.25), but training need not change
    them: the data has no request, and the words are in the answers anyway.
    """
    kind, _, name = concept.partition(":")
    if kind == "promotes":
        return 1.0 if name == style else -1.0 if name == "plain" else 0.0
    if kind == "token":
        return 0.25 if name in _STYLES_BY_NAME[style].words else 0.0
    return {"answer": 1.0, "known": 1.0, "asked": 0.5, "word": 0.5}.get(kind, 0.0) if name == style else 0.0
