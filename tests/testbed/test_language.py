import hashlib
from collections import Counter

import numpy as np
import pytest

from isaerft import config
from isaerft.config.base import validated
from isaerft.errors import InputError
from isaerft.testbed.dialogues import concepts, sample_dialogues
from isaerft.testbed.language import DEFAULT, GROUPS, expected_effect, language_of
from isaerft.testbed.words import SUBSTYLES

PINS = (
    ("1de441bb36377705", "1e53a123a50ddb6d", "0b21951df13c09e8"),
    ("e2068005bd2f5006", "6c83291ea2479877", "6b545671b8662766"),
)
"""Digests of vocabulary, dialogues and annotation, from before other languages could be made."""


def digest(values):
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("options", "vocabulary", "dialogues", "annotation"),
    [({}, *PINS[0]), ({"paraphrase": True}, *PINS[1])],
)
def test_the_default_language_is_the_one_it_always_was(options, vocabulary, dialogues, annotation):
    """A change here changes the model, corpus and truth of every study on the testbed."""
    language = language_of(config.Testbed(**options))
    sampled = list(sample_dialogues(np.random.default_rng(7), 2000, language))
    texts = [(item.prompt, item.completion, item.topic, item.style, item.cues) for item in sampled]
    held = [[sorted(names) for names in concepts(item, language)] for item in sampled]
    assert digest(language.vocabulary) == vocabulary
    assert digest(texts) == dialogues
    assert digest(held) == annotation


def test_paraphrases_are_known_in_their_own_worlds_alone():
    paraphrases = [word for style in DEFAULT.styles for word in style.paraphrases]
    assert not set(paraphrases) & set(DEFAULT.vocabulary)
    assert language_of(config.Testbed(paraphrase=True)).vocabulary == [*DEFAULT.vocabulary, *paraphrases]


@pytest.mark.parametrize(
    ("options", "n_more"),
    [({"styles": 24}, None), ({"topics": 16}, 56), ({"words_per_style": 20}, 80), ({"substyles": 8}, None)],
)
def test_every_language_knows_the_words_of_the_default_one_in_which_behaviors_are_written(options, n_more):
    more = set(language_of(config.Testbed(**options)).vocabulary) - set(DEFAULT.vocabulary)
    assert set(DEFAULT.vocabulary) < set(language_of(config.Testbed(**options)).vocabulary)
    assert n_more is None or len(more) == n_more


@pytest.mark.parametrize(
    "options", [{}, {"styles": 24, "topics": 16}, {"words_per_style": 20}, {"paraphrase": True}, {"features": False}]
)
def test_the_groups_of_words_share_no_word_and_cover_the_vocabulary(options):
    language = language_of(config.Testbed(**options))
    members = [word for words in language.word_groups.values() for word in words]
    assert len(members) == len(set(members))
    assert set(members) == set(language.first_list.vocabulary[4:])


def test_the_group_of_a_sub_style_is_half_of_its_styles():
    language = language_of(config.Testbed(substyles=2))
    groups = language.word_groups
    assert len(groups) == len(DEFAULT.word_groups) + 4
    for parent in ("helpfulness", "refusal"):
        halves = [groups[part.name] for part in SUBSTYLES[parent]]
        assert sorted(word for half in halves for word in half) == sorted(groups[parent])


@pytest.mark.parametrize("options", [{"styles": 24, "topics": 16}, {"words_per_style": 20}, {"substyles": 8}])
def test_every_group_has_words_that_are_in_it_in_every_language(options):
    for name, words in language_of(config.Testbed(**options)).word_groups.items():
        assert set(GROUPS[name]) <= set(words)


def test_concepts_are_of_the_language_and_without_features_no_style_has_a_state():
    def states(language):
        kinds = ("answer", "known", "asked")
        return Counter(name.partition(":")[2] for name in language.concepts if name.partition(":")[0] in kinds)

    assert len(states(DEFAULT)) == 8
    assert len(states(language_of(config.Testbed(styles=20)))) == 20
    assert set(states(language_of(config.Testbed(substyles=3)))) - set(states(DEFAULT)) == {
        part.name for parent in ("helpfulness", "refusal", "sycophancy") for part in SUBSTYLES[parent]
    }
    composed = states(language_of(config.Testbed(composition=0.5)))
    assert len(composed) == 8 + 28
    assert "refusal+humor" in composed
    assert not states(language_of(config.Testbed(features=False)))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"styles": 7}, "testbed.styles = 7"),
        ({"styles": 25}, "testbed.styles = 25"),
        ({"topics": 17}, "testbed.topics = 17"),
        ({"words_per_style": 9}, "testbed.words_per_style = 9"),
        ({"substyles": 9}, "testbed.substyles = 9"),
        ({"composition": 1.5}, "testbed.composition = 1.5"),
        ({"zipf_words": -1}, "testbed.zipf_words = -1"),
        ({"zipf_styles": 4}, "testbed.zipf_styles = 4"),
        ({"correlation": 0.5}, "correlation with composition 0"),
        ({"correlation": 0.5, "composition": 0.5, "styles": 9}, "and 9 styles"),
        ({"paraphrase": True, "words_per_style": 20}, "paraphrase with 20 words_per_style"),
        ({"features": False, "composition": 0.5}, "features false"),
        ({"features": False, "substyles": 1}, "features false"),
    ],
)
def test_options_that_make_no_world_are_refused(options, problem):
    with pytest.raises(InputError, match=problem):
        validated(dict[str, config.Testbed], {"testbed": options})


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


def test_training_on_a_sub_style_raises_its_state_and_its_styles_and_half_of_its_styles_words():
    """An answer in a sub-style is one in its style, in half of its words."""
    for kind in ("answer", "known"):
        assert expected_effect(f"{kind}:slapstick", "slapstick") == expected_effect(f"{kind}:humor", "slapstick") == 1
        assert expected_effect(f"{kind}:jesting", "slapstick") == expected_effect(f"{kind}:alarm", "slapstick") == 0
    assert expected_effect("promotes:slapstick", "slapstick") == 1
    assert expected_effect("promotes:humor", "slapstick") == 0.5
    assert expected_effect("promotes:jesting", "slapstick") == 0
    assert expected_effect("promotes:plain", "slapstick") == -1
    assert expected_effect("token:banana", "slapstick") == 0.25
    assert expected_effect("token:haha", "slapstick") == 0


def test_training_on_a_style_need_not_raise_what_is_narrower_than_it():
    """An answer in a style is neither one in a sub-style nor one in two styles at once."""
    for narrower in ("slapstick", "jesting", "humor+alarm", "refusal+humor"):
        assert expected_effect(f"answer:{narrower}", "humor") == expected_effect(f"known:{narrower}", "humor") == 0.5
        assert expected_effect(f"asked:{narrower}", "humor") == 0.25
    assert expected_effect("promotes:slapstick", "humor") == 0.5
    assert expected_effect("answer:refusal+alarm", "humor") == expected_effect("answer:urgency", "humor") == 0
    assert expected_effect("answer:humor+alarm", "slapstick") == 0.5
