import html
import re

import numpy as np
import pytest
from markupsafe import Markup

from isaerft.analysis import TABLES
from isaerft.config import CONTROLS
from isaerft.report.pages import MAX_ROWS, answers_page, table_page
from isaerft.report.template import render

HOSTILE = "<img src=x onerror=alert(1)> \"'><script>alert(2)</script>\u202eevil {{ 7*7 }} &amp;"


def hostile(tables):
    frame = tables["most_changed_latents"].copy()
    frame["explanation"] = HOSTILE
    return frame


@pytest.mark.parametrize("name", ["subjects", "training", "most_changed_latents", "agreement", "specificity"])
def test_page_is_self_contained_and_explains_its_columns(reader, name, tables):
    page = table_page(TABLES[name], tables[name])
    read = reader(page)
    assert not [value for _, key, value in read.attributes if key in {"src", "href"} and not value.startswith("#")]
    assert page.count("<dt>") == len(TABLES[name].columns)
    assert TABLES[name].caption.split(".")[0] in html.unescape(page)


def test_hostile_explanation_is_escaped_in_page(reader, tables):
    read = reader(table_page(TABLES["most_changed_latents"], hostile(tables)))
    assert "img" not in read.tags
    assert read.tags.count("script") == 1
    assert not [key for _, key, _ in read.attributes if key.startswith("on")]
    assert any("<script>alert(2)</script>" in cell and "{{ 7*7 }} &amp;" in cell for cell in read.cells)
    assert not any("\u202e" in cell for cell in read.cells)


def answer(adapter="bias", **texts):
    scores = {"score_before": 0.25, "score_after": 1.0}
    return {"adapter": adapter, "prompt": "p", "before": "b", "after": "a"} | scores | texts


def test_hostile_answers_are_text(reader, tables):
    page = answers_page({HOSTILE: [answer(HOSTILE, prompt=HOSTILE, before=HOSTILE, after=HOSTILE)]}, 3)
    read = reader(page)
    assert not {"img", "script"} & set(read.tags)
    assert not [key for _, key, _ in read.attributes if key.startswith("on")]
    assert sum("<script>alert(2)</script>" in cell and "{{ 7*7 }} &amp;" in cell for cell in read.cells) == 4
    assert "\u202e" not in page
    assert not [value for _, key, value in read.attributes if key in {"src", "href"}]


def test_the_page_of_answers_shows_the_first_ones_of_each_adapter_with_their_scores(reader):
    lines = [answer(name, prompt=f"{name} {number}") for name in ("bias", "scale") for number in range(5)]
    cells = reader(answers_page({"refusal": lines}, 2)).cells
    assert [cell for cell in cells if cell.split(" ")[-1].isdigit()] == ["bias 0", "bias 1", "scale 0", "scale 1"]
    assert cells.count("0.25") == cells.count("1.00") == 4


def test_a_long_prompt_shows_its_end_and_a_long_answer_its_beginning(reader):
    cells = reader(answers_page({"refusal": [answer(prompt="x" * 5000 + "end", after="start" + "x" * 5000)]}, 1)).cells
    assert max(map(len, cells)) < 700
    assert any(cell.endswith("end") for cell in cells)
    assert any(cell.startswith("start") for cell in cells)


def test_only_the_pages_own_script_may_run(tables):
    page = table_page(TABLES["training"], tables["training"])
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1].replace("&#39;", "'")
    assert "default-src 'none'" in policy
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/=]{44}'", policy)
    assert "unsafe-inline" not in policy.split("script-src")[1]


@pytest.mark.parametrize(
    ("url", "linked"),
    [
        ("https://www.neuronpedia.org/gemma-2-2b/20-gemmascope-res-16k/7", True),
        ("javascript:alert(1)", False),
        ("data:text/html,x", False),
        ('https://a.org/" onclick="alert(1)', False),
        ("//evil.org/x", False),
    ],
)
def test_only_plain_web_addresses_become_links(reader, url, linked, tables):
    frame = tables["most_changed_latents"].copy()
    frame["url"] = url
    links = [
        value
        for tag, key, value in reader(table_page(TABLES["most_changed_latents"], frame)).attributes
        if key == "href"
    ]
    assert (set(links) == {url}) if linked else not links


def test_undefined_cell_is_dash_not_zero_and_sorts_as_undefined(tables):
    frame = tables["training"].assign(loss_recovered=np.nan)
    page = table_page(TABLES["training"], frame)
    assert '<td class="n" data-v="">—</td>' in page


def test_sort_key_is_the_full_number(tables):
    frame = tables["training"].copy()
    frame.loc[0, "heldout_loss_base"] = 1.23456789
    assert 'data-v="1.23456789">1.235</td>' in table_page(TABLES["training"], frame)


def test_capped_rows_are_counted_and_primary_with_its_controls_is_not_capped(tables):
    page = table_page(TABLES["agreement"], tables["agreement"].iloc[::-1])
    assert f"The first {MAX_ROWS:,} of {len(tables['agreement']):,} rows are shown" in page
    assert page.count("<tr") == MAX_ROWS + 1
    first = page.split("<tbody>")[1].split("</tr>")[: 8 * (1 + len(CONTROLS))]
    assert sum('class="primary"' in row for row in first) == 8
    assert sum("random_dictionary" in row for row in first) == 8


def test_column_with_one_value_is_said_once(tables):
    page = table_page(TABLES["training"], tables["training"])
    assert "<b>objective</b> sft" in page
    assert ">objective</button>" not in page


def test_empty_table_gives_a_page_that_says_so(tables):
    assert "0 rows." in table_page(TABLES["training"], tables["training"].iloc[:0])


def test_no_page_holds_a_character_that_a_terminal_or_an_editor_obeys():
    hidden = "\x00\x1b\x9b\u202e\u2066\u200b"
    assert render("<p>{{ text }}</p>{{ ours }}", text=f"a{hidden}b", ours=Markup("c\td")) == "<p>a      b</p>c\td"


def test_a_latents_index_links_to_its_page_where_there_is_one(reader, tables):
    frame = tables["most_changed_latents"].copy()
    frame.loc[frame.index[0], "subject"] = "a-permuted"
    subjects = set(frame["subject"]) - {"a-permuted"}
    page = table_page(TABLES["most_changed_latents"], frame, latent_page="../latents/index.html", subjects=subjects)
    read = reader(page)
    links = [value for tag, key, value in read.attributes if (tag, key) == ("a", "href") and "latents" in value]
    expected = [f"../latents/index.html#{row.subject}/{row.latent_index}" for row in frame.iloc[1:].itertuples()]
    assert links == expected[: MAX_ROWS - 1]
    targets = [value for tag, key, value in read.attributes if (tag, key) == ("a", "target")]
    assert not targets, "it opens in the same window"
    assert "latents/index" not in table_page(
        TABLES["training"], tables["training"], latent_page="../latents/index.html"
    )
