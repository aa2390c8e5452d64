import copy
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isaerft import config
from isaerft.judges import judge_explanations
from isaerft.subjects.facts import latent_facts, measure_firing
from isaerft.subjects.load import LoadedSubject
from isaerft.subjects.points import find_hook
from isaerft.testbed.arms import N_PAIR_WORDINGS, effect_said, pair_explanation
from isaerft.testbed.dialogues import concepts, sample_dialogues
from isaerft.testbed.language import DEFAULT, expected_effect, language_of
from isaerft.testbed.model import corpus_rows, make_tokenizer
from isaerft.testbed.truth import (
    WRONG_SHARES,
    _share_when_wrong,
    _words,
    corrupt,
    input_truth,
    output_truth,
    write_truth,
)
from isaerft.testbed.wording import N_WORDINGS, true_explanation, wordings

CONCEPTS = st.lists(st.sampled_from("aaabcd"), min_size=2, max_size=30).filter(lambda names: len(set(names)) > 1)


@settings(deadline=None)
@given(CONCEPTS, st.integers(0, 2**32 - 1), st.data())
def test_exactly_the_wrong_ones_become_wrong_and_none_stays_right_by_accident(names, seed, data):
    truth = np.array(names)
    wrong = np.array(data.draw(st.lists(st.booleans(), min_size=len(names), max_size=len(names))))
    result = corrupt(truth, wrong, np.random.default_rng(seed))
    np.testing.assert_array_equal(result != truth, wrong)
    assert set(result) <= set(names)


def test_wrong_explanations_are_exchanged_where_no_concept_holds_the_majority():
    truth = np.repeat(["a", "b", "c", "d"], 5)
    result = corrupt(truth, np.ones(20, bool), np.random.default_rng(0))
    assert sorted(result) == sorted(truth)


@settings(deadline=None)
@given(CONCEPTS, st.integers(0, 2**32 - 1))
def test_the_arms_are_nested_and_hold_their_share(names, seed):
    order = _share_when_wrong(np.array(names), np.random.default_rng(seed))
    arms = [order < share for share in WRONG_SHARES]
    for share, arm in zip(WRONG_SHARES, arms, strict=True):
        assert abs(arm.sum() - share * len(names)) <= 0.5 + 1e-9
    assert all((small <= large).all() for small, large in pairwise(arms))
    assert arms[-1].all()


def test_every_concept_has_its_share_of_wrong_explanations():
    truth = np.repeat(["a", "b", "c"], [100, 40, 60])
    order = _share_when_wrong(truth, np.random.default_rng(0))
    for concept in "abc":
        for share in WRONG_SHARES:
            assert (order[truth == concept] < share).mean() == pytest.approx(share, abs=0.05)


def test_a_latent_that_reads_one_word_is_found_to_fire_on_that_word(world, monkeypatch):
    subject, _, _ = world
    monkeypatch.setattr("isaerft.testbed.truth.N_DIALOGUES", 150)
    # At the input of block 0 the residual stream is the word's embedding; these four words get a dimension each.
    model = copy.deepcopy(subject.model)
    names = ["garden", "sorry", "polite", "user"]
    ids = subject.language.tokenizer.convert_tokens_to_ids(names)
    words = model.get_input_embeddings().weight
    words[:, :4] = 0
    words[ids, range(4)] = 1
    encoder = torch.zeros(16, 12)
    encoder[range(4), range(4)] = 1
    dictionary = replace(
        subject.dictionary,
        W_enc=encoder,
        b_enc=torch.full((12,), -0.5),
        b_dec=torch.zeros(16),
    )
    used = LoadedSubject(
        replace(subject.language, model=model), dictionary, find_hook(model, "blocks.0.hook_resid_pre")
    )
    truth = input_truth(used, DEFAULT, np.random.default_rng(0))
    assert truth.latent_index.tolist() == [0, 1, 2, 3]
    assert truth.concept.tolist() == [f"token:{name}" for name in names]
    assert truth.f1.tolist() == pytest.approx([1] * 4)


