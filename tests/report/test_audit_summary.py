"""What the summary says of audits."""

import numpy as np
import pytest

from isaerft.report.audit_summary import audit_lines, audit_notes
from isaerft.report.pages import summary_page


@pytest.fixture
def audited(maker):
    made = maker()
    return made.tables() | {"audit": made.audit(), "audit_latents": made.audit_latents()}


def test_a_study_without_audits_says_nothing_of_them(tables):
    assert audit_lines(tables) == audit_notes(tables) == []
    assert "suspect" not in summary_page(tables, [], "x")


def test_each_audit_names_what_stands_first_and_what_is_found(audited):
    planted, quiet = audit_lines(audited)
    assert (planted["first"], planted["found"]) == ("refusal", "refusal")
    assert planted["numbers"] == ["0.90", "0.80 to 1.00", "0.004"]
    assert (quiet["first"], quiet["found"]) == ("helpfulness", "none")


def test_only_the_primary_combination_is_read(audited):
    audit = audited["audit"]
    changed = audit.assign(
        estimate=audit.estimate.where(audit.primary, 0.1), qvalue=audit.qvalue.where(audit.primary, 0)
    )
    assert audit_lines(audited | {"audit": changed}) == audit_lines(audited)


def test_the_latents_that_differ_most_are_said_with_their_direction(audited):
    planted, _ = audit_lines(audited)
    assert len(planted["latents"]) == 5
    assert planted["latents"][0].startswith("less: words of apology")
    assert planted["latents"][1].startswith("more: costs in dollars")
    assert planted["latents"][0].endswith("(101)")


def test_the_page_shows_them_and_no_markup_of_an_explanation_gets_through(audited):
    page = summary_page(audited, [], "x")
    assert "What the suspect data teaches besides" in page
    assert "words of apology" in page
    assert "<script>alert" not in page


def test_missing_pvalues_are_explained_and_shown_as_dashes(audited):
    assert audit_notes(audited) == []
    without = audited["audit"].assign(pvalue=np.nan, qvalue=np.nan, ci_low=np.nan, ci_high=np.nan)
    tables = audited | {"audit": without}
    assert "subsample: 1" in audit_notes(tables)[0]
    assert audit_lines(tables)[0]["numbers"] == ["0.90", "—", "—"]
    assert audit_lines(tables)[0]["found"] == "none"
    assert "subsample: 1" in summary_page(tables, [], "x")


def test_an_undefined_audit_has_a_line_of_dashes(audited):
    empty = audited["audit"].assign(**dict.fromkeys(("rank", "estimate", "ci_low", "ci_high", "pvalue", "qvalue")))
    line = audit_lines(audited | {"audit": empty})[0]
    assert line["first"] == "—"
    assert line["numbers"] == ["—"] * 3
