import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from isaerft.config import CONTROLS
from isaerft.errors import InputError
from isaerft.report.cautions import cautions
from isaerft.report.pages import answers_page, summary_page, table_page
from isaerft.report.pages.table import MAX_ROWS
from isaerft.table import TABLES, conform

HOSTILE = "<img src=x onerror=alert(1)> \"'><script>alert(2)</script>\u202eevil {{ 7*7 }} &amp;"


class Reader(HTMLParser):
    """Collects tags, attributes and the cells of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.cells, self._in_cell = [], [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag == "td":
            self._in_cell = True
            self.cells.append("")

    def handle_endtag(self, tag):
        self._in_cell = self._in_cell and tag != "td"

    def handle_data(self, data):
        if self._in_cell:
            self.cells[-1] += data


def hostile(tables):
    frame = tables["most_changed_latents"].copy()
    frame["explanation"] = HOSTILE
    return frame


@pytest.mark.parametrize("name", ["subjects", "training", "most_changed_latents", "agreement", "specificity"])
def test_page_is_self_contained_and_explains_its_columns(name, tables):
    page = table_page(name, tables[name], "a caption")
    read = Reader(page)
    assert not [value for _, key, value in read.attributes if key in {"src", "href"} and not value.startswith("#")]
    assert page.count("<dt>") == len(TABLES[name])
    assert "a caption" in page


def test_hostile_explanation_is_escaped_in_page(tables):
    read = Reader(table_page("most_changed_latents", hostile(tables), "c"))
    assert "img" not in read.tags
    assert read.tags.count("script") == 1
    assert not [key for _, key, _ in read.attributes if key.startswith("on")]
    assert any("<script>alert(2)</script>" in cell and "{{ 7*7 }} &amp;" in cell for cell in read.cells)
    assert not any("\u202e" in cell for cell in read.cells)


def answer(adapter="bias", **texts):
    scores = {"score_before": 0.25, "score_after": 1.0}
    return {"adapter": adapter, "prompt": "p", "before": "b", "after": "a"} | scores | texts


def test_hostile_answers_are_text(tables):
    page = answers_page({HOSTILE: [answer(HOSTILE, prompt=HOSTILE, before=HOSTILE, after=HOSTILE)]}, 3)
    read = Reader(page)
    assert not {"img", "script"} & set(read.tags)
    assert not [key for _, key, _ in read.attributes if key.startswith("on")]
    assert sum("<script>alert(2)</script>" in cell and "{{ 7*7 }} &amp;" in cell for cell in read.cells) == 4
    assert "\u202e" not in page
    assert not [value for _, key, value in read.attributes if key in {"src", "href"}]


def test_the_page_of_answers_shows_the_first_ones_of_each_adapter_with_their_scores():
    lines = [answer(name, prompt=f"{name} {number}") for name in ("bias", "scale") for number in range(5)]
    cells = Reader(answers_page({"refusal": lines}, 2)).cells
    assert [cell for cell in cells if cell.split(" ")[-1].isdigit()] == ["bias 0", "bias 1", "scale 0", "scale 1"]
    assert cells.count("0.25") == cells.count("1.00") == 4


def test_a_long_prompt_shows_its_end_and_a_long_answer_its_beginning():
    cells = Reader(answers_page({"refusal": [answer(prompt="x" * 5000 + "end", after="start" + "x" * 5000)]}, 1)).cells
    assert max(map(len, cells)) < 700
    assert any(cell.endswith("end") for cell in cells)
    assert any(cell.startswith("start") for cell in cells)


def test_only_the_pages_own_script_may_run(tables):
    page = table_page("training", tables["training"], "c")
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
def test_only_plain_web_addresses_become_links(url, linked, tables):
    frame = tables["most_changed_latents"].copy()
    frame["url"] = url
    links = [
        value for tag, key, value in Reader(table_page("most_changed_latents", frame, "c")).attributes if key == "href"
    ]
    assert (set(links) == {url}) if linked else not links


def test_undefined_cell_is_dash_not_zero_and_sorts_as_undefined(tables):
    frame = tables["training"].assign(loss_recovered=np.nan)
    page = table_page("training", frame, "c")
    assert '<td class="n" data-v="">—</td>' in page


def test_sort_key_is_the_full_number(tables):
    frame = tables["training"].copy()
    frame.loc[0, "heldout_loss_base"] = 1.23456789
    assert 'data-v="1.23456789">1.235</td>' in table_page("training", frame, "c")


def test_capped_rows_are_counted_and_primary_with_its_controls_is_not_capped(tables):
    page = table_page("agreement", tables["agreement"].iloc[::-1], "c")
    assert f"The first {MAX_ROWS:,} of {len(tables['agreement']):,} rows are shown" in page
    assert page.count("<tr") == MAX_ROWS + 1
    first = page.split("<tbody>")[1].split("</tr>")[: 8 * (1 + len(CONTROLS))]
    assert sum('class="primary"' in row for row in first) == 8
    assert sum("random_dictionary" in row for row in first) == 8


def test_column_with_one_value_is_said_once(tables):
    page = table_page("training", tables["training"], "c")
    assert "<b>objective</b> sft" in page
    assert ">objective</button>" not in page


def test_empty_table_gives_a_page_that_says_so(tables):
    assert "0 rows." in table_page("training", tables["training"].iloc[:0], "c")


def test_broken_table_is_refused(tables):
    with pytest.raises(InputError, match="missing columns"):
        table_page("training", tables["training"].drop(columns="seed"), "c")


def test_summary_names_no_result_without_its_controls(tables):
    page = summary_page(tables, [], "testbed")
    sentence = re.search(r'<p class="big">(.*?)</p>', page, re.S)[1]
    assert "median AUROC 0.7" in sentence
    for control in ("shuffled explanations", "mismatched behavior", "firing rate only", "random dictionary"):
        assert re.search(rf"{control} 0\.[45]\d", sentence)
    assert "in 8 of 8 behaviors; if explanations said nothing, about 1.0 of 8" in page


def test_summary_says_when_no_control_was_run(tables):
    frame = tables["agreement"][tables["agreement"]["control"] == "none"]
    page = summary_page({"agreement": frame}, [], "x")
    assert "controls: none was run" in page
    assert "no rows for the control shuffled explanations" in page


def test_summary_shows_dash_for_undefined(tables):
    page = summary_page({"agreement": tables["agreement"].assign(estimate=np.nan, qvalue=np.nan)}, [], "x")
    cells = Reader(page).cells
    assert cells[:7] == ["result", "—", "—", "—", "0 (+ 8 undefined)", "8 of 8", "—"]


def test_summary_embeds_figures_as_images_in_their_order(tables, tmp_path):
    for name in ("training", "agreement"):
        (tmp_path / f"{name}.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    page = summary_page(tables, sorted(tmp_path.glob("*.svg"), reverse=True), "x")
    sources = [value for tag, key, value in Reader(page).attributes if (tag, key) == ("img", "src")]
    assert len(sources) == 2
    assert all(value.startswith("data:image/svg+xml;base64,") for value in sources)
    assert page.index("<b>Agreement.</b>") < page.index("<b>Training.</b>")


def test_summary_escapes_names(tables):
    frame = tables["agreement"].assign(subject="<b onload=x>")
    read = Reader(summary_page({"agreement": frame}, [], "<script>s</script>"))
    assert "script" not in read.tags
    assert not [key for _, key, _ in read.attributes if key == "onload"]


def test_summary_without_primary_claims_nothing(tables):
    page = summary_page({"agreement": tables["agreement"].assign(primary=False)}, [], "x")
    assert "marks no primary result" in page
    assert 'class="big"' not in page


def _with(tables, table, rows=slice(None), **values):
    frame = tables[table].copy()
    for column, value in values.items():
        frame.loc[rows, column] = value
    return tables | {table: frame}


@pytest.mark.parametrize(
    ("table", "values", "said"),
    [
        ("agreement", {"minimum_detectable_effect": 0.99}, "minimum detectable effect is above the estimate in 8 of 8"),
        ("agreement", {"minimum_detectable_effect": np.nan}, "no minimum detectable effect in 8 of 8"),
        ("agreement", {"n_expected": 3}, "fewer than 10 latents are expected to change"),
        ("agreement", {"n_seeds": 1}, "one seed"),
        ("agreement", {"estimate": 0.6}, "not below the result"),
        ("agreement", {"pvalue": 0.001}, "control random dictionary has p < 0.01 in 8 of 8"),
        ("subjects", {"variance_explained": 0.4}, "explains 40% of the variance"),
        ("training", {"heldout_loss_adapted": 9.0}, "held-out loss did not fall for helpfulness"),
        ("behavior_check", {"ci_low": -0.1}, "do not show that helpfulness"),
        ("behavior_check", {"ci_low": np.nan, "ci_high": np.nan}, "do not show that helpfulness"),
        ("most_changed_latents", {"verdict": "unstable"}, "80 of 80 most changed latents"),
    ],
)
def test_weakness_in_a_table_is_said(table, values, said, tables):
    quiet = _with(tables, "most_changed_latents", verdict="expected")
    assert not any(said in text for text in cautions(quiet))
    assert any(said in text for text in cautions(_with(quiet, table, **values)))


def test_no_warning_is_given_of_shuffled_completions_whether_they_are_absent_or_as_high_as_the_result(tables):
    quiet = cautions(tables)
    assert not any("shuffled completions" in text for text in quiet)
    frame = tables["agreement"]
    rows = frame[(frame["control"] == "none") & frame["primary"].fillna(False)]
    twins = rows.assign(control="shuffled_completions", primary=False, estimate=0.99, pvalue=0.0001)
    beside = tables | {"agreement": pd.concat([frame, twins], ignore_index=True)}
    assert cautions(beside) == quiet
    assert "shuffled completions 0.99" in summary_page(beside, [], "testbed")


def test_a_behavior_that_fell_has_moved_too(tables):
    fallen = _with(tables, "behavior_check", ci_low=-0.4, ci_high=-0.1)
    assert not any("do not show" in text for text in cautions(fallen))


def test_explanations_that_score_no_higher_than_exchanged_ones_are_said(tables):
    columns = [column.name for column in TABLES["explanation_quality"]]
    rows = [
        ("testbed", source, "words", score, 90, 0, low + 0.1, low, low + 0.2, 0.52)
        for source in ("truth_input", "another")
        for score, low in (("detection", 0.6), ("fuzzing", 0.5), ("output", 0.52))
    ]
    quality = conform("explanation_quality", pd.DataFrame(rows, columns=columns))
    (said,) = [text for text in cautions(tables | {"explanation_quality": quality}) if "exchanged ones" in text]
    assert "explanations from truth_input are not shown to be better than exchanged ones in fuzzing, output" in said
    good = quality.assign(ci_low=0.6)
    assert not any("exchanged ones" in text for text in cautions(tables | {"explanation_quality": good}))


def test_dropped_latents_are_counted(tables):
    assert any("100 of 512 latents were dropped" in text for text in cautions(tables))
    assert not any("dropped" in text for text in cautions(_with(tables, "agreement", n_latents=512)))


def test_twin_subjects_raise_no_warning_of_their_own(tables):
    twin = tables["subjects"].assign(subject="testbed-permuted", variance_explained=0.0)
    both = tables | {"subjects": pd.concat([tables["subjects"], twin])}
    assert cautions(both) == cautions(tables)


def test_the_summary_says_what_all_behaviors_together_say(tables):
    text = summary_page(tables, [], "testbed")
    assert "mean AUROC of a behavior&#39;s changes with its own explanations, over 8 behaviors, is 0.76" in text
    assert "(interval over behaviors 0.70 to 0.81; without any one of them 0.74 to 0.77; p = 0.0002)" in text
    assert "is 0.28" in text
    silent = tables | {"overall": tables["overall"].assign(primary=False)}
    assert "over 8 behaviors, is" not in summary_page(silent, [], "testbed")