WORLDS = {
    "hierarchy": (
        {"substyles": 8},
        ["answer:slapstick", "answer:humor", "known:alarm", "known:jesting", "word:slapstick"],
    ),
    "composition": ({"composition": 0.5}, ["answer:refusal+humor", "answer:refusal", "asked:humor", "known:alarm"]),
    "styles_24": ({"styles": 24, "topics": 16}, ["answer:sadness", "known:optimism", "word:piracy", "topic:mountains"]),
    "no_features": ({"features": False}, ["word:humor", "turn:user", "topic:garden", "token:haha"]),
}


@pytest.mark.parametrize("name", WORLDS)
def test_what_latents_were_made_to_fire_on_is_found_to_be_their_truth(name, world, monkeypatch):
    options, planted = WORLDS[name]
    language, n = language_of(config.Testbed(**options)), 250
    subject, _, _ = world
    monkeypatch.setattr("isaerft.testbed.truth.N_DIALOGUES", n)
    tokenizer = make_tokenizer(language)
    dialogues = sample_dialogues(np.random.default_rng(5), n, language)
    held = {tuple(tokenizer.convert_tokens_to_ids(item.words)): concepts(item, language) for item in dialogues}

    def activations(_model, _hook, tokens, mask):
        found = torch.zeros(*tokens.shape, 12)
        for row, ids in enumerate(tokens.tolist()):
            for place, names in enumerate(held[tuple(ids[1 : int(mask[row].sum())])], 1):
                found[row, place, : len(planted)] = torch.tensor([float(concept in names) for concept in planted])
        return SimpleNamespace(activation=found)

    monkeypatch.setattr("isaerft.testbed.truth.run_below", activations)
    zeros = {"W_enc": torch.eye(12), "b_enc": torch.full((12,), -0.5), "b_dec": torch.zeros(12)}
    known = replace(subject.language, tokenizer=tokenizer)
    used = replace(subject, language=known, dictionary=replace(subject.dictionary, **zeros, W_dec=torch.eye(12)))
    truth = input_truth(used, language, np.random.default_rng(5))
    assert truth.concept.tolist() == planted
    assert truth.f1.tolist() == pytest.approx([1] * len(planted))


def test_f1_is_that_of_firing_and_concept_by_hand(world, monkeypatch):
    subject, _, _ = world
    monkeypatch.setattr("isaerft.testbed.truth.N_DIALOGUES", 40)
    truth = input_truth(subject, DEFAULT, np.random.default_rng(5))
    dialogues = list(sample_dialogues(np.random.default_rng(5), 40, DEFAULT))
    from isaerft.subjects.hooks import residual_stream

    fires, held = [], []
    for item in dialogues:
        ids = torch.tensor([subject.language.tokenizer(f"{item.prompt} {item.completion}")["input_ids"]])
        residual = residual_stream(subject.model, subject.hook, ids, torch.ones_like(ids))[0, 1:]
        fires.append(subject.dictionary.encode_dense(residual).numpy() > 0)
        held += concepts(item, DEFAULT)
    fires = np.concatenate(fires)
    assert set(truth.latent_index) == set(np.flatnonzero(fires.any(0)))
    for row in truth.itertuples():
        holds = np.array([row.concept in names for names in held])
        own = fires[:, row.latent_index]
        f1 = 2 * (own & holds).sum() / (own.sum() + holds.sum())
        assert row.f1 == pytest.approx(f1, abs=0.01)


