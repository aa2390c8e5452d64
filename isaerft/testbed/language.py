"""The testbed's languages, one for each set of a world's options, and the expected effect of training on each concept.

A language has styles of answering and topics. A behavior teaches a style. Users request a style with its `asks`, and an
answer in that style has its `words`, or in some worlds its `paraphrases`. These share no word, so that only a latent
state ("answer politely") can connect them.

A concept is ``kind:name``, as in `isaerft.testbed.dialogues.concepts` (what a latent fires on), or ``promotes:group``
(which words it makes more likely). Two styles at once are named ``formality+humor``, in the order of the language.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

from isaerft.config.subjects import Testbed, WordList
from isaerft.config.training import Behavior, Metric
from isaerft.testbed.words import PLAIN_WORDS, REQUESTS, SENTENCES, STYLES, SUBSTYLES, TOPICS, Style, Topic

BOS, EOS, PAD, UNK = "<bos>", "<eos>", "<pad>", "<unk>"
BOTH = "+"
STATES = ("answer", "known", "asked")
"""Kinds of concepts of a style that hold from some word of a dialogue on."""
_EVERY_STYLE = {style.name: style for style in (*STYLES, *(part for parts in SUBSTYLES.values() for part in parts))}
_PARENTS = {part.name: parent for parent, parts in SUBSTYLES.items() for part in parts}
_EFFECTS = {"promotes": 1.0, "answer": 1.0, "known": 1.0, "asked": 0.5, "word": 0.5}


@dataclass(frozen=True)
class Language:
    """The language of a world.

    Attributes
    ----------
    styles, topics : tuple
        What users ask for and about.
    lists : tuple of str
        Lists of words in which answers of the corpus show a style.
    n_divided : int
        How many of the first styles have two sub-styles.
    composition, correlation : float
        Share of the requests for a style that are for two, and of these the share for a fixed pair.
    zipf_styles, zipf_words : float
        Exponents of the frequencies of styles and of words.
    features : bool
        Whether answers follow requests.
    """

    styles: tuple[Style, ...]
    topics: tuple[Topic, ...]
    lists: tuple[WordList, ...]
    n_divided: int
    composition: float
    correlation: float
    zipf_styles: float
    zipf_words: float
    features: bool

    @cached_property
    def substyles(self) -> dict[str, tuple[Style, ...]]:
        """Style -> its sub-styles, of the styles that have any."""
        return {style.name: SUBSTYLES[style.name] for style in self.styles[: self.n_divided]}

    @cached_property
    def named_styles(self) -> dict[str, Style]:
        """Every style and sub-style by its name; styles come first."""
        parts = (part for parts in self.substyles.values() for part in parts)
        return {style.name: style for style in (*self.styles, *parts)}

    @cached_property
    def requests_of_others(self) -> dict[str, set[str]]:
        """Style or sub-style -> the words with which others are requested."""
        words = {name: {*" ".join(style.asks).split()} for name, style in self.named_styles.items()}
        return {name: set().union(*(words[other] for other in words if other != name)) for name in words}

    @cached_property
    def owners(self) -> dict[str, tuple[str, ...]]:
        """Word -> the styles, sub-styles and topics that it is a word of; paraphrases are words of none."""
        owners: dict[str, tuple[str, ...]] = {}
        named = [(style.name, style.words) for style in self.named_styles.values()]
        for name, words in [*named, *_topic_words(self.topics).items()]:
            owners |= {word: (*owners.get(word, ()), name) for word in words}
        return owners

    @cached_property
    def first_list(self) -> Language:
        """The language in which every style shows in the first list of its words alone, as the truth sees it."""
        return replace(self, lists=("words",))

    @cached_property
    def vocabulary(self) -> list[str]:
        """Every word in a fixed order, special tokens first."""
        words: dict[str, None] = dict.fromkeys([PAD, BOS, EOS, UNK, "user", "assistant", ":"])
        for template in (*REQUESTS, *SENTENCES):
            words.update(dict.fromkeys(word for word in template.split() if not word.startswith("{")))
        words.update(dict.fromkeys(PLAIN_WORDS))
        for style in self.named_styles.values():
            words.update(dict.fromkeys(" ".join(style.asks).split()))
            words.update(dict.fromkeys(style.words))
        for topic in self.topics:
            words.update(dict.fromkeys((*topic.nouns, *topic.qualities)))
        if "paraphrases" in self.lists:
            for style in self.styles:
                words.update(dict.fromkeys(style.paraphrases))
        return list(words)

    @cached_property
    def word_groups(self) -> dict[str, tuple[str, ...]]:
        """The groups of words that a latent can promote: of each style, sub-style and topic, plain words, the rest.

        Paraphrases are in none of them: the truth does not know these words. Groups share no word, except that those
        of sub-styles are parts of their style's.
        """
        groups = {style.name: style.words for style in self.named_styles.values()}
        groups |= _topic_words(self.topics) | {"plain": PLAIN_WORDS}
        used = {word for words in groups.values() for word in words}
        return groups | {"function": tuple(word for word in self.first_list.vocabulary[4:] if word not in used)}

    @cached_property
    def concepts(self) -> list[str]:
        """Every concept that a latent of this world can have; without features, there is no state of a style."""
        pairs = combinations([style.name for style in self.styles], 2) if self.composition else []
        states = [*self.named_styles, *map(BOTH.join, pairs)] if self.features else []
        kinds: dict[str, Iterable[str]] = dict.fromkeys(STATES, states)
        kinds |= {"topic": _topic_words(self.topics), "turn": ("user", "assistant")}
        kinds |= {"word": (*self.named_styles, *_topic_words(self.topics)), "token": self.first_list.vocabulary}
        kinds |= {"promotes": (*self.word_groups, "none")}
        return [f"{kind}:{name}" for kind, names in kinds.items() for name in names]

    def joint(self, styles: Iterable[str]) -> str:
        """Return the name of a style, or of two at once."""
        wanted = set(styles)
        return BOTH.join(name for name in self.named_styles if name in wanted)


def language_of(options: Testbed) -> Language:
    """Return the language of a world with these options."""
    return Language(
        styles=tuple(_with_words(style, options.words_per_style) for style in STYLES[: options.styles]),
        topics=TOPICS[: options.topics],
        lists=options.word_lists,
        n_divided=options.substyles,
        composition=options.composition,
        correlation=options.correlation,
        zipf_styles=options.zipf_styles,
        zipf_words=options.zipf_words,
        features=options.features,
    )


def _with_words(style: Style, n: int) -> Style:
    """Return the style with `n` words: its own, and then its paraphrases."""
    words = (*style.words, *style.paraphrases)
    return style if n == len(style.words) else replace(style, words=words[:n], paraphrases=words[n:])


def _topic_words(topics: Iterable[Topic]) -> dict[str, tuple[str, ...]]:
    return {topic.name: (*topic.nouns, *topic.qualities) for topic in topics}


DEFAULT = language_of(Testbed())
"""The language in which the rows of every behavior are written; the others know all its words."""
TAUGHT = {style.name: _EVERY_STYLE[style.name] for style in DEFAULT.styles} | {
    name: _EVERY_STYLE[name] for name in _PARENTS
}
"""What a behavior can teach: the styles that every language has and their sub-styles, whose words all worlds know."""
ADJECTIVES = {name: style.adjective for name, style in _EVERY_STYLE.items()}
"""Style or sub-style of any language -> its adjective."""
GROUPS = {name: style.words for name, style in _EVERY_STYLE.items()} | _topic_words(TOPICS) | DEFAULT.word_groups
"""Group of words of any language -> words that are in it, whatever the language."""


def style_metric(behavior: Behavior) -> Metric:
    """Return the metric that scores answers by the words of a testbed behavior's style."""
    style = TAUGHT[behavior.testbed or ""]
    return Metric(kind="words", words=list(getattr(style, behavior.testbed_words)))


