"""replication.csv"""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from isaerft.analysis import analysis_of, table, tables_of
from isaerft.analysis.replication import ALL
from isaerft.layout import Results
from tests.analysis.small_study import make_study

KEYS = {"measure": "contribution", "source": "said", "judge": "lexical", "statistic": "auroc"}
VALUES = {
    ("a1", "bias"): 0.8,
    ("a2", "bias"): 0.9,
    ("a3", "bias"): 0.85,
    ("a1", "scale"): 0.7,
    ("a2", "scale"): 0.75,
    ("b1", "bias"): 0.6,
    ("b2", "bias"): 0.5,
    ("lone", "bias"): 0.1,
    ("a1-permuted", "bias"): 0.2,
}


def study(**groups):
    return make_study(subjects={name: {"testbed": {}, "group": group} for name, group in groups.items()})


def replicated(plan):
    rows = [{"subject": s, "adapter": a, "quantity": "agreement", "estimate": v} | KEYS for (s, a), v in VALUES.items()]
    rows.append(rows[2] | {"adapter": "scale", "estimate": np.nan})
    made = table("replication")
    return made.conform(made.make(analysis_of(plan, Results("."), {"overall": pd.DataFrame(rows)})))


@pytest.fixture(scope="module")
def rows():
    return replicated(study(a1="a", a2="a", a3="a", b1="b", b2="b", lone="c")).set_index(["group", "adapter"])


def test_the_subjects_of_a_group_are_averaged_with_an_interval_over_subjects(rows):
    own = rows.loc[("a", "bias")]
    values = np.array([0.8, 0.9, 0.85])
    assert own.estimate == pytest.approx(0.85)
    expected = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert (own.ci_low, own.ci_high) == pytest.approx(expected)
    assert (own.n_subjects, own.lowest, own.highest) == (3, 0.8, 0.9)
    assert own.sd == pytest.approx(values.std(ddof=1))
    assert rows.loc[("b", "bias")].estimate == pytest.approx(0.55)


def test_a_lone_subject_a_twin_and_an_undefined_estimate_count_for_nothing(rows):
    assert set(rows.index) == {(g, a) for g in ("a", ALL) for a in ("bias", "scale")} | {("b", "bias")}
    assert rows.loc[("a", "scale")].n_subjects == 2


def test_another_adapter_is_compared_with_the_primary_one_subject_by_subject(rows):
    differences = np.array([0.1, 0.15])
    found = rows.loc[("a", "scale")]
    assert found.advantage == pytest.approx(differences.mean())
    expected = stats.t.interval(0.95, 1, differences.mean(), stats.sem(differences))
    assert (found.advantage_ci_low, found.advantage_ci_high) == pytest.approx(expected)
    assert found.advantage_share == 1
    assert np.isnan(rows.loc[("a", "bias")].advantage)
    assert rows.primary.tolist() == [True, False, True, True, False]


def test_all_groups_together_have_rows_in_which_the_subject_is_the_unit(rows):
    own = rows.loc[(ALL, "bias")]
    values = np.array([0.8, 0.9, 0.85, 0.6, 0.5, 0.1])
    assert (own.estimate, own.n_subjects) == (pytest.approx(values.mean()), 6)
    assert (own.ci_low, own.ci_high) == pytest.approx(stats.t.interval(0.95, 5, values.mean(), stats.sem(values)))
    assert rows.loc[(ALL, "scale")].n_subjects == 2
    alone = replicated(study(a1="a", a2="a", a3="a"))
    assert set(alone.group) == {"a"}, "one group needs no second mean of the same"


def test_a_world_without_features_is_no_replicate_of_those_that_have_some():
    groups = {"a1": "a", "a2": "a", "a3": "a", "b1": "none", "b2": "none"}
    subjects = {
        name: {"testbed": {"features": group != "none"}, "group": group, "train_sae": {}}
        for name, group in groups.items()
    }
    found = replicated(make_study(subjects=subjects)).set_index(["group", "adapter"])
    assert found.loc[(ALL, "bias")].n_subjects == 3
    assert found.loc[("none", "bias")].n_subjects == 2


def test_only_a_study_whose_groups_have_several_subjects_has_the_table():
    assert "replication" in tables_of(study(x="", y=""))
    assert "replication" not in tables_of(study(x="one", y="other"))
    assert "replication" not in tables_of(make_study())
