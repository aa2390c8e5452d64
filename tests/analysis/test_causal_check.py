"""causal_check.csv"""

from tests.analysis.small_study import BEHAVIORS, Parts, make_study


def test_the_causal_check_is_collected_for_every_behavior_and_left_out_when_off(finished, tmp_path):
    table = finished[1]["causal_check"]
    assert set(table.behavior) == set(BEHAVIORS)
    assert len(table) == len(BEHAVIORS) * 2 * 2 * 2
    assert table.ci_high.isna().all()
    without = Parts(tmp_path).tables(make_study(causal_check={"adapters": []}))
    assert "causal_check" not in without
