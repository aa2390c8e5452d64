"""What the summary says of sources and judges: the tables' own numbers, and no more than they show."""

import re

import pandas as pd

from isaerft.report.figures import FIGURES
from isaerft.report.judges import judge_lines, judge_sentence
from isaerft.report.pages import summary_page
from isaerft.report.sources import source_sentences


def test_the_best_source_of_each_judge_is_named_with_its_lead(tables):
    sentences = source_sentences(tables)
    assert len(sentences) == 3
    assert sentences[0] == (
        "testbed, judge table: of 3 sources, truth output predicts changes best, mean AUROC 0.80 (0.75 to 0.85) over "
        "8 behaviors, 0.10 (−0.05 to 0.25) above truth input, from which it cannot be told apart. Known to be worse: "
        "local both."
    )


def test_sources_that_are_equally_good_are_named_together_without_a_lead(tables):
    frame = tables["source_comparison"].assign(rank=1, difference=0.0, difference_ci_low=0.0, difference_ci_high=0.0)
    sentence = source_sentences(tables | {"source_comparison": frame})[0]
    assert "truth output and truth input and local both predict changes best" in sentence
    assert "above" not in sentence
    assert sentence.endswith("None of the others is known to be worse.")


def test_only_the_primary_adapter_and_measure_are_spoken_of(tables):
    other = tables["source_comparison"].assign(adapter="scale", source="elsewhere")
    both = pd.concat([tables["source_comparison"], other])
    assert source_sentences(tables | {"source_comparison": both}) == source_sentences(tables)
    assert source_sentences(tables | {"source_comparison": other}) == []


def test_with_a_reference_only_what_is_measured_against_it_is_shown(tables):
    lines = judge_lines(tables)
    assert [line.names for line in lines] == [("truth input", name, "table") for name in ("lexical", "embedding")]
    assert lines[0].numbers == ("0.50 (0.40 to 0.60)",) * 3 + ("120",)
    assert judge_sentence(tables).startswith("Each judge against the reference")
    assert "0.46" in judge_sentence(tables)


def test_without_a_reference_agreement_between_judges_is_shown_as_no_more_than_that(tables):
    frame = tables["judge_quality"]
    tables = tables | {"judge_quality": frame[frame["source"] == "local"]}
    assert [line.names for line in judge_lines(tables)] == [("local", "lexical", "embedding")]
    assert judge_lines(tables)[0].numbers[0] == "0.30"
    assert "does not say that either is right" in judge_sentence(tables)


def test_the_summary_shows_both_and_neither_without_their_tables(tables):
    page = summary_page(tables, [], "testbed")
    assert page.index("Whose explanations predict changes best") < page.index("How good are the judges?")
    assert len(re.findall(r"<td>truth input</td><td>(?:lexical|embedding)</td><td>table</td>", page)) == 2
    bare = summary_page({"agreement": tables["agreement"]}, [], "testbed")
    assert "predict changes best" not in bare
    assert "How good are" not in bare


def test_names_in_both_are_escaped(tables):
    hostile = {
        name: tables[name].assign(judge="<b onload=x>" + tables[name]["judge"])
        for name in ("source_comparison", "judge_quality")
    }
    assert "<b onload" not in summary_page(tables | hostile, [], "x")


def test_the_figure_holds_every_judge_and_source_with_the_tables_own_numbers(tables):
    figure = FIGURES["source_comparison"].build(tables)
    first, second = figure.axes
    labels = [label.get_text() for label in first.get_yticklabels()]
    assert [label for label in labels if label.startswith("judge: ")] == [
        "judge: table",
        "judge: lexical",
        "judge: embedding",
    ]
    assert labels.count("truth output") == 3
    assert [text.get_text() for text in first.texts] == ["0.80", "0.70", "0.60"] * 3
    assert [text.get_text() for text in second.texts] == ["0.30", "0.20", "0.10"] * 3


def test_only_sources_known_to_be_worse_than_the_best_are_drawn_open(tables):
    axes = FIGURES["source_comparison"].build(tables).axes[0]
    markers = [line for line in axes.lines if line.get_marker() not in ("None", None, "")]
    is_open = [line.get_markerfacecolor() == "white" for line in markers]
    assert is_open == [False, False, True] * 3
