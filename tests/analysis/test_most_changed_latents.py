"""most_changed_latents.csv"""

import numpy as np
import pandas as pd

from isaerft.analysis import analysis_of
from isaerft.analysis.most_changed_latents import _pushed, _verdicts, most_changed
from isaerft.analysis.readings import read_changes
from isaerft.layout import Results
from tests.analysis.small_study import BEHAVIORS, DEAD, make_study


def test_the_most_changed_are_ranked_by_size_and_never_dead(finished):
    parts, tables = finished
    table = tables["most_changed_latents"]
    assert not table.latent_index.isin(DEAD).any()
    group = table.query("behavior == 'a' and adapter == 'bias' and measure == 'contribution'")
    assert group["rank"].tolist() == list(range(1, 13))
    changes = read_changes(make_study(), Results(parts.folder), "toy", "bias")["a", "contribution"]
    size = np.abs(changes).mean(0)
    size[list(DEAD)] = -1
    assert group.latent_index.tolist() == np.argsort(-size)[:12].tolist()
    np.testing.assert_allclose(group.change, changes.mean(0)[group.latent_index], rtol=1e-4)
    assert ((group.change >= 0) == (group.direction == "promoted")).all()
    facts = pd.read_parquet(parts.folder / "subjects/toy/latents.parquet")
    np.testing.assert_allclose(group.firing_rate, facts.firing_rate[group.latent_index], rtol=1e-4)


def test_verdicts_say_unstable_unexplained_expected_or_unexpected(parts):
    def edit(table):
        # 5 has no explanation; 30 is expected of nothing; 10 is expected and rises; 11 is expected and falls; one seed
        # of four moves 31.
        for latent, value in {5: 90, 10: 85, 11: -80, 30: 70, 31: 0}.items():
            table.loc[table.latent_index == latent, "change"] = value
        table.loc[(table.latent_index == 31) & (table.seed == 2), "change"] = 260

    for behavior in BEHAVIORS:
        parts.changes("toy", behavior, edit, n_seeds=4)
    table = most_changed(analysis_of(make_study(n_seeds=4), Results(parts.folder)), "toy")
    group = table.query("behavior == 'a' and adapter == 'bias' and measure == 'contribution'").set_index("latent_index")
    assert group.verdict[[5, 10, 11, 30, 31]].tolist() == [
        "unexplained",
        "expected",
        "unexpected",
        "unexpected",
        "unstable",
    ]
    assert group.direction[11] == "suppressed"
    assert pd.isna(group.explanation[5])
    assert group.explanation[10] == "latent 10"


def test_with_one_seed_no_latent_is_called_stable(parts):
    for behavior in BEHAVIORS:
        parts.changes("toy", behavior, n_seeds=1)
    table = most_changed(analysis_of(make_study(n_seeds=1), Results(parts.folder)), "toy")
    assert (table.verdict == "unstable").all()
    assert table.pvalue.isna().all()


def test_a_subject_that_the_primary_source_does_not_speak_of_gets_what_speaks_of_it(parts):
    said = {"kind": "local", "subjects": ["other"]}
    plan = make_study(
        subjects={"toy": {"testbed": {}}, "other": {"testbed": {}}},
        sources={"said": said, "wrong": {"kind": "local", "subjects": ["toy"]}},
    )
    table = most_changed(analysis_of(plan, Results(parts.folder)), "toy")
    assert set(table.source) == {"wrong"}
    assert set(table.judge) == {"lexical"}


def test_a_latent_expected_to_fall_that_falls_is_as_expected():
    same = {"qvalue": 0.01, "expected": False}
    table = pd.DataFrame(
        [
            same | {"expected_effect": -1.0, "direction": "suppressed"},
            same | {"expected_effect": -1.0, "direction": "promoted"},
            same | {"expected_effect": 0.0, "direction": "suppressed"},
        ]
    )
    assert list(_verdicts(table, ())) == ["expected", "unexpected", "unexpected"]


def test_which_way_an_attribution_went_is_read_off_a_signed_measure():
    attribution, contribution = np.array([[3.0, 1.0]]), np.array([[-1.0, 2.0]])
    changes = {("a", "attribution"): attribution, ("a", "contribution"): contribution}
    assert _pushed(changes, "a", "attribution").tolist() == [-1.0, 2.0]
    assert _pushed({("a", "attribution"): attribution}, "a", "attribution").tolist() == [3.0, 1.0]
