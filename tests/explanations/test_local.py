"""Explanations written from contexts: what they say, on which side, how much, and how they are taken apart."""

import pandas as pd
import pytest

from isaerft.config import Source
from isaerft.errors import InputError
from isaerft.explanations import explain
from isaerft.explanations.contexts import COLUMNS
from isaerft.explanations.local import clauses
from isaerft.table import MAX_TEXT


def context(latent, side, rank, token, before="", after="", value=1.0):
    return dict(zip(COLUMNS, (latent, side, rank, token, before, after, value), strict=True))


ROWS = [
    context(3, "input", 1, "Ġmadam", "good day", ", how"),
    context(3, "input", 0, "Ġsir", "very kindly", "? i am"),
    context(3, "input", 2, "Ġsir", "yes", "!"),
    context(3, "output", 0, "Ġcertainly"),
    context(3, "output", 1, "Ġsir"),
    context(1, "output", 0, "▁sorry"),
    context(3, "amplified", 1, "Ġmadam"),
    context(3, "amplified", 0, "Ġyes"),
]


def local(tmp_path, rows, side="input", **options):
    pd.DataFrame(rows, columns=list(COLUMNS)).to_parquet(tmp_path / "contexts.parquet")
    frame = explain("local", Source(side=side, options=options), subject_dir=tmp_path, d_sae=10)
    return dict(zip(frame["latent_index"].tolist(), frame["explanation"].tolist(), strict=True)), frame["side"].tolist()


def test_the_input_side_names_tokens_by_frequency_and_quotes_contexts_by_rank(tmp_path):
    texts, sides = local(tmp_path, ROWS)
    assert texts == {3: 'fires on "sir", "madam"; for example "very kindly [sir] ? i am", "good day [madam] , how"'}
    assert sides == ["input"]


def test_the_output_side_names_promoted_tokens_by_rank(tmp_path):
    texts, sides = local(tmp_path, ROWS, "output")
    assert texts == {1: 'promotes "sorry"', 3: 'promotes "certainly", "sir"'}
    assert sides == ["output", "output"]


def test_both_sides_are_joined_and_a_latent_with_one_keeps_that_side(tmp_path):
    texts, sides = local(tmp_path, ROWS, "both", examples=0)
    assert texts == {1: 'promotes "sorry"', 3: 'fires on "sir", "madam"; promotes "certainly", "sir"'}
    assert sides == ["output", "both"]


def test_the_output_side_may_be_what_amplifying_the_latent_does(tmp_path):
    texts, sides = local(tmp_path, ROWS, "output", output="amplified")
    assert texts == {3: 'amplified, makes "yes", "madam" more likely'}
    assert sides == ["output"]
    texts, sides = local(tmp_path, ROWS, "both", output="amplified", examples=0)
    assert texts == {3: 'fires on "sir", "madam"; amplified, makes "yes", "madam" more likely'}
    assert sides == ["both"]


def test_spellings_of_a_token_count_as_one(tmp_path):
    rows = [context(0, "output", rank, token) for rank, token in enumerate(["No", "Yes", "▁yes", "ĠYES", "no"])]
    assert local(tmp_path, rows, "output")[0] == {0: 'promotes "Yes", "No"'}


def test_the_number_of_tokens_and_examples_is_bounded(tmp_path):
    rows = [context(0, "input", n, f"t{n}", "w " * 1000, "v " * 1000) for n in range(500)]
    text = local(tmp_path, rows)[0][0]
    assert text.count('"') == 2 * (6 + 2)
    assert len(text) < 200
    text = local(tmp_path, rows, tokens=2, examples=1)[0][0]
    assert text == 'fires on "t0", "t1"; for example "w w w w w w [t0] v v v v v v"'
    hostile = [
        context(0, "input", n, "\ud800" + "y" * 10_000 + str(n), "\x1b[2J" + "z" * 10_000, "") for n in range(100)
    ]
    text = local(tmp_path, [{**row, "token": row["token"][1:]} for row in hostile], tokens=100, examples=100)[0][0]
    assert text.isprintable()
    assert len(text) <= MAX_TEXT


def test_a_latent_without_a_printable_token_has_no_explanation(tmp_path):
    rows = [context(0, "input", 0, "Ġ", "a", "b"), context(1, "input", 0, "ok"), context(2, "input", 0, None)]
    assert local(tmp_path, rows)[0] == {1: 'fires on "ok"'}


def test_bad_contexts_and_options_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"contexts .* do not exist"):
        explain("local", Source(), subject_dir=tmp_path, d_sae=10)
    with pytest.raises(InputError, match="holds no contexts of side 'input'"):
        local(tmp_path, [context(1, "output", 0, "x")])
    with pytest.raises(InputError, match="explanation of latent 10; allowed: 0 to 9"):
        local(tmp_path, [context(10, "input", 0, "x")])
    for options, message in [
        ({"token": 3}, "unknown option of a local source: 'token'.*did you mean 'tokens'"),
        ({"tokens": 0}, "from 1 to 100"),
        ({"examples": -1}, "from 0 to 100"),
        ({"examples": True}, "from 0 to 100"),
        ({"tokens": "many"}, "option tokens = 'many'"),
        ({"output": "logits"}, "option output = 'logits' of a local source; allowed: promoted, amplified"),
    ]:
        with pytest.raises(InputError, match=message):
            local(tmp_path, ROWS, **options)
    pd.DataFrame({"latent_index": [1]}).to_parquet(tmp_path / "contexts.parquet")
    with pytest.raises(InputError, match="lacks the columns side, rank, token"):
        explain("local", Source(), subject_dir=tmp_path, d_sae=10)


INPUT = 'fires on "sir"; for example "promotes [sir]", "how [sir] ?"'


@pytest.mark.parametrize(
    ("text", "side", "expected"),
    [
        (INPUT, "input", [("input", 'fires on "sir"')]),
        ('promotes "yes", ";"', "output", [("output", 'promotes "yes", ";"')]),
        ('amplified, makes "yes", "no" more likely', "output", [("output", 'amplified "yes", "no"')]),
        (f'{INPUT}; promotes "yes"', "both", [("input", 'fires on "sir"'), ("output", 'promotes "yes"')]),
        (
            f'{INPUT}; amplified, makes "yes" more likely',
            "both",
            [("input", 'fires on "sir"'), ("output", 'amplified "yes"')],
        ),
        ("fires on dogs; promotes cats", "input", [("input", "fires on dogs"), ("input", "promotes cats")]),
        ("apologies; firestorms", "both", [("both", "apologies; firestorms")]),
    ],
)
def test_each_clause_has_its_side_and_examples_have_none(text, side, expected):
    assert [tuple(clause) for clause in clauses(text, side)] == expected


def test_likely_is_only_part_of_the_frame_where_tokens_are_quoted():
    assert clauses("amplified, makes doubt more likely", "output")[0].text.endswith("more likely")
