"""The answer of a study: by where the interval lies, never more than the test says."""

import numpy as np
import pandas as pd
import pytest

from isaerft.report.selection import Setup
from isaerft.report.verdict import looking_sentences, verdicts


def overall(tables, estimate, low, high, *, pvalue=0.0001, **columns):
    """Return the tables with another result of the primary test."""
    frame = tables["overall"].copy()
    rows = (frame["quantity"] == "specificity").astype(bool)
    numbers = {"estimate": estimate, "ci_low": low, "ci_high": high, "pvalue": pvalue} | columns
    for name, value in numbers.items():
        frame.loc[rows, name] = value
    return tables | {"overall": frame}


def labels(tables, provenance, n_compared=0, n_recognized=0):
    row = {"subject": "testbed", "source": "truth_input", "provenance": provenance}
    return tables | {
        "explained_latents": pd.DataFrame([row | {"n_compared": n_compared, "n_recognized": n_recognized}])
    }


@pytest.mark.parametrize(
    ("result", "smallest", "state", "answer"),
    [
        ((0.3, 0.2, 0.4), None, "met", "Yes."),
        ((0.3, 0.2, 0.4), 0.05, "met", "Yes."),
        ((0.07, 0.02, 0.12), 0.05, "met", "Yes, but it may be little."),
        ((0.02, 0.01, 0.03), 0.05, "unmet", "Too little to matter."),
        ((0.3, 0.2, 0.4, 0.06), None, "open", "Not shown."),
        ((0.02, -0.05, 0.09, 0.2), None, "open", "Not shown."),
        ((0.02, -0.05, 0.09, 0.2), 0.05, "open", "Not shown."),
        ((0.0, -0.03, 0.03, 0.4), 0.05, "unmet", "No."),
        ((0.0, -0.03, 0.03, 0.4), None, "open", "Not shown."),
        ((-0.1, -0.2, -0.01, 0.99), None, "unmet", "No: the reverse."),
        ((0.3, np.nan, np.nan, 0.5), None, "open", "Cannot be said."),
        ((np.nan, np.nan, np.nan, np.nan), None, "open", "Not tested."),
    ],
)
def test_the_answer_follows_from_the_interval_and_the_p_value(tables, result, smallest, state, answer):
    (verdict,) = verdicts(
        overall(tables, *result[:3], **({"pvalue": result[3]} if len(result) > 3 else {})), Setup(smallest)
    )
    assert (verdict.state, verdict.answer) == (state, answer)


def test_nothing_found_is_never_said_to_show_that_explanations_are_wrong(tables):
    (verdict,) = verdicts(overall(tables, 0.02, -0.05, 0.09, pvalue=0.2), Setup())
    assert verdict.claim.startswith("How much better")
    assert "0.02 AUROC (95 % interval −0.05 to 0.09; p = 0.2), over 8 behaviors." in verdict.claim
    assert verdict.reasons == (
        "This does not show that explanations are wrong: an effect of up to 0.09 is not excluded.",
    )


def test_too_few_behaviors_for_any_low_p_value_are_named(tables):
    (verdict,) = verdicts(overall(tables, 0.2, -0.1, 0.5, pvalue=0.17, n_families=3), Setup())
    assert verdict.reasons[-1] == "With 3 independent behaviors p cannot be below 0.17; train on more."
    assert "over 8 behaviors, 3 of them independent." in verdict.claim


def test_a_control_that_agrees_as_well_is_beside_the_answer(tables):
    frame = tables["agreement"].copy()
    frame.loc[(frame["control"] == "decoder_norm_only").astype(bool), "estimate"] = 0.99
    (verdict,) = verdicts(tables | {"agreement": frame}, Setup())
    assert (verdict.state, verdict.answer) == ("open", "Yes, but a control agrees as well.")
    assert "the highest of 7 controls, decoder norm only, reaches 0.99" in verdict.control
    assert verdict.reasons[0].startswith("Agreement is not above decoder norm only.")


def test_labels_of_another_sae_leave_nothing_to_say_unless_the_result_itself_shows_that_they_fit(tables):
    nothing = overall(tables, 0.0, -0.03, 0.03, pvalue=0.4)
    (verdict,) = verdicts(labels(nothing, "unknown", 64, 2), Setup(0.05))
    assert (verdict.state, verdict.answer) == ("open", "Cannot be said: the labels look like another SAE's.")
    (verdict,) = verdicts(labels(nothing, "unknown"), Setup(0.05))
    assert verdict.answer == "No."
    assert "not proven that these explanations are of this SAE" in verdict.reasons[-1]
    (verdict,) = verdicts(labels(nothing, "proven"), Setup(0.05))
    assert "SAE" not in "".join(verdict.reasons)
    (verdict,) = verdicts(labels(tables, "unknown", 64, 2), Setup(0.05))
    assert (verdict.answer, verdict.reasons) == ("Yes.", ())


def test_a_group_of_subjects_comes_first_and_its_interval_is_over_subjects(maker):
    tables = maker(subjects=("a", "b")).tables()
    row = {"group": "worlds", "quantity": "specificity", "statistic": "auroc", "n_subjects": 2, "primary": True}
    row |= {"estimate": 0.3, "ci_low": 0.2, "ci_high": 0.4, "lowest": 0.25, "highest": 0.35}
    found = verdicts(tables | {"replication": pd.DataFrame([row])}, Setup(0.05, confidence_level=0.9))
    assert [verdict.about for verdict in found] == ["worlds, 2 subjects", "a", "b"]
    assert found[0].answer == "Yes."
    assert "by 0.30 AUROC (90 % interval over subjects 0.20 to 0.40); 0.25 in the lowest" in found[0].claim


def test_what_looking_gives_is_said_only_of_adapters_without_training(tables):
    frame = pd.concat([tables["overall"], tables["overall"].assign(adapter="logit_lens", estimate=0.4, primary=False)])
    (sentence,) = looking_sentences(tables | {"overall": frame}, Setup(untrained=("logit_lens",)))
    assert sentence == "Specificity by looking, without any training: logit lens 0.40 (0.22 to 0.33)."
    assert list(looking_sentences(tables | {"overall": frame}, Setup())) == []
