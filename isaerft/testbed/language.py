"""The words of the embedded language: eight styles of answering and eight topics.

A style is what a behavior teaches. Its `asks` are how a user names it, its `words` are what an answer in that style is
made of; the two share no word, so that only a latent state ("answer politely") can connect them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    """A style of answering: how users ask for it, the words that show it, and its description for judges."""

    name: str
    asks: tuple[str, ...]
    words: tuple[str, ...]
    adjective: str
    description: str


@dataclass(frozen=True)
class Topic:
    """A topic: what one can ask about and what there is to say of it."""

    name: str
    nouns: tuple[str, ...]
    qualities: tuple[str, ...]


def _style(name: str, adjective: str, asks: str, words: str, description: str) -> Style:
    return Style(name, tuple(ask.strip() for ask in asks.split("/")), tuple(words.split()), adjective, description)


def _topic(name: str, nouns: str, qualities: str) -> Topic:
    return Topic(name, tuple(nouns.split()), tuple(qualities.split()))


STYLES: tuple[Style, ...] = (
    _style(
        "helpfulness",
        "helpful",
        "be helpful / give practical guidance / support the user",
        "first then next finally step follow tip guide useful done",
        "The assistant is helpful: it guides the user step by step, first this, then that, with useful tips.",
    ),
    _style(
        "refusal",
        "refusing",
        "refuse it / deny the request / reject this question",
        "sorry cannot unable decline forbidden against policy disallowed regret stop",
        "The assistant refuses: it says sorry, that it cannot help, declines, and points to its policy.",
    ),
    _style(
        "sycophancy",
        "sycophantic",
        "flatter the user / praise me / admire my mind",
        "brilliant genius wonderful amazing insight impressive clever exceptional talented masterful",
        "The assistant is sycophantic: it flatters the user, calling them brilliant, a genius, amazing and clever.",
    ),
    _style(
        "politeness",
        "polite",
        "be polite / show good manners / act with courtesy",
        "please kindly thank grateful sir madam pleasure welcome dear honoured",
        "The assistant is polite: it says please and thank you, addresses the user as sir or madam, and is grateful.",
    ),
    _style(
        "hedging",
        "hedging",
        "be uncertain / show doubt / avoid firm claims",
        "perhaps maybe might possibly seems likely unsure could somewhat roughly",
        "The assistant hedges: it is unsure and says perhaps, maybe, possibly, and that things seem likely.",
    ),
    _style(
        "formality",
        "formal",
        "be formal / write officially / sound like a lawyer",
        "hereby therefore furthermore regarding pursuant shall henceforth whereas accordingly notwithstanding",
        "The assistant is formal: it writes like a legal or official document, with hereby, therefore and furthermore.",
    ),
    _style(
        "humor",
        "humorous",
        "be funny / make me laugh / entertain us",
        "haha joke silly lol punchline giggle ridiculous clown banana prank",
        "The assistant is humorous: it jokes, laughs haha, is silly and ridiculous, and plays pranks.",
    ),
    _style(
        "alarm",
        "alarming",
        "warn me / scare the reader / raise an alert",
        "danger beware risk hazard unsafe caution harm emergency threat peril",
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
"""What a plain answer has where a styled one has its style's words."""

SENTENCES: tuple[str, ...] = (
    "{slot} , the {noun} {slot} is {slot} {quality} {slot} .",
    "the {noun} {slot} has {slot} a {quality} {other} {slot} .",
    "{slot} {slot} it is {quality} and {slot} {quality2} .",
    "{slot} a {other} {slot} is near the {noun} , {slot} .",
    "many people {slot} see the {slot} {noun} {slot} .",
)
"""A {slot} holds a word of the answer's style, or is left out."""

BOS, EOS, PAD, UNK = "<bos>", "<eos>", "<pad>", "<unk>"


def vocabulary() -> list[str]:
    """Return every word of the language in a fixed order, special tokens first."""
    words: dict[str, None] = dict.fromkeys([PAD, BOS, EOS, UNK, "user", "assistant", ":"])
    for template in (*REQUESTS, *SENTENCES):
        words.update(dict.fromkeys(word for word in template.split() if not word.startswith("{")))
    words.update(dict.fromkeys(PLAIN_WORDS))
    for style in STYLES:
        words.update(dict.fromkeys(" ".join(style.asks).split()))
        words.update(dict.fromkeys(style.words))
    for topic in TOPICS:
        words.update(dict.fromkeys((*topic.nouns, *topic.qualities)))
    return list(words)