def test_a_latent_that_writes_a_styles_words_is_found_to_promote_them(world):
    subject, _, _ = world
    model = subject.model
    words = model.get_output_embeddings().weight
    rows = []
    for style in DEFAULT.styles[:3]:
        ids = subject.language.tokenizer.convert_tokens_to_ids(list(style.words))
        rows.append(30 * (words[ids].mean(0) - words.mean(0)))
    generator = torch.Generator().manual_seed(0)
    decoder = torch.cat([torch.stack(rows), 0.01 * torch.randn(9, 16, generator=generator)])
    dictionary = replace(subject.dictionary, W_dec=decoder)
    latents = pd.DataFrame({"latent_index": range(12), "mean_activation": [1.0] * 11 + [np.nan]})
    above = find_hook(model, "blocks.1.hook_resid_post")
    truth = output_truth(
        replace(subject, dictionary=dictionary, hook=above), DEFAULT, latents, np.random.default_rng(0)
    )
    assert truth.latent_index.tolist() == list(range(11)), "a latent that never fires has no output"
    assert truth.concept.tolist()[:3] == [f"promotes:{style.name}" for style in DEFAULT.styles[:3]]


def test_the_truth_is_written_as_arms_that_are_wrong_where_they_should_be(world, tmp_path, monkeypatch):
    subject, _, _ = world
    monkeypatch.setattr("isaerft.testbed.truth.N_DIALOGUES", 60)
    rows = corpus_rows(subject.language, DEFAULT, n_tokens=2000, context_size=64, seed=0)
    facts = latent_facts(subject, measure_firing(subject, rows, 32), cluster_cosine=0.9)
    write_truth(subject, DEFAULT, facts, {"no": "refusal", "jokes": "humor"}, tmp_path / "truth", 0)
    for side in ("input", "output"):
        right = pd.read_csv(tmp_path / "truth" / f"{side}.csv")
        assert set(right.side) == {side}
        concept = pd.read_csv(tmp_path / "truth" / "concepts.csv").query("side == @side").concept
        own = wordings(right.latent_index, side, 0)
        assert right.explanation.tolist() == [true_explanation(*pair) for pair in zip(concept, own, strict=True)]
        before = np.zeros(len(right), bool)
        for share in WRONG_SHARES:
            arm = pd.read_csv(tmp_path / "truth" / f"{side}_wrong{round(100 * share)}.csv")
            assert arm.latent_index.equals(right.latent_index)
            wrong = (arm.explanation != right.explanation).to_numpy()
            said = [{true_explanation(name, wording) for name in concept} for wording in own]
            assert all(map(set.__contains__, said, arm.explanation)), "the wording is not the latent's own"
            if right.explanation.nunique() > 1:
                assert abs(wrong.sum() - share * len(right)) <= 0.5 + 1e-9
            assert (before <= wrong).all()
            before = wrong
    judged = pd.read_csv(tmp_path / "truth" / "judgements.csv")
    assert set(judged.behavior) == {"no", "jokes"}
    assert not judged.duplicated(["explanation", "behavior"]).any()
    for path in (tmp_path / "truth").glob("*put*.csv"):
        assert set(pd.read_csv(path).explanation) <= set(judged.explanation), "an explanation that no one judged"
    both = pd.read_csv(tmp_path / "truth" / "both.csv")
    assert both.groupby("side").size().to_dict() == {
        side: len(pd.read_csv(tmp_path / "truth" / f"{side}.csv")) for side in ("input", "output")
    }
    key = pd.read_csv(tmp_path / "truth" / "benchmark_key.csv")
    for (side, share), rows in key.groupby(["side", "share"]):
        arm = pd.read_csv(tmp_path / "truth" / f"benchmark_{side}_{round(100 * share)}.csv")
        assert arm.latent_index.tolist() == rows.latent_index.tolist()
        true = pd.read_csv(tmp_path / "truth" / "concepts.csv").query("side == @side").set_index("latent_index").concept
        assert rows.true.tolist() == true[rows.latent_index].tolist()
        assert set(true.drop(rows.latent_index)) <= {"promotes:none"}
    assert set(key.side) == {"input", "output"}
    write_truth(subject, DEFAULT, facts, {"no": "refusal", "jokes": "humor"}, tmp_path / "again", 0)
    for path in (tmp_path / "truth").iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_without_features_no_latent_fires_on_a_style_and_none_is_expected_to_change(world, tmp_path, monkeypatch):
    subject, _, _ = world
    monkeypatch.setattr("isaerft.testbed.truth.N_DIALOGUES", 60)
    language = language_of(config.Testbed(features=False))
    rows = corpus_rows(subject.language, language, n_tokens=2000, context_size=64, seed=0)
    facts = latent_facts(subject, measure_firing(subject, rows, 32), cluster_cosine=0.9)
    write_truth(subject, language, facts, {style.name: style.name for style in DEFAULT.styles}, tmp_path / "truth", 0)
    found = pd.read_csv(tmp_path / "truth" / "concepts.csv").query("side == 'input'")
    assert not found.concept.str.match("answer:|known:|asked:").any()
    judged = pd.read_csv(tmp_path / "truth" / "judgements.csv").set_index("explanation").expected_effect
    assert len(found) > 5
    assert judged[pd.read_csv(tmp_path / "truth" / "input.csv").explanation].max() <= 0.5


