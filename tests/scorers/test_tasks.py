"""From evidence to items: balanced, of the right kind, with marks that no text can fake."""

import pandas as pd
import pytest

from isaerft.explanations.contexts import COLUMNS, read_contexts
from isaerft.scorers import tasks_of


def row(latent, side, rank, token="", before="", after=""):
    return dict(zip(COLUMNS, (latent, side, rank, token, before, after, 1.0), strict=True))


def evidence(latent, n_silent=3):
    rows = []
    for rank in range(3):
        rows.append(row(latent, "heldout", rank, f" word{latent}", f"a{rank} b", " c"))
        rows.append(row(latent, "unmarked", rank, " b", f"a{rank}", f" word{latent} c"))
    rows += [row(latent, "silent", rank, " nothing", f"s{rank}", " here") for rank in range(n_silent)]
    return rows + [row(latent, "amplified_heldout", rank, f" {name}{latent}") for rank, name in enumerate("xyz")]


def tasks(tmp_path, rows, texts=("said of 0",), seed=0, n_latents=None):
    pd.DataFrame(rows, columns=list(COLUMNS)).to_parquet(tmp_path / "c.parquet")
    explanations = pd.DataFrame(
        {"latent_index": range(len(texts)), "explanation": list(texts), "side": "input", "url": ""}
    )
    made = tasks_of(read_contexts(tmp_path / "c.parquet"), explanations, seed, n_latents)
    return {(task.latent, task.score): task for task in made}


def shown(task):
    return {(item.text, item.holds) for item in task.items}


def test_detection_shows_whole_windows_half_of_which_hold(tmp_path):
    task = tasks(tmp_path, evidence(0))[0, "detection"]
    assert shown(task) == {(f"a{r} b word0 c", True) for r in range(3)} | {
        (f"s{r} nothing here", False) for r in range(3)
    }
    assert all(item.focus == item.text for item in task.items)


def test_with_fewer_silent_windows_strong_and_weak_ones_stay(tmp_path):
    task = tasks(tmp_path, evidence(0, n_silent=2))[0, "detection"]
    assert {text for text, holds in shown(task) if holds} == {"a0 b word0 c", "a2 b word0 c"}
    assert sum(item.holds for item in task.items) == 2 == len(task.items) / 2
    assert (0, "detection") not in tasks(tmp_path, evidence(0, n_silent=0))


def test_fuzzing_shows_each_window_with_the_right_and_with_a_wrong_token_marked(tmp_path):
    task = tasks(tmp_path, evidence(0))[0, "fuzzing"]
    right = {(f"a{r} b <<word0>> c", True) for r in range(3)}
    assert shown(task) == right | {(f"a{r} <<b>> word0 c", False) for r in range(3)}
    assert {(item.focus, item.holds) for item in task.items} == {("word0", True), ("b", False)}


def test_a_window_without_an_inactive_token_is_left_out_of_fuzzing(tmp_path):
    rows = [one for one in evidence(0) if (one["side"], one["rank"]) != ("unmarked", 1)]
    assert {item.text[:2] for item in tasks(tmp_path, rows)[0, "fuzzing"].items} == {"a0", "a2"}


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
    (item,) = (item for item in tasks(tmp_path, rows)[0, "fuzzing"].items if item.holds)
    assert (item.focus, item.text) == (word, marked)


def test_output_shows_the_latents_own_tokens_among_those_of_others(tmp_path):
    rows = [one for latent in range(9) for one in evidence(latent)]
    task = tasks(tmp_path, rows)[0, "output"]
    assert [item.text for item in task.items if item.holds] == ["x0, y0, z0"]
    others = [item.text for item in task.items if not item.holds]
    assert len(set(others)) == len(others) == 6
    assert "x0, y0, z0" not in others


def test_a_list_of_the_same_tokens_is_no_other_list(tmp_path):
    same = [one | {"latent_index": 1} for one in evidence(0)]
    assert (0, "output") not in tasks(tmp_path, evidence(0) + same)
    assert len(tasks(tmp_path, evidence(0) + same + evidence(2))[0, "output"].items) == 2


def test_the_order_of_items_is_drawn_by_seed_and_tells_nothing(tmp_path):
    rows = [one for latent in range(40) for one in evidence(latent)]
    texts = [f"said of {latent}" for latent in range(40)]
    first = tasks(tmp_path, rows, texts)
    assert tasks(tmp_path, rows, texts) == first
    assert tasks(tmp_path, rows, texts, seed=1) != first
    at_first = [task.items[0].holds for (_, score), task in first.items() if score == "detection"]
    assert 8 < sum(at_first) < 32


def test_only_latents_that_are_explained_and_fire_are_asked_about_and_no_more_than_wanted(tmp_path):
    rows = [one for latent in (0, 1, 2, 7) for one in evidence(latent)]
    texts = [f"said of {latent}" for latent in range(5)]
    assert {latent for latent, _ in tasks(tmp_path, rows, texts)} == {0, 1, 2}
    assert len({latent for latent, _ in tasks(tmp_path, rows, texts, n_latents=2)}) == 2
