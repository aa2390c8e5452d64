"""causal_check.csv"""

from isaerft.analysis import tables_of
from tests.analysis.small_study import BEHAVIORS, make_study


def test_the_causal_check_is_collected_for_every_behavior_and_left_out_when_off(finished):
    table = finished[1]["causal_check"]
    assert set(table.behavior) == set(BEHAVIORS)
    assert len(table) == len(BEHAVIORS) * 2 * 2 * 2
    assert table.ci_high.isna().all()
    assert "causal_check" not in tables_of(make_study(causal_check={"adapters": []}))
