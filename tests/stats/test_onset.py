"""When changes begin."""

import numpy as np
import pytest

from isaerft.errors import InputError
from isaerft.stats import onsets, share_reached

STEPS = [1, 2, 4, 8, 16]


def saturating(time_constant, final):
    """Return changes (n_steps, n) that approach `final` with a time constant each."""
    return final * (1 - np.exp(-np.array(STEPS)[:, None] / time_constant))


def test_a_latent_begins_where_it_passes_half_of_its_final_change():
    final = np.array([2.0, -2.0])
    course = np.array([[0.5, 0.0], [1.5, 0.0], [1.5, -0.5], [2.0, -1.5], [2.0, -2.0]])
    assert onsets(course, STEPS, final).tolist() == pytest.approx([1.5, 6.0])
    assert onsets(course, STEPS, final, share=0.25).tolist() == pytest.approx([1.0, 4.0])


def test_the_first_step_counts_from_no_change_at_step_0():
    assert onsets([[4.0], [4.0]], [10, 20], [4.0]).tolist() == [5.0]


def test_what_never_moves_or_moves_the_other_way_has_no_onset():
    course = np.array([[0.0, -1.0, 1.0], [0.0, -2.0, 0.0]])
    assert onsets(course, [1, 2], [0.0, 3.0, 1.0]).tolist()[:2] == [np.inf, np.inf]
    assert onsets(course, [1, 2], [0.0, 3.0, 1.0])[2] == 0.5, "the first time counts"


def test_half_of_a_saturating_change_is_reached_after_ln_2_time_constants():
    constants, final = np.array([1.0, 3.0, 6.0, 9.0]), np.array([1.0, 1.0, -5.0, 0.1])
    fine = np.arange(1, 400) / 10
    course = final * (1 - np.exp(-fine[:, None] / constants))
    assert onsets(course, fine, final) == pytest.approx(np.log(2) * constants, rel=0.01)


def test_shares_are_weighted_by_the_final_change_and_lose_by_what_moves_away():
    final = np.array([3.0, -1.0])
    assert share_reached([[3.0, 0.0], [0.0, -1.0], [3.0, 1.0]], final).tolist() == [0.75, 0.25, 0.5]
    assert np.isnan(share_reached([[1.0]], [0.0])).all()
    assert share_reached(saturating(4.0, final), final) == pytest.approx(1 - np.exp(-np.array(STEPS) / 4))


@pytest.mark.parametrize(
    ("course", "steps", "final", "what"),
    [
        ([[1.0]], [1, 2], [1.0], "steps"),
        ([[1.0], [1.0]], [2, 1], [1.0], "steps"),
        ([[1.0], [1.0]], [0, 1], [1.0], "steps"),
        ([[1.0, 2.0]], [1], [1.0], "final"),
        ([[np.nan]], [1], [1.0], "course"),
    ],
)
def test_what_cannot_be_a_course_is_refused(course, steps, final, what):
    with pytest.raises(InputError, match=what):
        onsets(course, steps, final)
