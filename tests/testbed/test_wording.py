"""The wording of explanations: it carries the concept and tells nothing else about it."""

from collections import Counter

import numpy as np
import pytest

from isaerft import config, stats
from isaerft.testbed.language import DEFAULT, expected_effect, language_of
from isaerft.testbed.wording import FRAMES, N_LENGTHS, N_WORDINGS, noun_phrases, true_explanation, wordings

STYLE_NAMES = [style.name for style in DEFAULT.styles]
SIDES = {
    side: [c for c in DEFAULT.concepts if c.startswith("promotes:") == (side == "output")]
    for side in ("input", "output")
}
N_SEEDS = 16
REPEATS = 4
"""Latents with each concept, in each of the worlds that the tests draw."""
MEASURES = ("characters", "words", "frame")


def kind_of(concept):
    return concept.partition(":")[0]


@pytest.fixture(scope="module")
def measured():
    """Return (side, measure) -> a property of the explanations of the latents of each world, (N_SEEDS, n)."""
    result = {}
    for side, concepts in SIDES.items():
        latents = range(REPEATS * len(concepts))
        drawn = [wordings(latents, side, seed) for seed in range(N_SEEDS)]
        texts = [[true_explanation(*pair) for pair in zip(concepts * REPEATS, own, strict=True)] for own in drawn]
        result[side, "characters"] = np.array([[len(text) for text in world] for world in texts])
        result[side, "words"] = np.array([[len(text.split()) for text in world] for world in texts])
        result[side, "frame"] = np.array(drawn) // N_LENGTHS
    return result


def mean_auroc(values, labels):
    """Return the mean AUROC over worlds of `values` (n_worlds, n) for the labels of concepts, and its error."""
    found = [float(stats.auroc(world.astype(float), np.array(labels * REPEATS))) for world in values]
    return np.mean(found), np.std(found, ddof=1) / np.sqrt(len(found))


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("side", SIDES)
def test_no_property_of_the_text_tells_whether_a_change_is_expected(measured, side, measure):
    found = [
        mean_auroc(measured[side, measure], [expected_effect(concept, name) > 0.5 for concept in SIDES[side]])
        for name in STYLE_NAMES
    ]
    values, errors = np.array(found).T
    assert abs(values.mean() - 0.5) < 0.02 + 2 * errors.mean() / np.sqrt(len(values))
    assert np.all(abs(values - 0.5) < 0.05 + 3 * errors)


@pytest.mark.parametrize("measure", MEASURES)
def test_no_property_of_the_text_tells_the_kind_of_concept(measured, measure):
    for kind in sorted({kind_of(concept) for concept in SIDES["input"]}):
        labels = [kind_of(concept) == kind for concept in SIDES["input"]]
        value, error = mean_auroc(measured["input", measure], labels)
        assert abs(value - 0.5) < 0.06 + 3 * error, kind
    labels = [concept == "promotes:none" for concept in SIDES["output"]]
    value, error = mean_auroc(measured["output", measure], labels)
    assert abs(value - 0.5) < 0.06 + 3 * error


def test_the_single_wording_that_once_was_would_be_found():
    concepts = SIDES["input"]
    texts = [
        true_explanation(c, {"answer": N_LENGTHS - 1, "known": N_LENGTHS - 1}.get(kind_of(c), 0)) for c in concepts
    ]
    labels = np.array([expected_effect(concept, "refusal") > 0.5 for concept in concepts])
    assert stats.auroc(np.array([len(text) for text in texts], float), labels) > 0.95


def test_a_latents_wording_depends_on_latent_side_and_seed_alone_and_every_wording_is_used():
    many = wordings(range(4000), "input", 0)
    assert many[5:9] == wordings(range(5, 9), "input", 0)
    assert set(many) == set(range(N_WORDINGS))
    assert max(Counter(many).values()) < 1.4 * len(many) / N_WORDINGS
    for other in (wordings(range(4000), "output", 0), wordings(range(4000), "input", 1)):
        assert np.mean(np.array(many) == np.array(other)) == pytest.approx(1 / N_WORDINGS, abs=0.02)


@pytest.mark.parametrize("options", [{}, {"styles": 24, "topics": 16, "substyles": 8, "composition": 0.5}], ids=len)
def test_every_concept_has_every_wording_and_no_two_texts_are_alike(options):
    named = language_of(config.Testbed(**options)).concepts
    every = [true_explanation(concept, wording) for concept in named for wording in range(N_WORDINGS)]
    assert len(set(every)) == len(every) == len(named) * len(FRAMES) * N_LENGTHS
    assert len(FRAMES) >= 6


def test_a_noun_phrase_names_its_concept():
    for style in DEFAULT.styles:
        for kind in ("answer", "known", "asked"):
            assert all(style.adjective in phrase for phrase in noun_phrases(f"{kind}:{style.name}"))
        for phrase in noun_phrases(f"promotes:{style.name}"):
            assert any(word in style.words for word in phrase.replace(",", "").split())
    assert all('"cat"' in phrase for phrase in noun_phrases("token:cat"))
    assert noun_phrases("answer:alarm")[0].startswith("an alarming")
