import re

import numpy as np
import pytest


def test_summary_names_no_result_without_its_controls(summary, tables):
    page = summary(tables)
    first, sentence = re.findall(r'<p class="big">(.*?)</p>', page, re.S)
    assert "specificity, the primary test" in first
    assert "median AUROC 0.7" in sentence
    for control in ("shuffled explanations", "mismatched behavior", "firing rate only", "random dictionary"):
        assert re.search(rf"{control} 0\.[45]\d", sentence)
    assert "in 8 of 8 behaviors, changes" in page
    assert "(by chance: about 1.0 of 8)" in page


def test_summary_says_when_no_control_was_run(summary, tables):
    frame = tables["agreement"][tables["agreement"]["control"] == "none"]
    page = summary({"agreement": frame})
    assert "controls: none was run" in page
    assert "the control shuffled explanations, mismatched behavior" in page


def test_summary_shows_dash_for_undefined(reader, summary, tables):
    page = summary({"agreement": tables["agreement"].assign(estimate=np.nan, qvalue=np.nan)})
    cells = reader(page).cells
    assert cells[:7] == ["result", "—", "—", "—", "0 (+ 8 undefined)", "8 of 8", "—"]


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
    ]
    assert "Where to look next" not in summary(tables)


def test_summary_explains_itself_in_a_collapsed_section(summary, tables):
    page = summary(tables)
    assert "<details><summary>How to read this page</summary>" in page
    assert page.index("Primary result") < page.index("Read with care") < page.index("How to read this page")


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


def test_the_summary_says_what_all_behaviors_together_say(summary, tables):
    text = summary(tables)
    assert "mean AUROC of a behavior&#39;s changes with its own explanations, over 8 behaviors: 0.76" in text
    assert "(p = 0.0002; interval over behaviors 0.70 to 0.81; leaving one out 0.74 to 0.77)" in text
    assert "over 8 behaviors: 0.28" in text
    silent = tables | {"overall": tables["overall"].assign(primary=False)}
    assert "over 8 behaviors: 0" not in summary(silent)
