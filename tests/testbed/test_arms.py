"""The benchmark's explanations: wrong in the said way, in the said share, and nothing in their form tells."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from isaerft import stats
from isaerft.config import Testbed
from isaerft.testbed.arms import (
    KINDS,
    N_PAIR_WORDINGS,
    RIGHT,
    SHARES,
    Fits,
    Known,
    as_on_the_other_side,
    benchmark_key,
    benchmark_texts,
    concepts_said,
    effect_said,
    judgements_of,
    pair_explanation,
    said_of,
)
from isaerft.testbed.dialogues import concepts, sample_dialogues
from isaerft.testbed.language import DEFAULT, expected_effect, language_of
from isaerft.testbed.truth import _within
from isaerft.testbed.wording import noun_phrases

STYLES_OF = {style.name: style.name for style in DEFAULT.styles}
N = 400


@pytest.fixture(scope="module")
def held():
    """The concepts at each word of some dialogues."""
    return [
        names for item in sample_dialogues(np.random.default_rng(0), 2000, DEFAULT) for names in concepts(item, DEFAULT)
    ]


@pytest.fixture(scope="module")
def known(held):
    """A world of latents that each fire on exactly one concept, and promote one group or none."""
    names = sorted(set().union(*held))
    column = {name: number for number, name in enumerate(names)}
    holds = np.zeros((len(held), len(names)), np.float32)
    for row, own in enumerate(held):
        holds[row, [column[name] for name in own]] = 1
    together = holds.T @ holds
    counts = np.diagonal(together)
    f1 = 2 * together / (counts[:, None] + counts[None, :])
    rng = np.random.default_rng(1)
    # As in a trained dictionary: mostly words, the commonest (and shortest) most often.
    is_word = np.array([name.startswith("token:") for name in names])
    share = np.where(is_word, 0.6 * counts / counts[is_word].sum(), 0.4 * counts**0.5 / (counts[~is_word] ** 0.5).sum())
    chosen = rng.choice(len(names), N, p=share)
    true = {"input": [names[i] for i in chosen]}
    groups = [f"promotes:{group}" for group in DEFAULT.word_groups]
    promoted = rng.integers(len(groups), size=N)
    true["output"] = [groups[i] for i in promoted]
    fits = {
        "input": Fits(np.arange(N), names, f1[chosen], _within(together)),
        "output": Fits(
            np.arange(N),
            groups,
            np.eye(len(groups))[promoted],
            np.zeros((len(groups),) * 2),
        ),
    }
    decoder = rng.normal(size=(N, 16))
    elsewhere = {side: dict(enumerate(true[other])) for side, other in (("input", "output"), ("output", "input"))}
    return {side: Known(DEFAULT, side, fits[side], true[side], elsewhere[side], decoder) for side in true}


def key_of(known, seed):
    rng = np.random.default_rng(seed)
    return pd.concat([benchmark_key(part, rng.random(N), rng) for part in known.values()], ignore_index=True)


@pytest.fixture(scope="module")
def key(known):
    return key_of(known, 0)


def test_each_side_and_share_has_its_number_of_wrong_explanations_divided_evenly_over_the_kinds(key):
    for (_, share), rows in key.groupby(["side", "share"]):
        counts = Counter(rows["kind"])
        wrong = [counts[kind] for kind in KINDS if counts[kind]]
        assert sum(wrong) == round(share * N) == N - counts[RIGHT]
    for share in SHARES:
        rows = key[(key["side"] == "input") & (key["share"] == share) & (key["kind"] != RIGHT)]
        counts = rows["kind"].value_counts()
        assert set(counts.index) == set(KINDS)
        # As evenly as concepts that are alike in length allow, none of them said too often.
        assert counts.max() <= 2 * counts.min()


def test_no_concept_is_named_much_more_often_by_wrong_explanations_than_by_right_ones(known, key):
    for side, part in known.items():
        true = Counter(part.concepts)
        for share in SHARES:
            rows = key[(key["side"] == side) & (key["share"] == share) & (key["kind"] != RIGHT)]
            said = Counter(concepts_said(name)[-1] for name in rows["said"])
            assert all(n <= 2 + 2 * len(rows) * true[name] / N for name, n in said.items())


def test_a_kind_that_no_latent_of_a_side_can_have_is_left_out_and_the_others_share_its_part(key):
    counts = key.query("side == 'output' and share == 0.4 and kind != 'right'")["kind"].value_counts()
    assert set(counts.index) == {"another", "other_side", "neighbor", "half_true"}, "groups of words have no parts"
    assert counts.max() - counts.min() <= 0.2 * counts.sum()


def test_where_styles_have_sub_styles_groups_of_words_have_parts():
    language = language_of(Testbed(substyles=2))
    names = [f"promotes:{group}" for group in language.word_groups]
    words = sorted(set().union(*language.word_groups.values()))
    holds = np.array([[word in group for word in words] for group in language.word_groups.values()], float)
    fits = Fits(np.arange(len(names)), names, np.eye(len(names)), _within(holds @ holds.T))
    part = Known(language, "output", fits, names, {}, np.random.default_rng(0).normal(size=(len(names), 4)))
    style = next(iter(language.substyles))
    own = [f"promotes:{sub.name}" for sub in language.substyles[style]]
    assert sorted(said_of(part, names.index(f"promotes:{style}"))["too_narrow"]) == sorted(own)
    for name in own:
        assert said_of(part, names.index(name))["too_broad"] == [f"promotes:{style}"]


def test_a_larger_share_holds_the_wrong_explanations_of_a_smaller_one(key):
    for _, rows in key.groupby("side"):
        small, large = (rows[rows["share"] == share].set_index("latent_index") for share in SHARES)
        wrong = small[small["kind"] != RIGHT]
        pd.testing.assert_frame_equal(wrong.drop(columns="share"), large.loc[wrong.index].drop(columns="share"))


def test_right_explanations_say_the_truth_and_wrong_ones_never_do(key):
    right = key["kind"] == RIGHT
    assert (key["said"] == key["true"])[right].all()
    assert (key["said"] != key["true"])[~right].all()


def test_each_kind_of_wrong_differs_from_the_truth_in_the_said_way(known, key, held):
    places = {name: {i for i, own in enumerate(held) if name in own} for name in set(key.query("side=='input'").true)}
    output = dict(enumerate(known["output"].concepts))
    wrong = key[(key["side"] == "input") & (key["kind"] != RIGHT) & (key["share"] == max(SHARES))]
    for row in wrong.itertuples():
        truth = places[row.true]
        said = places.get(row.said, set())
        match row.kind:
            case "too_broad":
                assert len(said & truth) >= 0.95 * len(truth)
                assert len(said) >= 2 * len(truth)
            case "too_narrow":
                assert len(said & truth) >= 0.95 * len(said)
                assert len(said) <= len(truth) / 2
            case "another":
                assert len(said & truth) < 0.95 * min(len(said), len(truth))
            case "other_side":
                assert row.said == f"word:{output[row.latent_index].removeprefix('promotes:')}"
            case "neighbor":
                part = known["input"]
                rows = part.decoder / np.linalg.norm(part.decoder, axis=1, keepdims=True)
                cosine = rows @ rows[row.latent_index]
                nearest = next(
                    i
                    for i in np.argsort(-cosine)
                    if i != row.latent_index and part.is_wrong(row.latent_index, part.concepts[i])
                )
                assert row.said == part.concepts[nearest]
            case "half_true":
                first, second = concepts_said(row.said)
                assert first == row.true
                assert len(places[second] & truth) < 0.95 * min(len(places[second]), len(truth))


def test_a_concept_that_fits_the_latent_more_than_half_as_well_as_the_truth_is_never_called_wrong(known):
    """A latent whose two best concepts are nearly alike must not count one of them as false."""
    part = known["input"]
    fits = part.fits
    near = int(np.flatnonzero([name == "known:refusal" for name in part.concepts])[0])
    assert "known:humor" in {name for names in said_of(part, near).values() for name in names}
    values = fits.values.copy()
    values[near, fits.names.index("known:humor")] = 0.6 * values[near, fits.names.index("known:refusal")]
    close = replace(part, fits=replace(fits, values=values))
    assert "known:humor" not in {name for names in said_of(close, near).values() for name in names}


def test_every_concept_that_is_said_is_true_of_some_latent_of_that_side_or_of_the_other_side(known, key):
    for side, part in known.items():
        rows = key[(key["side"] == side) & (key["kind"] != "other_side")]
        assert {name for said in rows["said"] for name in concepts_said(said)} <= set(part.concepts)


def test_what_a_latent_does_on_one_side_is_said_of_the_other_in_that_sides_words():
    assert as_on_the_other_side("promotes:refusal", DEFAULT) == "word:refusal"
    assert (
        as_on_the_other_side("known:refusal", DEFAULT)
        == as_on_the_other_side("token:sorry", DEFAULT)
        == "promotes:refusal"
    )
    assert as_on_the_other_side("topic:garden", DEFAULT) == "promotes:garden"
    assert as_on_the_other_side("token:just", DEFAULT) == "promotes:plain"
    for none in ("promotes:none", "promotes:plain", "promotes:function", "turn:user", "token:<bos>", ""):
        assert as_on_the_other_side(none, DEFAULT) == "", none


def properties(texts):
    frames = np.array([hash_of_frame(text) for text in texts], float)
    return {
        "characters": np.array([len(text) for text in texts]),
        "words": np.array([len(text.split()) for text in texts]),
    } | {"frame": frames}


def hash_of_frame(text):
    """Return the place of a text's frame, found in the text alone."""
    openings = ("mostly", "a latent that", "in most contexts", "as far as", "this latent")
    endings = ("by all examples", "with few exceptions")
    return next((i for i, part in enumerate((*openings, *endings)) if part in text), 7)


