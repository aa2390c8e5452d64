"""Contexts as evidence: grouped by latent and side in the order of rank, tokens as a reader would write them."""

import pandas as pd
import pytest

from isaerft.errors import InputError
from isaerft.explanations.contexts import COLUMNS, Context, clean_token, grouped, read_contexts


def test_contexts_are_grouped_by_latent_and_side_and_come_by_rank(tmp_path):
    rows = [
        (2, "output", 0, "d", "", "", 4.0),
        (1, "input", 1, "b", "x", "y", 1.0),
        (1, "input", 0, "a", None, "z", 3.0),
        (1, "amplified", 0, "c", "", "", 2.0),
    ]
    pd.DataFrame(rows, columns=list(COLUMNS)).to_parquet(tmp_path / "c.parquet")
    assert grouped(read_contexts(tmp_path / "c.parquet")) == [
        (1, "amplified", [Context("c", "", "", 2.0)]),
        (1, "input", [Context("a", "", "z", 3.0), Context("b", "x", "y", 1.0)]),
        (2, "output", [Context("d", "", "", 4.0)]),
    ]


def test_a_file_that_is_missing_or_lacks_a_column_is_named(tmp_path):
    with pytest.raises(InputError, match=r"contexts .*c.parquet' do not exist"):
        read_contexts(tmp_path / "c.parquet")
    pd.DataFrame({"latent_index": [1]}).to_parquet(tmp_path / "c.parquet")
    with pytest.raises(InputError, match="lacks the columns side, rank, token"):
        read_contexts(tmp_path / "c.parquet")


@pytest.mark.parametrize(
    ("token", "clean"),
    [
        *(("Ġsir", "sir"), ("▁sir", "sir"), ("##ing", "ing"), (" sir", "sir"), ("sir", "sir"), ("#", "#")),
        *(("\n", "line break"), ("Ċ", "line break"), ("<0x0A>", "line break"), ("\t", "tab")),
        *(("Ġ", ""), ("▁", ""), ("", ""), (" ", ""), ("\x1b[31m", ""), ("\0", "")),
        ("x" * 100_000, "x" * 40),
    ],
)
def test_tokens_are_written_as_a_reader_would(token, clean):
    assert clean_token(token) == clean
