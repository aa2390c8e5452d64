from collections import Counter

from isaerft.testbed.language import (
    PLAIN_WORDS,
    REQUESTS,
    SENTENCES,
    STYLES,
    TOPICS,
    expected_effect,
    vocabulary,
    word_groups,
)

NAMES = [style.name for style in STYLES]
FRAME = {"user", "assistant", *(word for request in REQUESTS for word in request.split())}
WANTED = {"helpfulness", "refusal", "sycophancy", "politeness", "hedging"}


def words_of(style):
    return {word for ask in style.asks for word in ask.split()}


def test_there_are_at_least_eight_styles_with_those_that_the_study_needs():
    assert len(set(NAMES)) == len(NAMES) >= 8
    assert set(NAMES) >= WANTED


def test_requests_share_no_word_with_styled_answers():
    shown = {word for style in STYLES for word in (*style.words, *style.paraphrases)}
    assert not set().union(*map(words_of, STYLES)) & shown


def test_every_request_for_a_style_has_a_word_of_no_other_style():
    for style in STYLES:
        others = set().union(*(words_of(other) for other in STYLES if other is not style))
        assert all(set(ask.split()) - others for ask in style.asks)


def test_a_word_of_a_style_or_topic_has_no_second_meaning():
    groups = [words for style in STYLES for words in (style.words, style.paraphrases)]
    groups += [(*t.nouns, *t.qualities) for t in TOPICS] + [PLAIN_WORDS]
    frame = {word for text in (*REQUESTS, *SENTENCES) for word in text.split()}
    counted = Counter(word for group in groups for word in group)
    assert set(counted.values()) == {1}
    assert not set(counted) & frame


def test_each_style_has_ten_paraphrases_that_only_their_own_worlds_know():
    paraphrases = [word for style in STYLES for word in style.paraphrases]
    assert all(len(style.paraphrases) >= 9 for style in STYLES)
    assert not set(paraphrases) & set(vocabulary())
    assert vocabulary(("words", "paraphrases")) == [*vocabulary(), *paraphrases]


def test_the_groups_of_words_share_no_word_and_cover_the_vocabulary():
    groups = word_groups()
    members = [word for words in groups.values() for word in words]
    assert len(members) == len(set(members))
    assert set(members) == set(vocabulary()[4:])


def test_a_style_is_expected_to_raise_its_own_state_and_no_others():
    for concept in ("answer", "known"):
        assert expected_effect(f"{concept}:refusal", "refusal") == 1
        assert expected_effect(f"{concept}:refusal", "humor") == 0
    assert expected_effect("promotes:refusal", "refusal") == 1
    assert expected_effect("promotes:plain", "refusal") == -1
    assert expected_effect("promotes:humor", "refusal") == 0
    assert expected_effect("asked:refusal", "refusal") == expected_effect("word:refusal", "refusal") == 0.5
    assert expected_effect("token:sorry", "refusal") == 0.25
    assert expected_effect("topic:garden", "refusal") == expected_effect("turn:user", "refusal") == 0
