"""From raw rows to records: filters, column mapping, dialogues, hub data sets."""

import json

import pytest

from isaerft.behaviors import read_rows
from isaerft.behaviors.readers import check_fields, field_value, to_record
from isaerft.config import Behavior
from isaerft.errors import InputError
from isaerft.io import Row

USER = {"role": "user", "content": "u"}


def behavior(**options):
    return Behavior(description="does it", **options)


def record(values, **options):
    return to_record(Row("row 1", values), behavior(**options))


def data(tmp_path, *rows):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_fields_come_from_columns_of_their_own_name_unless_mapped():
    made = record({"id": 4, "prompt": "p", "text": "t", "completion": "c"}, columns={"prompt": "text"})
    assert (made.id, made.prompt, made.completion) == ("4", "t", "c")


def test_a_prompt_in_other_words_is_read_only_from_a_column_that_is_named():
    values = {"prompt": "p", "completion": "c", "rephrased": True, "again": [{"role": "system", "content": "s"}, USER]}
    assert record(values).rephrased is None
    assert record(values, columns={"rephrased": "again"}, system="drop").rephrased == [USER]


def test_mapping_one_kind_of_reply_leaves_out_the_other():
    values = {"prompt": "p", "completion": "c", "good": "g", "bad": "b"}
    made = record(values, columns={"chosen": "good", "rejected": "bad"})
    assert (made.completion, made.chosen, made.rejected) == (None, "g", "b")


def test_unmapped_empty_reply_columns_do_not_count():
    assert record({"prompt": "p", "completion": None, "chosen": "a", "rejected": "b"}).kind == "preference"


def test_a_template_fills_in_columns_and_nested_paths_and_strips_its_ends():
    row = Row("row 1", {"a": "x", "n": [{"in": "", "k": 3}], "odd{name}": "o"})
    assert field_value(row, "{a} and {n.0.k}: {{kept}}") == "x and 3: {kept}"
    assert field_value(row, "{a}\n\n{n.0.in}") == "x"
    assert field_value(row, "odd{name}") == "o"
    with pytest.raises(InputError, match="in a template is"):
        field_value(row, "{n}")


def test_white_space_of_a_plain_column_is_kept_for_the_tokenizer():
    assert record({"prompt": "p", "completion": " Yes"}).completion == " Yes"


@pytest.mark.parametrize(
    ("values", "columns", "message"),
    [
        ({"promt": "p", "completion": "c"}, {}, "unknown column in row 1: 'prompt'.*did you mean 'promt'"),
        ({"prompt": "p", "answer": "c"}, {}, "unknown column in row 1: 'completion'"),
        ({"prompt": "p", "answer": "c"}, {"completion": "anser"}, "did you mean 'answer'"),
        ({"prompt": "p", "answer": "c"}, {"completion": "{anser}"}, "did you mean 'answer'"),
        ({"prompt": "p", "answer": None}, {"completion": "answer"}, "row 1: completion is blank"),
        ({"prompt": "p", "completion": None}, {}, "row 1: completion is blank"),
        ({"prompt": "p", "completion": float("nan")}, {}, "row 1: completion is blank"),
        ({"prompt": "p", "completion": ""}, {}, "row 1: completion is blank"),
        ({"prompt": None, "completion": "c"}, {}, "row 1 has no prompt"),
    ],
)
def test_a_column_that_is_missing_or_blank_is_an_error(values, columns, message):
    with pytest.raises(InputError, match=message):
        record(values, columns=columns)


def test_a_field_that_records_do_not_have_is_an_error():
    with pytest.raises(InputError, match="unknown record field in `columns`"):
        check_fields({"complete": "answer"})


def test_where_keeps_the_rows_with_one_of_the_values(tmp_path):
    path = data(
        tmp_path,
        *(
            {"label": label, "deep": {"ok": ok}, "n": n}
            for n, (label, ok) in enumerate(zip("abc", [True, False, True], strict=True))
        ),
    )
    kept = lambda **where: [row.values["n"] for row in read_rows(behavior(path=path, where=where))]  # noqa: E731
    assert kept(label="a") == [0]
    assert kept(label=["a", "c"]) == [0, 2]
    assert kept(label=["a", "b"], **{"deep.ok": "false"}) == [1]
    assert kept(n="2") == [2]


def test_where_that_matches_nothing_is_an_error_that_lists_what_is_there(tmp_path):
    path = data(tmp_path, {"label": "yes"}, {"label": "no\x1b[31m" + "x" * 10_000})
    with pytest.raises(InputError, match="matches no row") as caught:
        list(read_rows(behavior(path=path, where={"label": "maybe"})))
    assert "yes" in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert str(caught.value).isprintable()
    with pytest.raises(InputError, match="did you mean 'label'"):
        list(read_rows(behavior(path=path, where={"lable": "yes"})))


def test_flat_dialogues_become_messages_and_last_replies():
    start = "\n\nHuman: Hi\nthere\n\nAssistant: Hello.\n\nHuman: Bye?\n\nAssistant:"
    made = record({"chosen": start + " Good bye.", "rejected": start + "  No.\n\nNever."}, format="hh")
    assert made.prompt == [
        {"role": "user", "content": "Hi\nthere"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Bye?"},
    ]
    assert (made.chosen, made.rejected) == ("Good bye.", "No.\n\nNever.")


def test_the_chosen_dialogues_alone_make_sft_records():
    made = record(
        {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "x"}, format="hh", columns={"completion": "chosen"}
    )
    assert (made.kind, made.completion) == ("sft", "b")
