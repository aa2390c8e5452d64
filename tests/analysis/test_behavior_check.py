"""behavior_check.csv"""

from isaerft.analysis import tables_of
from tests.analysis.small_study import SCORED, make_study


def test_the_behavior_check_is_collected_for_every_scored_behavior_and_left_out_when_off(finished):
    table = finished[1]["behavior_check"]
    assert table.behavior.tolist() == list(SCORED)
    assert (table.target == 0.5).all()
    assert table.ci_high.isna().all()
    assert "behavior_check" not in tables_of(make_study(behavior_check={"adapters": []}))