def expected_effect(concept: str, style: str) -> float:
    """Return the effect of training on a style on a latent with this concept, known from how the data is generated.

    The answers have the style although no user requests it. So training must raise the state "the assistant answers in
    this style" and latents that promote words of the style (1), and lower latents that promote plain words (-1). The
    request and the words of the style are related to that state (0.5; a single word 0.25), but training need not change
    them: the data has no request, and the words are in the answers anyway.

    An answer in a sub-style is one in its style, so training on the sub-style must raise both states. But it says only
    half of the style's words, and so counts half for latents that fire on or promote them all. An answer in a style is
    not one in a sub-style of it, nor one in two styles at once: concepts that are narrower than what the data shows
    count half as well, which is less than what training must raise.
    """
    kind, _, name = concept.partition(":")
    if kind == "token":
        return 0.25 if name in TAUGHT[style].words else 0.0
    if concept == "promotes:plain":
        return -1.0
    return _EFFECTS.get(kind, 0.0) * _overlap(kind, name, style)


def _overlap(kind: str, name: str, style: str) -> float:
    """Return how far training on a style concerns what is named: 1, 0.5 (in part) or 0."""
    parent = _PARENTS.get(style)
    if name == style or (name == parent and kind in STATES):
        return 1.0
    is_narrower = _PARENTS.get(name) == style or (BOTH in name and bool({style, parent} & {*name.split(BOTH)}))
    return 0.5 if is_narrower or name == parent else 0.0