def read_by_words(texts, sides, folder, language=DEFAULT):
    """Return effects, (n_texts, n_styles), as the testbed's word list reads them."""
    styles = {style.name: style.name for style in DEFAULT.styles}
    _words(language, styles).to_csv(folder / "words.csv", index=False)
    explained = pd.DataFrame({"latent_index": range(len(texts)), "explanation": texts, "side": sides, "url": ""})
    judge = config.Judge(kind="lexicon", path=str(folder / "words.csv"))
    return judge_explanations("truth", judge, explained, styles, subject_dir=folder)


@pytest.mark.parametrize("options", [{}, {"styles": 24, "topics": 16}, {"substyles": 8, "composition": 0.5}], ids=len)
def test_the_word_list_gives_every_true_explanation_its_effect_in_every_wording(options, tmp_path):
    language = language_of(config.Testbed(**options))
    known = [concept for concept in language.concepts for _ in range(N_WORDINGS)]
    sides = ["output" if concept.startswith("promotes:") else "input" for concept in known]
    texts = [true_explanation(concept, number % N_WORDINGS) for number, concept in enumerate(known)]
    frame = read_by_words(texts, sides, tmp_path, language)
    truth = [expected_effect(concept, style.name) for concept in known for style in DEFAULT.styles]
    assert frame["expected_effect"].tolist() == truth
    assert frame["expected"].tolist() == [effect > 0.5 for effect in truth]


def test_the_word_list_reads_the_benchmarks_explanations_as_its_judgements_do(tmp_path):
    rng = np.random.default_rng(0)
    sides = {
        side: [name for name in DEFAULT.concepts if name.startswith("promotes:") == (side == "output")]
        for side in ("input", "output")
    }
    said = [(side, name) for side, names in sides.items() for name in names]
    said += [(side, f"{a}&{b}") for side, names in sides.items() for a, b in rng.permuted([names] * 20, axis=1)[:, :2]]
    texts = [pair_explanation(name, int(rng.integers(N_PAIR_WORDINGS))) for _, name in said]
    frame = read_by_words(texts, [side for side, _ in said], tmp_path)
    truth = [effect_said(name, style.name) for _, name in said for style in DEFAULT.styles]
    assert frame["expected_effect"].tolist() == pytest.approx(truth)


def test_the_word_list_reads_what_local_explanations_say(tmp_path):
    texts = [
        'fires on "sir", "madam"; for example "haha joke [sir] ."',
        'promotes "haha", "joke", "garden", "<pad>"',
        'amplified, makes "also", "just" more likely',
        'fires on "sir"; promotes "haha", "."',
    ]
    frame = read_by_words(texts, ["input", "output", "output", "both"], tmp_path)
    effects = frame.pivot(index="latent_index", columns="behavior", values="expected_effect")
    assert effects.loc[0].pipe(lambda row: row[row != 0]).to_dict() == {"politeness": 0.25}
    assert effects.loc[1].pipe(lambda row: row[row != 0]).to_dict() == {"humor": 0.5}
    assert set(effects.loc[2]) == {-1}
    assert effects.loc[3].pipe(lambda row: row[row != 0]).to_dict() == {"politeness": 0.25, "humor": 0.5}
