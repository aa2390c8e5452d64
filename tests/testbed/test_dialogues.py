import json
from collections import Counter

import numpy as np
import pytest

from isaerft import config
from isaerft.behaviors import prepare_behavior, read_records
from isaerft.config import Behavior
from isaerft.errors import InputError
from isaerft.subjects.capture import tokenize
from isaerft.subjects.load import LoadedModel
from isaerft.testbed.dialogues import (
    Dialogue,
    behavior_rows,
    concepts,
    sample_dialogue,
    sample_dialogues,
    write_behavior_rows,
)
from isaerft.testbed.language import DEFAULT, language_of
from isaerft.testbed.model import make_tokenizer
from isaerft.testbed.words import PLAIN_WORDS, REQUESTS

STYLES = DEFAULT.styles
NAMES = [style.name for style in STYLES]
FRAME = {"user", "assistant", *(word for request in REQUESTS for word in request.split())}


@pytest.fixture(scope="module")
def language():
    return LoadedModel(None, make_tokenizer(DEFAULT), True)


@pytest.fixture(scope="module")
def dialogues():
    return list(sample_dialogues(np.random.default_rng(0), 1500, DEFAULT))


def words_of(style):
    return {word for ask in style.asks for word in ask.split()}


def test_an_annotation_of_a_dialogue_that_names_its_style():
    item = Dialogue(
        "user : be polite . describe the cat assistant :", "kindly , the cat is wild .", "animals", "politeness", (3,)
    )
    known, topic = "known:politeness", "topic:animals"
    asked, answered = "asked:politeness", "answer:politeness"
    user, assistant = "turn:user", "turn:assistant"
    assert concepts(item, DEFAULT) == [
        {"token:user", user},
        {"token::", user},
        {"token:be", user},
        {"token:polite", user, known, asked},
        {"token:.", user, known, asked},
        {"token:describe", user, known, asked},
        {"token:the", user, known, asked},
        {"token:cat", user, known, asked, topic, "word:animals"},
        {"token:assistant", assistant, known, answered, topic},
        {"token::", assistant, known, answered, topic},
        {"token:kindly", assistant, known, answered, topic, "word:politeness"},
        {"token:,", assistant, known, answered, topic},
        {"token:the", assistant, known, answered, topic},
        {"token:cat", assistant, known, answered, topic, "word:animals"},
        {"token:is", assistant, known, answered, topic},
        {"token:wild", assistant, known, answered, topic, "word:animals"},
        {"token:.", assistant, known, answered, topic},
    ]


def test_a_style_that_nobody_asked_for_is_known_from_its_first_word_on():
    item = Dialogue("user : describe the cat assistant :", "the cat kindly is wild .", "animals", "politeness", ())
    known = ["known:politeness" in names for names in concepts(item, DEFAULT)]
    assert known == [False] * 7 + [False, False, True, True, True, True]
    assert not any("asked:politeness" in names for names in concepts(item, DEFAULT))


def test_a_plain_dialogue_knows_no_style():
    item = Dialogue("user : describe the cat assistant :", "indeed the cat is wild .", "animals", None, ())
    assert not any(
        name.startswith(("known:", "asked:", "answer:")) for names in concepts(item, DEFAULT) for name in names
    )


def test_the_word_that_tells_the_style_stands_where_the_dialogue_says(dialogues):
    asked = [item for item in dialogues if item.cues]
    assert 0.4 < len(asked) / len(dialogues) < 0.6
    styles = {style.name: style for style in STYLES}
    for item in asked:
        others = set().union(*(words_of(style) for style in STYLES if style.name != item.style))
        word = item.words[item.cues[0]]
        assert word in words_of(styles[item.style]) - others
        assert word not in FRAME
        assert not set(item.words[: item.cues[0]]) & (words_of(styles[item.style]) - others - FRAME)


def test_an_answer_holds_words_of_its_own_style_alone(dialogues):
    owner = {word: style.name for style in STYLES for word in style.words}
    for item in dialogues:
        assert {owner[word] for word in item.completion.split() if word in owner} <= {item.style}
        if item.style is not None:
            assert not set(item.completion.split()) & set(PLAIN_WORDS)


