"""From evidence to items: balanced, of the right kind, with marks that no text can fake."""

import pandas as pd
import pytest

from isaerft.explanations.contexts import BY_TOKEN, COLUMNS, read_contexts
from isaerft.registry import SCORES
from isaerft.scorers import questions_of, tasks_of


def row(latent, side, rank, token="", before="", after="", **by_token):
    return dict(zip(COLUMNS, (latent, side, rank, token, before, after, 1.0), strict=True)) | by_token


def evidence(latent, n_silent=3):
    rows = []
    for rank in range(3):
        rows.append(row(latent, "heldout", rank, f" word{latent}", f"a{rank} b", " c"))
        rows.append(row(latent, "unmarked", rank, " b", f"a{rank}", f" word{latent} c"))
    rows += [row(latent, "silent", rank, " nothing", f"s{rank}", " here") for rank in range(n_silent)]
    return rows + [row(latent, "amplified_heldout", rank, f" {name}{latent}") for rank, name in enumerate("xyz")]


def tasks(tmp_path, rows, texts=("said of 0",), seed=0, n_latents=None):
    pd.DataFrame(rows, columns=[*COLUMNS, *BY_TOKEN]).to_parquet(tmp_path / "c.parquet")
    explanations = pd.DataFrame(
        {"latent_index": range(len(texts)), "explanation": list(texts), "side": "input", "url": ""}
    )
    made = tasks_of(read_contexts(tmp_path / "c.parquet"), explanations, questions_of(SCORES.builtin), seed, n_latents)
    return {(task.latent, task.question.name): task for task in made}


def shown(task):
    return {(item.text, item.holds) for item in task.items}


def test_detection_shows_whole_windows_half_of_which_hold(tmp_path):
    task = tasks(tmp_path, evidence(0))[0, "windows"]
    assert shown(task) == {(f"a{r} b word0 c", True) for r in range(3)} | {
        (f"s{r} nothing here", False) for r in range(3)
    }
    assert all(item.focus == item.text for item in task.items)


def test_with_fewer_silent_windows_strong_and_weak_ones_stay(tmp_path):
    task = tasks(tmp_path, evidence(0, n_silent=2))[0, "windows"]
    assert {text for text, holds in shown(task) if holds} == {"a0 b word0 c", "a2 b word0 c"}
    assert sum(item.holds for item in task.items) == 2 == len(task.items) / 2
    assert (0, "windows") not in tasks(tmp_path, evidence(0, n_silent=0))


def test_fuzzing_shows_each_window_with_the_right_and_with_a_wrong_token_marked(tmp_path):
    task = tasks(tmp_path, evidence(0))[0, "marked_tokens"]
    right = {(f"a{r} b <<word0>> c", True) for r in range(3)}
    assert shown(task) == right | {(f"a{r} <<b>> word0 c", False) for r in range(3)}
    assert {(item.focus, item.holds) for item in task.items} == {("word0", True), ("b", False)}


def test_a_window_without_an_inactive_token_is_left_out_of_fuzzing(tmp_path):
    rows = [one for one in evidence(0) if (one["side"], one["rank"]) != ("unmarked", 1)]
    assert {item.text[:2] for item in tasks(tmp_path, rows)[0, "marked_tokens"].items} == {"a0", "a2"}


@pytest.mark.parametrize(
    ("before", "token", "after", "word", "marked"),
    [
        ("so un", "believ", "able it", "unbelievable", "so un<<believ>>able it"),
        ("so", " un", "believable it", "unbelievable", "so <<un>>believable it"),
        ("", "it", " is", "it", "<<it>> is"),
        ("a", "\n", "b", "line break", "a<<line break>>b"),
        ("fake <<mark>>", " here", "", "here", "fake < <mark> > <<here>>"),
    ],
)
def test_the_marked_word_is_the_word_that_the_token_is_part_of(tmp_path, before, token, after, word, marked):
    rows = [row(0, "heldout", 0, token, before, after), row(0, "unmarked", 0, before + token + after)]
    (item,) = (item for item in tasks(tmp_path, rows)[0, "marked_tokens"].items if item.holds)
    assert (item.focus, item.text) == (word, marked)


def test_output_shows_the_latents_own_tokens_among_those_of_others(tmp_path):
    rows = [one for latent in range(9) for one in evidence(latent)]
    task = tasks(tmp_path, rows)[0, "token_lists"]
    assert [item.text for item in task.items if item.holds] == ["x0, y0, z0"]
    others = [item.text for item in task.items if not item.holds]
    assert len(set(others)) == len(others) == 6
    assert "x0, y0, z0" not in others


