import re

import numpy as np
import pytest

from isaerft.config import CONTROLS
from isaerft.report.selection import Setup


def test_summary_answers_first_with_the_interval_before_the_p_value_and_a_control_beside_it(summary, tables):
    page = summary(tables)
    (claim,) = re.findall(r'<p class="big">(.*?)</p>\s*<p>(.*?)</p>', page, re.S)
    assert claim[0].startswith(
        "<b>Yes.</b> Changes from training on a behavior agree better with that behavior&#39;s own"
    )
    assert "by 0.28 AUROC (95 % interval 0.22 to 0.33; p = 0.0002), over 8 behaviors." in claim[0]
    assert re.search(
        r"median AUROC of 0.7\d; the highest of 7 controls, firing rate only, reaches 0.5\d \(chance: 0.5\)", claim[1]
    )
    assert "In 8 of 8 behaviors, changes" in page
    assert "(by chance: about 1.0 of 8)" in page


def test_the_result_and_every_control_have_a_row_with_a_dot_for_each_behavior(reader, summary, tables):
    page = summary(tables)
    rows = re.findall(r'<tr class="(result|control)"><th scope="row">(.*?)<small>.*?</tr>', page, re.S)
    assert rows[:3] == [
        ("result", "own explanations"), ("control", "mismatched behavior"), ("control", "placebo trainings"),
    ]  # fmt: skip
    assert {name for _, name in rows[3:]} == {name.replace("_", " ") for name in CONTROLS} - {"mismatched behavior"}
    assert reader(page).tags.count("circle") == 8 * len(rows)


def test_summary_says_when_no_control_was_run(summary, tables):
    frame = tables["agreement"][tables["agreement"]["control"] == "none"]
    page = summary(tables | {"agreement": frame})
    assert "<b>Yes, but no control was run.</b>" in page
    assert "The controls were not run: shuffled explanations, mismatched behavior" in page


def test_summary_shows_dash_for_undefined(summary, tables):
    frame = tables["agreement"].copy()
    control = (frame["control"] == "genericity").astype(bool)
    page = summary({"agreement": frame.assign(estimate=frame["estimate"].mask(control))})
    row = page.split("genericity (8 of 8 behaviors undefined)")[-1].split("</tr>")[0]
    assert "circle" not in row
    assert re.findall(r'<td class="n">(.*?)</td>', row) == ["—"]
    assert 'class="strip"' not in summary({"agreement": frame.assign(estimate=np.nan, placebo_mean=np.nan)})


def test_what_was_tested_comes_first(summary, tables):
    page = summary(tables, setup=Setup(smallest_effect=0.05))
    tested = page.split('<dl class="tested">')[1].split("</dl>")[0]
    for words in ("blocks.2.hook_resid_post", "8 behaviors, 3 seeds each: helpfulness, refusal", "of 412 latents"):
        assert words in tested
    assert "judge table, statistic AUROC; smallest specificity that would matter 0.05" in tested


def test_each_subject_has_its_verdict_and_one_alone_is_not_named(summary, maker):
    page = summary(maker(subjects=("here", "there")).tables())
    assert re.findall(r"<h3>(.*?)</h3>", page) == ["here", "there"]
    assert page.count('class="strip"') == 2
    assert "<p>here: one behavior at a time" in page
    assert "<p>One behavior at a time" in summary(maker().tables())


def test_where_the_time_went_is_said_or_how_to_know(summary, tables):
    assert "record_seconds: true" in summary(tables)


def test_summary_embeds_figures_as_images(reader, summary, tables):
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    page = summary(tables, figures={"training": svg, "agreement": svg})
    sources = [value for tag, key, value in reader(page).attributes if (tag, key) == ("img", "src")]
    assert len(sources) == 2
    assert all(value.startswith("data:image/svg+xml;base64,") for value in sources)
    assert page.index("<b>Training.</b>") < page.index("<b>Agreement.</b>"), "in the order given"
    assert 'id="figure-training"' in page


def test_summary_says_where_to_look_next_and_only_what_is_there(summary, tables):
    links = {"agreement": "pages/agreement.html", "answers": "pages/answers.html"}
    page = summary(tables, figures={"agreement": b"<svg/>", "behavior_check": b"<svg/>"}, links=links)
    steps = page.split("Where to look next")[1].split("</ul>")[0]
    assert re.findall(r'href="([^"]*)"', steps) == [
        "#figure-agreement",
        "pages/agreement.html",
        "#figure-behavior_check",
        "pages/answers.html",
        "report.html",
    ]
    assert re.findall(r'href="([^"#]*)"', summary(tables)) == ["report.html"]


def test_summary_explains_itself_in_a_collapsed_section(summary, tables):
    page = summary(tables)
    assert '<details id="reading"><summary>How to read this page</summary>' in page
    places = ["Does training on a behavior", "Read with care", "Where to look next", "<summary>How to read this page"]
    assert sorted(places, key=page.index) == places


def test_summary_escapes_names(reader, summary, tables):
    frame = tables["agreement"].assign(subject="<b onload=x>")
    read = reader(summary({"agreement": frame}, study="<script>s</script>"))
    assert "script" not in read.tags
    assert not [key for _, key, _ in read.attributes if key == "onload"]


def test_summary_without_primary_claims_nothing(summary, tables):
    page = summary({"agreement": tables["agreement"].assign(primary=False)})
    assert "marks no primary result" in page
    assert 'class="big"' not in page


def test_the_summary_shows_both_and_neither_without_their_tables(summary, tables):
    page = summary(tables)
    assert page.index("Whose explanations predict changes best") < page.index("How good are the judges?")
    assert len(re.findall(r"<td>truth input</td><td>(?:lexical|embedding)</td><td>table</td>", page)) == 2
    bare = summary({"agreement": tables["agreement"]})
    assert "predict changes best" not in bare
    assert "How good are" not in bare


def test_names_in_both_are_escaped(summary, tables):
    hostile = {
        name: tables[name].assign(judge="<b onload=x>" + tables[name]["judge"])
        for name in ("source_comparison", "judge_quality")
    }
    assert "<b onload" not in summary(tables | hostile)


@pytest.fixture
def audited(maker):
    made = maker()
    return made.tables() | {"audit": made.audit(), "audit_latents": made.audit_latents()}


def test_the_page_shows_them_and_no_markup_of_an_explanation_gets_through(summary, audited):
    page = summary(audited)
    assert "What the suspect data also teaches" in page
    assert "words of apology" in page
    assert "<script>alert" not in page
    without = audited["audit"].assign(pvalue=np.nan)
    assert "subsample: 1" in summary(audited | {"audit": without})
    assert "suspect" not in summary({name: audited[name] for name in audited if not name.startswith("audit")})


def test_a_models_folder_is_named_without_the_place_where_it_lies(summary, tables):
    page = summary(tables | {"subjects": tables["subjects"].assign(model="/home/me/models/mine")})
    assert "testbed: mine, blocks.2" in page
    assert "/home/me" not in page
