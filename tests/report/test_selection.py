import pandas as pd
import pytest

from isaerft.errors import InputError
from isaerft.report.headline import headlines
from isaerft.report.selection import controls_in, find_primary, primary_rows, to_exceed, with_controls


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
    assert to_exceed(rows)["control"].tolist() == ["random_dictionary"]


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
