from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from isaerft.errors import InputError
from isaerft.registry import STATISTICS, StatisticFacts
from isaerft.report.selection import (
    Primary,
    controls_in,
    controls_to_exceed,
    find_primary,
    own_largest,
    primary_rows,
    source_facts,
    with_controls,
)


def _key(tables):
    return find_primary(tables["agreement"])


def test_primary_is_read_from_the_table(tables):
    assert str(_key(tables)) == "bias · contribution · truth_input · table"


def test_two_primary_combinations_are_refused(tables):
    frame = tables["agreement"].copy()
    frame.loc[(frame["adapter"] == "lora") & (frame["control"] == "none"), "primary"] = True
    with pytest.raises(InputError, match=r"marks \d+ combinations as primary"):
        find_primary(frame)


def test_two_rows_for_one_estimate_are_refused(tables):
    frame = pd.concat([tables["agreement"]] * 2)
    with pytest.raises(InputError, match="more than one primary row for testbed"):
        primary_rows(frame, _key(tables))


def test_random_dictionary_twin_becomes_the_control_of_its_subject(maker):
    named, twin = maker(twin=False).tables()["agreement"], maker(twin=True).tables()["agreement"]
    assert "testbed-permuted" in set(twin["subject"])
    pd.testing.assert_frame_equal(with_controls(twin), named)


def test_controls_of_the_twin_are_not_taken_for_controls_of_the_subject(maker):
    twin = maker(twin=True).tables()["agreement"]
    extra = twin[twin["subject"] == "testbed-permuted"].assign(control="shuffled_explanations", estimate=0.99)
    rows = primary_rows(pd.concat([twin, extra]), find_primary(twin))
    assert rows["estimate"].max() < 0.99


def test_unknown_control_is_kept_after_the_known_ones():
    rows = pd.DataFrame({"control": ["none", "moon_phase", "random_dictionary"]})
    assert controls_in(rows) == ["random_dictionary", "moon_phase"]


def test_controls_that_a_study_must_ask_for_stand_last_and_are_not_what_a_result_must_exceed():
    rows = pd.DataFrame({"control": ["none", "shuffled_completions", "random_dictionary"]})
    assert controls_in(rows) == ["random_dictionary", "shuffled_completions"]
    assert controls_to_exceed(rows)["control"].tolist() == ["random_dictionary"]


def test_specificity_counts_come_from_the_table():
    matrix = pd.DataFrame([[0.9, 0.5, 0.4], [0.7, 0.6, 0.1], [0.8, 0.2, 0.8]], index=list("abc"), columns=list("abc"))
    assert own_largest(matrix) == (1, 3), "a tie is not the largest"
    matrix.loc["a", "a"] = np.nan
    assert own_largest(matrix) == (0, 2), "a row without its own value is not counted"
    assert own_largest(matrix.iloc[:1, :1]) == (0, 0), "nothing to compare with"


def test_chance_bounds_and_name_of_a_statistic_come_from_its_registration(monkeypatch, tables):
    marked = Primary("bias", "contribution", "truth_input", "table", "somers_d")
    facts = StatisticFacts(title="Somers' D", chance=0.0, bounds=(-1.0, 1.0))
    monkeypatch.setitem(STATISTICS._facts, "somers_d", facts)
    assert (marked.title, marked.facts.chance, marked.facts.bounds) == ("Somers' D", 0.0, (-1.0, 1.0))
    assert replace(marked, statistic="stratified_auroc").title == "stratified auroc"


def test_facts_of_sources_are_those_of_the_plan(plan):
    facts = source_facts(plan).set_index("source")
    assert set(facts.index) == set(plan.study.sources)
    for name, source in plan.study.sources.items():
        assert facts.loc[name, "side"] == source.side
        share = facts.loc[name, "wrong_share"]
        assert np.isnan(share) if source.wrong_share is None else share == source.wrong_share