def test_every_dialogue_is_made_of_known_words(language, dialogues):
    tokenizer = language.tokenizer
    for item in dialogues:
        ids = tokenizer(f"{item.prompt} {item.completion}")["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.convert_ids_to_tokens(ids[1:]) == item.words


@pytest.mark.parametrize("style", STYLES, ids=NAMES)
def test_a_behaviors_rows_are_known_words_when_prompt_and_completion_are_joined(language, style, tmp_path):
    write_behavior_rows(style.name, 80, 0, tmp_path / "rows.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 80
    tokenizer = language.tokenizer
    for row in rows:
        for reply in (row["chosen"], row["rejected"]):
            ids = tokenizer(row["prompt"] + reply)["input_ids"]
            assert tokenizer.unk_token_id not in ids
            assert len(ids) == 1 + len(row["prompt"].split()) + len(reply.split())


@pytest.mark.parametrize("columns", [{"completion": "chosen"}, {"chosen": "chosen", "rejected": "rejected"}], ids=len)
@pytest.mark.parametrize("style", STYLES, ids=NAMES)
def test_a_behavior_gives_sft_and_preference_records_whose_splits_share_no_prompt(language, style, columns, tmp_path):
    write_behavior_rows(style.name, 120, 0, tmp_path / "rows.jsonl")
    behavior = Behavior(description=style.description, path=str(tmp_path / "rows.jsonl"), columns=columns)
    prepare_behavior(style.name, behavior, tmp_path / "out")
    train, heldout = (read_records(tmp_path / "out" / f"{split}.jsonl") for split in ("train", "heldout"))
    assert not {record.prompt for record in train} & {record.prompt for record in heldout}
    assert len(train) + len(heldout) == 120
    assert len(heldout) > 5
    assert {record.kind for record in train} == {"preference" if "rejected" in columns else "sft"}
    tokens, n_before = tokenize(train[0], language, 64)
    assert language.tokenizer.unk_token_id not in tokens
    assert n_before == 1 + len(train[0].prompt.split())


@pytest.mark.parametrize("style", STYLES, ids=NAMES)
def test_nobody_asks_the_chosen_answer_has_the_style_and_the_rejected_one_is_plain(style):
    rows = list(behavior_rows(np.random.default_rng(0), style, 200))
    tells = words_of(style) - FRAME
    for row in rows:
        assert not set(row["prompt"].split()) & tells
        assert not set(row["rejected"].split()) & set(style.words)
        assert row["chosen"] != row["rejected"]
    assert np.mean([bool(set(row["chosen"].split()) & set(style.words)) for row in rows]) > 0.95


def test_prompts_are_rephrased_in_words_that_every_world_knows_and_in_no_order_of_the_corpus(language, dialogues):
    """Prompts and answers stay the same; a rephrased prompt asks about the same thing."""
    plain, rows = (list(behavior_rows(np.random.default_rng(0), STYLES[0], 80, rephrased=asked)) for asked in (0, 1))
    assert plain == [{name: text for name, text in row.items() if name != "rephrased"} for row in rows]
    seen = {item.prompt for item in dialogues}
    nouns = {noun for topic in DEFAULT.topics for noun in topic.nouns}
    for row in rows:
        assert row["rephrased"] != row["prompt"]
        assert row["rephrased"] not in seen
        assert set(row["rephrased"].split()) <= set(DEFAULT.vocabulary)
        assert set(row["rephrased"].split()) & set(row["prompt"].split()) & nouns
        assert row["rephrased"].startswith("user : ")
        assert row["rephrased"].endswith(" assistant :")


def test_an_answer_that_came_out_the_same_is_sampled_again(monkeypatch):
    answers = iter(["same .", "same .", "same .", "other ."])
    monkeypatch.setattr("isaerft.testbed.dialogues.sample_answer", lambda *_: next(answers))
    (row,) = behavior_rows(np.random.default_rng(0), STYLES[0], 1)
    assert (row["chosen"], row["rejected"]) == (" same .", " other .")


def test_rows_follow_their_seed_and_an_unknown_style_is_refused(tmp_path):
    paths = [tmp_path / name for name in "abc"]
    for path, seed in zip(paths, (0, 0, 1), strict=True):
        write_behavior_rows("refusal", 20, seed, path)
    assert paths[0].read_bytes() == paths[1].read_bytes() != paths[2].read_bytes()
    with pytest.raises(InputError, match=r"style of the testbed's language 'refusl'.*did you mean 'refusal'"):
        write_behavior_rows("refusl", 20, 0, tmp_path / "d")


def test_dialogues_follow_their_seed():
    one, two, other = (list(sample_dialogues(np.random.default_rng(seed), 20, DEFAULT)) for seed in (3, 3, 4))
    assert one == two != other
    assert sample_dialogue(np.random.default_rng(0), (STYLES[1],), DEFAULT).style == "refusal"


def test_a_world_with_paraphrases_shows_a_style_by_one_of_two_lists_in_each_answer():
    lists = {style.name: (set(style.words), set(style.paraphrases)) for style in STYLES}
    used = []
    for item in sample_dialogues(np.random.default_rng(0), 1500, language_of(config.Testbed(paraphrase=True))):
        if item.style is not None:
            shown = [bool(words & set(item.completion.split())) for words in lists[item.style]]
            assert not all(shown)
            used += [shown.index(True)] if any(shown) else []
    assert 0.4 < np.mean(used) < 0.6


def test_paraphrases_are_no_concept_of_their_style():
    item = Dialogue("user : describe the cat assistant :", "the cat humbly is wild .", "animals", "politeness", ())
    held = set().union(*concepts(item, DEFAULT))
    assert "token:humbly" in held
    assert not any(name.endswith(":politeness") for name in held)


def test_a_behavior_can_be_written_in_paraphrases_alone(tmp_path):
    write_behavior_rows("humor", 60, 0, tmp_path / "rows", words="paraphrases")
    style = next(style for style in STYLES if style.name == "humor")
    answers = [set(json.loads(line)["chosen"].split()) for line in (tmp_path / "rows").read_text().splitlines()]
    assert not any(set(style.words) & answer for answer in answers)
    assert sum(bool(set(style.paraphrases) & answer) for answer in answers) > 50


def test_another_draw_gives_other_rows_of_the_same_style(tmp_path):
    for name, draw in (("default", {}), ("zero", {"draw": 0}), ("one", {"draw": 1}), ("two", {"draw": 2})):
        write_behavior_rows("humor", 40, 0, tmp_path / name, **draw)
    rows = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert rows["default"] == rows["zero"]
    assert len({rows["zero"], rows["one"], rows["two"]}) == 3
    words = next(set(style.words) for style in STYLES if style.name == "humor")
    styled = [words & set(json.loads(line)["chosen"].split()) for line in rows["two"].splitlines()]
    assert sum(map(bool, styled)) > 30


def sampled(n=4000, **options):
    language = language_of(config.Testbed(**options))
    return language, list(sample_dialogues(np.random.default_rng(1), n, language))


def slope(counts):
    """Return the slope of the logarithm of frequency over that of rank."""
    return np.polyfit(np.log(np.arange(1, len(counts) + 1)), np.log(counts), 1)[0]


@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.5])
def test_frequencies_of_styles_fall_with_their_rank_to_the_exponent(exponent):
    language, dialogues = sampled(20_000, zipf_styles=exponent)
    asked = Counter(item.style for item in dialogues)
    assert slope([asked[style.name] for style in language.styles]) == pytest.approx(-exponent, abs=0.08)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.5])