@pytest.mark.parametrize("side", ["input", "output"])
def test_nothing_in_the_form_of_an_explanation_tells_whether_it_is_wrong_or_how(known, side):
    """Over worlds that differ in who is wrong, what is said and how it is worded."""
    found = {}
    for seed in range(16):
        key = benchmark_key(known[side], np.random.default_rng(seed).random(N), np.random.default_rng(seed))
        key = key[key["share"] == max(SHARES)]
        measured = properties(benchmark_texts(key, seed))
        for kind in ("all", *KINDS):
            wrong = (key["kind"] != RIGHT if kind == "all" else key["kind"] == kind).to_numpy()
            used = wrong | (key["kind"] == RIGHT).to_numpy()
            if not wrong.any():
                continue
            for name, values in measured.items():
                found.setdefault((kind, name), []).append(stats.auroc_of_wrong(values[used], wrong[used]))
    means = {place: np.mean(values) for place, values in found.items()}
    errors = {place: np.std(values, ddof=1) / np.sqrt(len(values)) for place, values in found.items()}
    # Phrases of single kinds of concepts are alike as far as tests/testbed/test_wording.py asks.
    limits = {place: 0.02 + 2 * error if place[0] == "all" else 0.06 + 3 * error for place, error in errors.items()}
    telling = {place: mean for place, mean in means.items() if abs(mean - 0.5) > limits[place]}
    assert not telling


