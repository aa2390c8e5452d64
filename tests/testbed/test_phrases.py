"""The list of the scorer `lexicon`: every true explanation speaks of the words at which its concept holds."""

import numpy as np
import pytest

from isaerft.judges.phrases import Phrases
from isaerft.scorers.lexicon import read_phrases, words_spoken_of
from isaerft.testbed.dialogues import concepts, sample_dialogues
from isaerft.testbed.language import DEFAULT
from isaerft.testbed.phrases import phrase_list
from isaerft.testbed.wording import N_WORDINGS, true_explanation


@pytest.fixture(scope="module")
def phrases(tmp_path_factory):
    path = tmp_path_factory.mktemp("list") / "phrases.csv"
    phrase_list(DEFAULT, 0).to_csv(path, index=False)
    return Phrases(read_phrases(path).items())


@pytest.mark.parametrize("wording", range(0, N_WORDINGS, 5))
def test_every_true_explanation_speaks_of_its_concept_in_every_wording(phrases, wording):
    for style in DEFAULT.styles:
        for kind in ("answer", "known", "word"):
            spoken = words_spoken_of(true_explanation(f"{kind}:{style.name}", wording), phrases)
            assert all(spoken[word] > 0.9 for word in style.words)
            other = next(one for one in DEFAULT.styles if one != style)
            assert not any(spoken.get(word, 0) > 0.1 for word in other.words)
    for topic in DEFAULT.topics:
        spoken = words_spoken_of(true_explanation(f"topic:{topic.name}", wording), phrases)
        assert all(spoken[word] > 0.5 for word in topic.nouns)
    for name, words in DEFAULT.word_groups.items():
        assert words_spoken_of(true_explanation(f"promotes:{name}", wording), phrases) == dict.fromkeys(words, 1.0)
    assert words_spoken_of(true_explanation("promotes:none", wording), phrases) == {}
    assert words_spoken_of(true_explanation("token:sorry", wording), phrases) == {"sorry": 1.0}


def test_a_weight_says_how_much_oftener_the_concept_holds_at_the_word(phrases):
    """By counting on other dialogues; a word that tells nothing has no weight."""
    held, words = [], []
    for item in sample_dialogues(np.random.default_rng(1), 3000, DEFAULT):
        words += item.words
        held += ["asked:refusal" in names for names in concepts(item, DEFAULT)]
    held, words = np.array(held), np.array(words)
    spoken = words_spoken_of(true_explanation("asked:refusal"), phrases)
    for word in ("refuse", "assistant", "the", "garden"):
        own = words == word
        share = (held[own].mean() - held.mean()) / (1 - held.mean())
        assert spoken.get(word, 0.0) == pytest.approx(share if share >= 0.05 else 0.0, abs=0.05)


def test_no_explanation_of_the_testbed_is_beyond_the_list(phrases):
    held = {
        name
        for item in sample_dialogues(np.random.default_rng(1), 3000, DEFAULT)
        for name in set().union(*concepts(item, DEFAULT))
    }
    silent = [
        name for name in DEFAULT.concepts if name in held and not words_spoken_of(true_explanation(name), phrases)
    ]
    assert silent == []


def test_the_list_follows_its_seed():
    assert phrase_list(DEFAULT, 0).equals(phrase_list(DEFAULT, 0))
    assert not phrase_list(DEFAULT, 0).equals(phrase_list(DEFAULT, 1))