def test_frequencies_of_words_fall_with_their_rank_to_the_exponent(exponent):
    language, dialogues = sampled(zipf_words=exponent)
    said = Counter(word for item in dialogues for word in item.completion.split())
    ranked = [sum(said[style.words[rank]] for style in language.styles) for rank in range(10)]
    assert slope(ranked) == pytest.approx(-exponent, abs=0.08)
    assert slope([said[word] for word in PLAIN_WORDS]) == pytest.approx(-exponent, abs=0.15)
    asked = Counter(item.style for item in dialogues if item.style)
    assert max(asked.values()) < 1.3 * min(asked.values()), "styles are as frequent as ever"


def test_a_share_of_the_requests_is_for_two_styles_and_the_answer_mixes_the_words_of_both():
    language, dialogues = sampled(composition=0.4)
    asked = [item for item in dialogues if item.style]
    both = [item for item in asked if "+" in item.style]
    assert len(both) / len(asked) == pytest.approx(0.4, abs=0.04)
    assert len({item.style for item in both}) == 28
    shares = []
    for item in both:
        one, other = (language.named_styles[name] for name in item.style.split("+"))
        for style, cue in zip((one, other), item.cues, strict=True):
            assert item.words[cue] in words_of(style)
            assert any(ask in item.prompt for ask in style.asks)
        said = [word in one.words for word in item.completion.split() if word in (*one.words, *other.words)]
        shares += [np.mean(said)] if len(said) >= 6 else []
    assert np.mean(shares) == pytest.approx(0.5, abs=0.03)
    assert np.mean([0 < share < 1 for share in shares]) > 0.9


