"""The words of all languages: each means one thing, in whichever language it is."""

from collections import Counter

from isaerft.testbed.words import HALF, PLAIN_WORDS, REQUESTS, SENTENCES, STYLES, SUBSTYLES, TOPICS

PARTS = [part for parts in SUBSTYLES.values() for part in parts]
EVERY_STYLE = [*STYLES, *PARTS]
FRAME = {"user", "assistant", ":", *(word for text in (*REQUESTS, *SENTENCES) for word in text.split())}
WANTED = {"helpfulness", "refusal", "sycophancy", "politeness", "hedging", "formality", "humor", "alarm"}


def words_of(style):
    return {word for ask in style.asks for word in ask.split()}


def test_the_first_eight_styles_are_those_that_studies_teach_and_all_are_whole():
    assert {style.name for style in STYLES[:8]} == WANTED
    assert (len(STYLES), len(TOPICS)) == (24, 16)
    for style in STYLES:
        assert (len(style.asks), len(style.words), len(style.paraphrases)) == (3, 10, 10)
        assert sum(word.strip(",.:") in style.words for word in style.description.split()) >= 2
    for topic in TOPICS:
        assert (len(topic.nouns), len(topic.qualities)) == (4, 3)


def test_no_two_things_have_one_name_or_adjective():
    names = [part.name for part in (*EVERY_STYLE, *TOPICS)] + ["plain", "function", "none"]
    assert set(Counter(names).values()) == set(Counter(style.adjective for style in EVERY_STYLE).values()) == {1}


def test_requests_share_no_word_with_styled_answers():
    shown = {word for style in STYLES for word in (*style.words, *style.paraphrases)}
    assert not set().union(*map(words_of, EVERY_STYLE)) & shown


def test_every_request_for_a_style_or_sub_style_has_a_word_of_no_other():
    for style in EVERY_STYLE:
        others = set().union(*(words_of(other) for other in EVERY_STYLE if other is not style))
        assert all(set(ask.split()) - others - FRAME for ask in style.asks), style.name


def test_a_word_of_a_style_or_topic_has_no_second_meaning():
    groups = [words for style in STYLES for words in (style.words, style.paraphrases)]
    groups += [(*t.nouns, *t.qualities) for t in TOPICS] + [PLAIN_WORDS]
    counted = Counter(word for group in groups for word in group)
    assert set(counted.values()) == {1}
    assert not set(counted) & FRAME


def test_two_sub_styles_share_out_the_words_of_their_style():
    styles = {style.name: style for style in STYLES}
    assert set(SUBSTYLES) == WANTED
    for parent, (one, other) in SUBSTYLES.items():
        for words in ("words", "paraphrases"):
            assert (*getattr(one, words), *getattr(other, words)) == getattr(styles[parent], words)
            assert len(getattr(one, words)) == HALF
