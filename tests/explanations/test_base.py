"""The table of explanations: what it may hold, and that other people's text becomes harmless in it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from isaerft.config import Source
from isaerft.errors import InputError
from isaerft.explanations import checked_explanations, clean_text, explain, read_explanations, write_explanations
from isaerft.explanations.base import clean_url
from isaerft.registry import SOURCES
from isaerft.table import MAX_TEXT

ROOT = Path(__file__).parents[2] / "isaerft"
HOSTILE = [
    "\x1b[31mred\x1b[0m and \x1b]0;title\x07 bell",
    "nul\0 and \x9b31m and line\nbreak\r\n\ttab",
    "right\u202eto left\u2066 \u2028 line",
    "half a pair \ud800",
    "x" * 5_000_000,
]


def table(**columns):
    base = {"latent_index": [5, 2], "explanation": ["five", "two"], "side": ["input", "output"], "url": ["", ""]}
    return pd.DataFrame(base | columns)


def test_explanations_survive_their_file_with_dtypes_order_and_counts(tmp_path):
    frame = table()
    frame.attrs["counts"] = {"not_chosen": 3}
    write_explanations(frame, tmp_path / "e.parquet", d_sae=6)
    back = read_explanations(tmp_path / "e.parquet", d_sae=6)
    assert back["latent_index"].tolist() == [2, 5]
    assert back["explanation"].tolist() == ["two", "five"]
    assert back["latent_index"].dtype == np.int64
    assert back.attrs["counts"] == {"not_chosen": 3, "empty": 0}
    first = (tmp_path / "e.parquet").read_bytes()
    write_explanations(back, tmp_path / "e.parquet")
    assert (tmp_path / "e.parquet").read_bytes() == first


@pytest.mark.parametrize("nothing", ["", "  \n", None, float("nan"), "\0\x1b[0m", 3])
def test_an_empty_text_is_no_explanation_and_is_counted(nothing):
    frame = checked_explanations(table(explanation=["five", nothing]))
    assert frame["latent_index"].tolist() == [5]
    assert frame.attrs["counts"] == {"empty": 1}


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_becomes_one_bounded_printable_line(text, tmp_path):
    clean = clean_text(text)
    assert clean.isprintable()
    assert 0 < len(clean) <= MAX_TEXT
    write_explanations(table(explanation=pd.Series([text, "two"], dtype=object)), tmp_path / "e.parquet")
    assert clean in set(read_explanations(tmp_path / "e.parquet")["explanation"])


def test_words_around_a_terminal_code_and_html_and_formulas_stay_as_text():
    assert clean_text("a \x1b[1;31mred\x1b[0m word") == "a red word"
    assert clean_text("<script>alert(1)</script>") == "<script>alert(1)</script>"
    assert clean_text("=SUM(A1) and -1") == "=SUM(A1) and -1"
    assert clean_text("família 👋🏽") == "família 👋🏽"


def test_only_web_addresses_are_links():
    good = "https://www.neuronpedia.org/gemma-2-2b/10-gemmascope-res-16k/36"
    assert clean_url(f" {good}\n") == good
    for bad in ["javascript:alert(1)", 'https://a.b/"onclick', "https://a b", "data:x", None, "https://" + "a" * 1000]:
        assert clean_url(bad) == ""


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"latent_index": [2, 2]}, "latent 2 has more than one explanation"),
        ({"latent_index": [2, 6]}, r"explanation of latent 6; allowed: 0 to 5: the SAE has 6 latents"),
        ({"latent_index": [2, -1]}, "explanation of latent -1"),
        ({"latent_index": [2.5, 1]}, "latent_index is float64; allowed: int64"),
        ({"latent_index": ["1", "2"]}, "allowed: int64"),
        ({"side": ["input", "inside"]}, r"side \['inside'\]; allowed: input, output, both"),
        ({"side": ["input", None]}, "allowed: input, output, both"),
        ({"score": [1, 2]}, "explanations with columns"),
    ],
)
def test_a_table_that_breaks_the_contract_is_refused(columns, message, tmp_path):
    with pytest.raises(InputError, match=message):
        write_explanations(table(**columns), tmp_path / "e.parquet", d_sae=6)
    assert not list(tmp_path.iterdir())


def test_a_missing_or_damaged_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="do not exist"):
        read_explanations(tmp_path / "e.parquet")
    (tmp_path / "e.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"Parquet file .* cannot be loaded .*; make it again"):
        read_explanations(tmp_path / "e.parquet")


def test_any_registered_source_runs_and_is_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(SOURCES, "_parts", dict(SOURCES._parts))

    @SOURCES("shouting")
    def shouting(source, *, subject_dir, d_sae, latents=None):
        return table(latent_index=[0, d_sae - 1], explanation=[str(subject_dir), source.side])

    frame = explain("shouting", Source(side="output"), subject_dir=str(tmp_path), d_sae=4)
    assert frame["latent_index"].tolist() == [0, 3]
    assert frame["explanation"].tolist() == [str(tmp_path), "output"]
    assert explain("mine", Source(kind="shouting"), subject_dir=tmp_path, d_sae=4)["explanation"][1] == "input"
    with pytest.raises(InputError, match=r"unknown explanation source 'shout'.*did you mean 'shouting'"):
        explain("shout", Source(), subject_dir=tmp_path, d_sae=4)


def test_texts_are_read_judged_and_scored_without_importing_torch_or_slow_libraries():
    folders = ("explanations", "judges", "llm", "scorers")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    modules = sorted(".".join(path.relative_to(ROOT.parent).with_suffix("").parts) for path in paths)
    assert len(modules) > 20
    code = f"import importlib, sys\nfor name in {[*modules, 'isaerft.planning']}:\n    importlib.import_module(name)\n"
    code += "print([m for m in ('torch', 'sae_lens', 'datasets', 'transformers', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