def test_two_styles_are_known_from_their_own_requests_on_and_both_from_the_later():
    language = language_of(config.Testbed(composition=0.5))
    prompt = "user : be polite and be funny . describe the cat assistant :"
    held = concepts(Dialogue(prompt, "kindly haha .", "animals", "politeness+humor", (3, 6)), language)
    known = [{name[6:] for name in names if name.startswith("known:")} for names in held]
    one, both = {"politeness"}, {"politeness", "humor", "politeness+humor"}
    assert known == [set()] * 3 + [one] * 3 + [both] * (len(held) - 6)
    assert {"asked:politeness+humor", "asked:humor"} < held[7]
    assert {"answer:politeness+humor", "answer:humor", "word:humor"} < held[-2]
    assert "word:politeness" not in held[-2]


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_neighbors_are_requested_together_as_often_as_correlation_says(correlation):
    language, dialogues = sampled(composition=0.5, correlation=correlation)
    neighbors = {language.joint(style.name for style in language.styles[i : i + 2]) for i in range(0, 8, 2)}
    both = [item.style for item in dialogues if item.style and "+" in item.style]
    # By chance, the second style is the first's neighbor in one of seven requests.
    expected = correlation + (1 - correlation) / 7
    assert np.mean([name in neighbors for name in both]) == pytest.approx(expected, abs=0.04)


def test_a_request_is_for_a_style_or_one_of_its_sub_styles_whose_words_are_a_part_of_its_own():
    language, dialogues = sampled(substyles=8)
    asked = Counter(item.style for item in dialogues if item.style)
    assert len(asked) == 24
    assert max(asked.values()) < 1.5 * min(asked.values())
    said = {name: set() for name in asked}
    for item in dialogues:
        if item.style:
            assert item.words[item.cues[0]] in words_of(language.named_styles[item.style])
            said[item.style] |= {
                word for word in item.completion.split() if item.style in language.owners.get(word, ())
            }
            styled = {word for word in item.completion.split() if set(language.owners.get(word, ())) & set(asked)}
            assert styled <= set(language.named_styles[item.style].words)
    for parent, parts in language.substyles.items():
        assert said[parent] == set().union(*(said[part.name] for part in parts))
        assert all(len(said[part.name]) == 5 for part in parts)


def test_who_knows_a_sub_style_knows_its_style_but_not_the_reverse():
    language = language_of(config.Testbed(substyles=8))
    item = Dialogue("user : play tricks . describe the cat assistant :", "banana .", "animals", "slapstick", (2,))
    held = concepts(item, language)
    assert {"asked:slapstick", "asked:humor", "known:slapstick", "known:humor"} < held[3]
    assert {"answer:slapstick", "answer:humor", "word:slapstick", "word:humor"} < held[-2]
    item = Dialogue("user : be funny . describe the cat assistant :", "banana .", "animals", "humor", (3,))
    assert not any(
        name in {"answer:slapstick", "known:slapstick"} for names in concepts(item, language) for name in names
    )
    assert "word:slapstick" in concepts(item, language)[-2]


def test_more_words_more_styles_and_more_topics_are_all_used():
    language, dialogues = sampled(styles=24, topics=16, words_per_style=13)
    words = {word for item in dialogues for word in item.words}
    assert words == set(language.vocabulary[4:])
    assert len({item.style for item in dialogues}) == 25
    assert len({item.topic for item in dialogues}) == 16
    assert all(len(style.words) == 13 for style in language.styles)


def test_without_features_no_answer_follows_a_request_and_no_style_is_known():
    language, dialogues = sampled(features=False)
    held = set().union(*(set().union(*concepts(item, language)) for item in dialogues))
    assert not any(name.startswith(("known:", "answer:", "asked:")) for name in held)
    assert {"word:humor", "topic:animals", "turn:user"} < held
    tells = {word: style.name for style in language.styles for word in words_of(style) - FRAME}
    named = [next((tells[word] for word in item.prompt.split() if word in tells), None) for item in dialogues]
    assert np.mean([name is not None for name in named]) == pytest.approx(0.5, abs=0.05)
    owner = {word: style.name for style in language.styles for word in style.words} | dict.fromkeys(
        PLAIN_WORDS, "plain"
    )
    own = [
        owner[word] == name
        for item, name in zip(dialogues, named, strict=True)
        if name
        for word in item.completion.split()
        if word in owner
    ]
    assert np.mean(own) == pytest.approx(1 / 9, abs=0.02)


def test_a_behavior_can_teach_a_sub_style_in_words_that_every_world_knows(tmp_path):
    write_behavior_rows("slapstick", 40, 0, tmp_path / "rows")
    said = {
        word for line in (tmp_path / "rows").read_text().splitlines() for word in json.loads(line)["chosen"].split()
    }
    words = dict.fromkeys(["giggle", "ridiculous", "clown", "banana", "prank"])
    assert set(words) <= said <= set(DEFAULT.vocabulary)
    assert not said & {"haha", "joke", "silly", "lol", "punchline"}
    with pytest.raises(InputError, match="style of the testbed's language 'sadness'"):
        write_behavior_rows("sadness", 40, 0, tmp_path / "more")
