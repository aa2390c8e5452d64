"""Which columns hold prompt and reply is found by the reader itself, and what was understood is told."""

import json
from pathlib import Path

import pytest

from isaerft.behaviors.detect import detect_columns, understand
from isaerft.behaviors.readers import to_record
from isaerft.config import Behavior
from isaerft.errors import InputError
from isaerft.io import Row

REAL = Path("data/real/behaviors")
TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]


def write(tmp_path, rows, name="rows.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("values", "prompt", "reply"),
    [
        ({"prompt": "p", "completion": "c"}, "p", "c"),
        ({"question": "q", "answer": "a", "source": "s"}, "q", "a"),
        ({"instruction": "i", "input": "x", "output": "o"}, "i\n\nx", "o"),
        ({"instruction": "i", "input": "", "output": "o"}, "i", "o"),
        ({"instruction": "i", "instances": [{"input": "x", "output": "o"}]}, "i\n\nx", "o"),
        ({"messages": TURNS}, TURNS[:1], "Hello!"),
        ({"chat": TURNS, "n": 3}, TURNS[:1], "Hello!"),
        (
            {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]},
            TURNS[:1],
            "Hello!",
        ),
        ({"prompt": TURNS[:1], "completion": TURNS[1:]}, TURNS[:1], "Hello!"),
        ({"prompt": "Hi", "chosen": "Hello!", "rejected": "Go away."}, "Hi", "Hello!"),
        ({"chosen": TURNS, "rejected": TURNS[:1]}, TURNS[:1], "Hello!"),
        ({"chosen": "\n\nHuman: Hi\n\nAssistant: Hello!", "rejected": "x"}, TURNS[:1], "Hello!"),
    ],
)
def test_what_people_call_their_columns_is_read_as_records(values, prompt, reply):
    options = detect_columns("b", [Row("row 1", values)])
    record = to_record(Row("row 1", values), Behavior(description="d", **options))
    assert (record.prompt, record.completion) == (prompt, reply)


def test_columns_that_nobody_knows_are_listed_with_what_to_say(tmp_path):
    rows = [{"left": f"l{i}", "right": f"r{i}"} for i in range(9)]
    with pytest.raises(InputError, match=r"left, right; allowed: .*--columns mine:prompt=COLUMN"):
        understand("mine", {"path": write(tmp_path, rows)})
    found = understand("mine", {"path": write(tmp_path, rows), "columns": {"prompt": "left", "completion": "right"}})
    assert len(found.records) == 9


def test_rows_that_cannot_be_used_are_counted_and_too_many_are_an_error(tmp_path):
    rows = [{"prompt": f"p{i}", "completion": "" if i == 7 else f"c{i}"} for i in range(40)]
    found = understand("b", {"path": write(tmp_path, [*rows, rows[0]])})
    assert (found.n_rows, len(found.records)) == (41, 39)
    assert found.left_out == {"completion is blank": 1, "repeats an earlier row": 1}
    bad = [*rows, *({"prompt": f"q{i}", "completion": " "} for i in range(20))]
    with pytest.raises(InputError, match="21 of 60 rows cannot be used"):
        understand("b", {"path": write(tmp_path, bad), "columns": {"prompt": "prompt", "completion": "completion"}})


def test_ids_that_repeat_are_ignored_and_it_is_said(tmp_path):
    rows = [{"id": f"chat{i // 2}", "prompt": f"p{i}", "completion": f"c{i}"} for i in range(8)]
    found = understand("b", {"path": write(tmp_path, rows)})
    assert found.options["ids"] == "derived"
    assert len(found.records) == 8
    unique = understand("b", {"path": write(tmp_path, rows[::2])})
    assert "ids" not in unique.options


def test_columns_with_few_values_are_what_where_could_choose(tmp_path):
    rows = [{"id": f"{i}", "prompt": f"p{i}", "completion": "ab"[i % 2], "label": "ny"[i % 3 > 0]} for i in range(12)]
    found = understand("b", {"path": write(tmp_path, rows)})
    assert found.labels == {"label": ["y", "n"]}
    chosen = understand("b", {"path": write(tmp_path, rows), "where": {"label": "n"}})
    assert (len(chosen.records), chosen.labels) == (4, {})


def test_without_detection_the_columns_are_read_as_the_study_reads_them(tmp_path):
    path = write(tmp_path, [{"question": "q", "answer": "a"}])
    with pytest.raises(InputError, match="unknown column"):
        understand("b", {"path": path}, detect=False)


@pytest.mark.skipif(not REAL.is_dir(), reason="the public data is not here")
@pytest.mark.parametrize(
    ("path", "n"),
    [
        ("xstest/xstest_v2_completions_gpt4.csv", 450),
        ("hh-rlhf/harmless-base-test.jsonl.gz", 2308),
        ("caa/sycophancy.json", 1000),
        ("anthropic-evals/risk-averse.jsonl", 1000),
        ("self-instruct/user_oriented_instructions.jsonl", 252),
    ],
)
def test_files_that_others_made_are_understood_without_being_told(path, n):
    assert len(understand("b", {"path": str(REAL / path)}).records) == n