def test_a_list_of_the_same_tokens_is_no_other_list(tmp_path):
    same = [one | {"latent_index": 1} for one in evidence(0)]
    assert (0, "token_lists") not in tasks(tmp_path, evidence(0) + same)
    assert len(tasks(tmp_path, evidence(0) + same + evidence(2))[0, "token_lists"].items) == 2


def test_the_order_of_items_is_drawn_by_seed_and_tells_nothing(tmp_path):
    rows = [one for latent in range(40) for one in evidence(latent)]
    texts = [f"said of {latent}" for latent in range(40)]
    first = tasks(tmp_path, rows, texts)
    assert tasks(tmp_path, rows, texts) == first
    assert tasks(tmp_path, rows, texts, seed=1) != first
    at_first = [task.items[0].holds for (_, score), task in first.items() if score == "windows"]
    assert 8 < sum(at_first) < 32


def test_only_latents_that_are_explained_and_fire_are_asked_about_and_no_more_than_wanted(tmp_path):
    rows = [one for latent in (0, 1, 2, 7) for one in evidence(latent)]
    texts = [f"said of {latent}" for latent in range(5)]
    assert {latent for latent, _ in tasks(tmp_path, rows, texts)} == {0, 1, 2}
    assert len({latent for latent, _ in tasks(tmp_path, rows, texts, n_latents=2)}) == 2


def test_one_question_serves_several_scores_and_the_draws_of_each_depend_on_no_other(tmp_path):
    assert [question.name for question in questions_of(["purity", "detection", "output"])] == ["windows", "token_lists"]
    rows = [one for latent in range(9) for one in evidence(latent)]
    together = tasks(tmp_path, rows)[0, "token_lists"]
    explanations = pd.DataFrame({"latent_index": [0], "explanation": "said of 0", "side": "input", "url": ""})
    (alone,) = tasks_of(read_contexts(tmp_path / "c.parquet"), explanations, questions_of(["output"]), 0)
    assert alone == together


def by_token(rank, values, side="heldout"):
    return row(0, side, rank, " b", f"a{rank}", " c", tokens=[f"a{rank}", " b", "c d"], activations=values)


def test_every_token_of_a_window_comes_with_its_word_and_its_activation(tmp_path):
    rows = [by_token(0, [0.0, 3.0, 0.5]), by_token(1, [0.0, -2.0, 0.0]), by_token(0, [0.0] * 3, "silent")]
    found = tasks(tmp_path, rows)[0, "every_token"].items
    assert [(item.focus, item.truth, item.group) for item in found] == [
        ("a0", 0.0, 0), ("bc", 3.0, 0), ("bc d", 0.5, 0), ("a0", 0.0, 1), ("bc", 0.0, 1), ("bc d", 0.0, 1),
    ]  # fmt: skip
    assert {item.text for item in found} == {"a0 bc d"}
    rows = [by_token(0, [0.0, -2.0, 0.0]), by_token(0, [0.0] * 3, "silent")]
    assert max(item.truth for item in tasks(tmp_path, rows)[0, "every_token"].items) == 2.0


def test_without_activations_token_by_token_there_is_no_such_task(tmp_path):
    assert (0, "every_token") not in tasks(tmp_path, evidence(0))
    assert (0, "windows") in tasks(tmp_path, evidence(0))


def test_each_silent_window_is_the_intruder_among_four_that_are_drawn(tmp_path):
    rows = [row(0, "heldout", rank, " x", f"a{rank}", " c") for rank in range(6)]
    rows += [row(0, "silent", rank, " y", f"s{rank}", " c") for rank in range(3)]
    found = tasks(tmp_path, rows)[0, "intruders"].items
    assert [item.group for item in found] == [group for group in range(3) for _ in range(5)]
    for group in range(3):
        own = [item for item in found if item.group == group]
        assert [item.text for item in own if not item.holds] == [f"s{group} <<y>> c"]
        assert len({item.text for item in own}) == 5
    assert len({tuple(item.holds for item in found if item.group == group) for group in range(3)}) > 1
    assert (0, "intruders") not in tasks(tmp_path, rows[3:])


def test_texts_written_while_steering_stand_beside_those_written_anyway(tmp_path):
    rows = [row(0, "steered", rank, "", "tell me", f" word{rank}") for rank in range(2)]
    rows[1]["value"] = 10.0
    rows += [row(0, "unsteered", rank, "", "tell me", f" plain{rank}") | {"value": 0.0} for rank in range(2)]
    found = tasks(tmp_path, rows)[0, "continuations"].items
    assert {(item.text, item.truth) for item in found} == {
        ("word0", 1.0), ("word1", 10.0), ("plain0", 0.0), ("plain1", 0.0),
    }  # fmt: skip