def test_every_explanation_names_two_things_and_only_a_half_true_one_names_two_concepts():
    for wording in range(N_PAIR_WORDINGS):
        right = pair_explanation("answer:refusal", wording)
        half = pair_explanation("answer:refusal&topic:garden", wording)
        for text, named in ((right, ("answer:refusal",)), (half, ("answer:refusal", "topic:garden"))):
            phrases = [phrase for name in named for phrase in noun_phrases(name) if phrase in text]
            assert len(phrases) == 2
            assert text.count(" or ") == 1
    assert (
        len({pair_explanation("token:cat", wording) for wording in range(0, N_PAIR_WORDINGS, 2)})
        == N_PAIR_WORDINGS // 2
    )
    assert len({pair_explanation("token:cat&turn:user", w) for w in range(N_PAIR_WORDINGS)}) == N_PAIR_WORDINGS


def test_right_explanations_of_one_concept_come_in_several_wordings(key):
    own = key.query("side == 'output' and share == 0.1 and said == 'promotes:refusal'")
    assert len(set(benchmark_texts(own, 0))) > len(own) / 2


def test_what_is_said_has_its_effect_and_half_of_the_truth_the_mean_of_both(key):
    assert effect_said("answer:refusal", "refusal") == expected_effect("answer:refusal", "refusal") == 1
    assert effect_said("answer:refusal&topic:garden", "refusal") == 0.5
    assert effect_said("promotes:refusal&promotes:plain", "refusal") == 0
    texts = benchmark_texts(key, 0)
    judged = judgements_of(key, texts, STYLES_OF)
    assert not judged.duplicated(["explanation", "behavior"]).any()
    assert set(judged["explanation"]) == set(texts)
    effects = judged.set_index(["explanation", "behavior"])["expected_effect"]
    for text, said in list(zip(texts, key["said"], strict=True))[::97]:
        for style in STYLES_OF:
            assert effects[text, style] == effect_said(said, style)


def test_every_concept_can_be_said_twice():
    assert all(pair_explanation(concept, 5) for concept in DEFAULT.concepts)
