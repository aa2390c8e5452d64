"""What a text says of input and output is told apart, and quoted contexts are left out."""

import pytest

from isaerft.explanations.base import clauses

INPUT = 'fires on "sir"; for example "promotes [sir]", "how [sir] ?"'


@pytest.mark.parametrize(
    ("text", "side", "told"),
    [
        (INPUT, "input", [("input", 'fires on "sir"')]),
        ('promotes "yes", ";"', "output", [("output", 'promotes "yes", ";"')]),
        ('amplified, makes "yes", "no" more likely', "output", [("output", 'amplified "yes", "no"')]),
        (f'{INPUT}; promotes "yes"', "both", [("input", 'fires on "sir"'), ("output", 'promotes "yes"')]),
        (
            f'{INPUT}; amplified, makes "yes" more likely',
            "both",
            [("input", 'fires on "sir"'), ("output", 'amplified "yes"')],
        ),
        ("fires on dogs; promotes cats", "input", [("input", "fires on dogs"), ("input", "promotes cats")]),
        ("apologies; firestorms", "both", [("both", "apologies; firestorms")]),
    ],
)
def test_each_clause_has_its_side_and_examples_have_none(text, side, told):
    assert [tuple(clause) for clause in clauses(text, side)] == told


def test_likely_is_only_part_of_the_frame_where_tokens_are_quoted():
    assert clauses("amplified, makes doubt more likely", "output")[0].text.endswith("more likely")
