"""What the tables say: the tables' own numbers, and no more than they show."""

import numpy as np
import pandas as pd
import pytest

from isaerft.report.findings import (
    audit_lines,
    audit_note,
    headlines,
    judge_lines,
    judge_sentence,
    single_sentences,
    source_sentences,
)
from isaerft.report.selection import find_primary, primary_rows


def _key(tables):
    return find_primary(tables["agreement"])


def _names(lines):
    return [(line.source, line.judge, line.against) for line in lines]


def test_headline_is_the_median_over_defined_behaviors(tables):
    frame = tables["agreement"].copy()
    rows = primary_rows(frame, _key(tables))
    result = rows[rows["control"] == "none"]
    frame.loc[result.index[0], ["estimate", "pvalue", "qvalue"]] = float("nan")
    line = headlines({"agreement": frame})[0]
    assert line.median == result["estimate"].iloc[1:].median()
    assert (line.n_behaviors, line.n_missing) == (7, 1)
    assert (line.significant.k, line.significant.n) == (int((result["pvalue"].iloc[1:] < 0.01).sum()), 7)


def test_headline_without_estimates_is_undefined(tables):
    frame = tables["agreement"].assign(estimate=float("nan"), qvalue=float("nan"))
    line = headlines({"agreement": frame})[0]
    assert line.median is None
    assert line.discovered.n == 0


def test_single_behaviors_are_counted_against_other_trainings_and_against_placebos(tables):
    (sentence,) = single_sentences(tables)
    assert sentence == (
        "testbed: one behavior at a time is weaker evidence: against other trainings, p < 0.01 in 8 of 8; 8 of 8 agree "
        "better than each of 19 placebo trainings."
    )
    frame = tables["agreement"].copy()
    rows = primary_rows(frame, _key(tables))
    frame.loc[rows[rows["control"] == "none"].index[:3], "pvalue_placebo"] = 0.1
    assert "5 of 8 agree better" in next(single_sentences({"agreement": frame}))
    bare = frame.assign(pvalue=np.nan, n_placebos=np.nan)
    assert list(single_sentences({"agreement": bare})) == []


def test_the_best_source_of_each_judge_is_named_with_its_lead(tables):
    sentences = list(source_sentences(tables))
    assert len(sentences) == 3
    assert sentences[0] == (
        "testbed, judge table: of 3 sources, truth output predicts changes best, with a mean AUROC of 0.80 (0.75 to "
        "0.85) over 8 behaviors, 0.10 (−0.05 to 0.25) above truth input (not distinguishable). Known to be worse: "
        "local both."
    )


def test_sources_that_are_equally_good_are_named_together_without_a_lead(tables):
    frame = tables["source_comparison"].assign(rank=1, difference=0.0, difference_ci_low=0.0, difference_ci_high=0.0)
    sentence = next(source_sentences(tables | {"source_comparison": frame}))
    assert "truth output and truth input and local both predict changes best" in sentence
    assert "above" not in sentence
    assert sentence.endswith("None of the others is known to be worse.")


def test_only_the_primary_adapter_and_measure_are_spoken_of(tables):
    other = tables["source_comparison"].assign(adapter="scale", source="elsewhere")
    both = pd.concat([tables["source_comparison"], other])
    assert list(source_sentences(tables | {"source_comparison": both})) == list(source_sentences(tables))
    assert list(source_sentences(tables | {"source_comparison": other})) == []


def test_with_a_reference_only_what_is_measured_against_it_is_shown(tables):
    lines = judge_lines(tables)
    assert _names(lines) == [("truth input", name, "table") for name in ("lexical", "embedding")]
    assert lines[0].numbers == ("0.50 (0.40 to 0.60)",) * 3
    assert lines[0].n_explanations == "120"
    assert judge_sentence(tables).startswith("Each judge against the reference")
    assert "0.46" in judge_sentence(tables)


def test_without_a_reference_agreement_between_judges_is_shown_as_no_more_than_that(tables):
    frame = tables["judge_quality"]
    tables = tables | {"judge_quality": frame[frame["source"] == "local"]}
    assert _names(judge_lines(tables)) == [("local", "lexical", "embedding")]
    assert judge_lines(tables)[0].numbers[0] == "0.30"
    assert "agree and both be wrong" in judge_sentence(tables)


@pytest.fixture
def audited(maker):
    made = maker()
    return made.tables() | {"audit": made.audit(), "audit_latents": made.audit_latents()}


def test_a_study_without_audits_says_nothing_of_them(tables):
    assert (audit_lines(tables), audit_note(tables)) == ([], "")


def test_each_audit_names_what_stands_first_and_what_is_found(audited):
    planted, quiet = audit_lines(audited)
    assert (planted.first, planted.found) == ("refusal", "refusal")
    assert (planted.estimate, planted.interval, planted.qvalue) == ("0.90", "0.80 to 1.00", "0.004")
    assert (quiet.first, quiet.found) == ("helpfulness", "none")


def test_only_the_primary_combination_is_read(audited):
    audit = audited["audit"]
    changed = audit.assign(
        estimate=audit.estimate.where(audit.primary, 0.1), qvalue=audit.qvalue.where(audit.primary, 0)
    )
    assert audit_lines(audited | {"audit": changed}) == audit_lines(audited)


def test_the_latents_that_differ_most_are_said_with_their_direction(audited):
    planted, _ = audit_lines(audited)
    assert len(planted.latents) == 5
    assert planted.latents[0].startswith("less: words of apology")
    assert planted.latents[1].startswith("more: costs in dollars")
    assert planted.latents[0].endswith("(101)")


def test_missing_pvalues_are_explained_and_shown_as_dashes(audited):
    assert audit_note(audited) == ""
    without = audited["audit"].assign(pvalue=np.nan, qvalue=np.nan, ci_low=np.nan, ci_high=np.nan)
    tables = audited | {"audit": without}
    assert "subsample: 1" in audit_note(tables)
    (line, _) = audit_lines(tables)
    assert (line.estimate, line.interval, line.qvalue, line.found) == ("0.90", "—", "—", "none")


def test_an_undefined_audit_has_a_line_of_dashes(audited):
    empty = audited["audit"].assign(**dict.fromkeys(("rank", "estimate", "ci_low", "ci_high", "pvalue", "qvalue")))
    line = audit_lines(audited | {"audit": empty})[0]
    assert line.first == "—"
    assert [line.estimate, line.interval, line.qvalue] == ["—"] * 3
