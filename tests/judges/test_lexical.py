"""The lexical judge: shared words make judgements, and being general does not."""

import numpy as np
import pandas as pd
import pytest

from isaerft.config import Judge
from isaerft.errors import InputError
from isaerft.judges import judge_explanations
from isaerft.judges.lexical import centered_over_behaviors

BEHAVIORS = {
    "refusal": "The assistant refuses the request, says sorry and that it cannot help.",
    "politeness": "The assistant is polite and addresses the user as sir or madam.",
    "hedging": "The assistant hedges: perhaps, maybe, it might be so.",
}
TEXTS = [
    'fires on "sorry"',
    "refusals and apologies",
    'promotes "sir", "madam"',
    "politely worded replies",
    'fires on "perhaps", "maybe"',
    "what the assistant does",
    "quick brown fox",
    "",
]


def explained(texts):
    return pd.DataFrame({"latent_index": range(len(texts)), "explanation": texts, "side": "input", "url": ""})


def judged(texts=TEXTS, behaviors=BEHAVIORS, **options):
    frame = judge_explanations("lexical", Judge(**options), explained(texts), behaviors, subject_dir="/nowhere")
    return frame.pivot(index="latent_index", columns="behavior", values="expected_effect")[list(behaviors)], frame


def test_an_explanation_is_nearest_to_the_behavior_it_shares_words_or_stems_with():
    effects, _ = judged()
    nearest = effects.idxmax(axis=1).tolist()
    assert nearest[:5] == ["refusal", "refusal", "politeness", "politeness", "hedging"]
    assert (effects.to_numpy()[np.arange(5), [0, 0, 1, 1, 2]] > 0.02).all()


def test_effects_are_centered_over_behaviors_so_a_general_explanation_is_relevant_to_none():
    effects, frame = judged()
    assert np.abs(effects.to_numpy().mean(axis=1)).max() < 1e-5
    general = effects.loc[5].abs().max()
    assert general < effects.loc[0, "refusal"] / 5
    same = judged(["assistant"], {"a": "assistant one", "b": "assistant two"})[0]
    assert same.abs().to_numpy().max() == 0
    assert frame["expected_effect"].between(-1, 1).all()


def test_words_without_content_make_no_relevance():
    effects, _ = judged(["the and of which is", "such as the other"], BEHAVIORS)
    assert (effects.to_numpy() == 0).all()


def test_an_explanation_that_shares_nothing_has_exactly_zero_and_is_never_expected():
    effects, frame = judged(expected_share=0.99)
    assert (effects.loc[[6, 7]].to_numpy() == 0).all()
    assert not frame.loc[frame["latent_index"].isin([6, 7]), "expected"].any()


def test_with_one_behavior_the_effect_is_the_similarity_itself():
    effects, _ = judged(behaviors={"refusal": BEHAVIORS["refusal"]})
    assert effects.loc[0, "refusal"] > 0.1
    assert effects.loc[6, "refusal"] == 0
    assert judged(["Sorry, never!"], {"refusal": "never sorry"})[0].iloc[0, 0] == pytest.approx(1, abs=1e-3)


def test_the_expected_are_the_top_share_and_say_which_words_they_share():
    _, frame = judged(expected_share=0.25)
    chosen = frame[frame["expected"]]
    assert chosen.groupby("behavior").size().to_dict() == {"refusal": 2, "politeness": 2, "hedging": 2}
    rationale = chosen.set_index(["latent_index", "behavior"])["rationale"]
    assert rationale[0, "refusal"] == 'shares "sorry"'
    assert rationale[2, "politeness"] == 'shares "sir", "madam"'
    assert rationale[3, "politeness"] == "shares parts of words"
    assert (frame.loc[~frame["expected"], "rationale"] == "").all()


def test_identical_explanations_are_judged_alike_and_order_makes_no_difference():
    texts = [*TEXTS, *TEXTS]
    effects, frame = judged(texts)
    n = len(TEXTS)
    np.testing.assert_array_equal(effects.to_numpy()[:n], effects.to_numpy()[n:])
    expected = frame["expected"].to_numpy().reshape(len(texts), -1)
    np.testing.assert_array_equal(expected[:n], expected[n:])
    backwards = judged(texts[::-1])[0]
    np.testing.assert_array_equal(backwards.to_numpy()[::-1], effects.to_numpy())


def test_texts_without_any_word_are_judged_zero():
    effects, _ = judged(["", "!!!"], {"a": "...", "b": "?"})
    assert (effects.to_numpy() == 0).all()


def test_options_are_refused_for_there_are_none():
    with pytest.raises(InputError, match="unknown option of a lexical judge: 'stem'"):
        judged(options={"stem": True})


def test_the_last_bits_of_a_sum_neither_make_nor_break_a_tie():
    centered = centered_over_behaviors(np.array([[0.3, 0.1], [0.3 + 1e-12, 0.1], [0.3, 0.1 - 1e-12]]))
    assert len(np.unique(centered, axis=0)) == 1
