import numpy as np
import pandas as pd
import pytest

from isaerft.analysis import TABLES
from isaerft.report.cautions import cautions


def _with(tables, table, rows=slice(None), **values):
    frame = tables[table].copy()
    for column, value in values.items():
        frame.loc[rows, column] = value
    return tables | {table: frame}


@pytest.mark.parametrize(
    ("table", "values", "said"),
    [
        ("agreement", {"minimum_detectable_effect": 0.99}, "8 of 8 behaviors have too little power"),
        ("agreement", {"minimum_detectable_effect": np.nan}, "no minimum detectable effect in 8 of 8"),
        ("agreement", {"n_expected": 3}, "fewer than 10 latents are expected to change"),
        ("agreement", {"n_seeds": 1}, "one seed"),
        ("agreement", {"estimate": 0.6}, "not below the result"),
        ("agreement", {"pvalue": 0.001}, "control random dictionary has p < 0.01 in 8 of 8"),
        ("subjects", {"variance_explained": 0.4}, "explains 40% of the variance"),
        ("training", {"heldout_loss_adapted": 9.0}, "the held-out loss did not fall for helpfulness"),
        ("behavior_check", {"ci_low": -0.1}, "do not show that helpfulness"),
        ("behavior_check", {"ci_low": np.nan, "ci_high": np.nan}, "do not show that helpfulness"),
        ("most_changed_latents", {"verdict": "unstable"}, "80 of the 80 most changed latents"),
    ],
)
def test_weakness_in_a_table_is_said(table, values, said, tables):
    quiet = _with(tables, "most_changed_latents", verdict="expected")
    assert not any(said in text for text in cautions(quiet))
    assert any(said in text for text in cautions(_with(quiet, table, **values)))


def test_no_warning_is_given_of_shuffled_completions_whether_they_are_absent_or_as_high_as_the_result(summary, tables):
    quiet = cautions(tables)
    assert not any("shuffled completions" in text for text in quiet)
    frame = tables["agreement"]
    rows = frame[(frame["control"] == "none") & frame["primary"].fillna(False)]
    twins = rows.assign(control="shuffled_completions", primary=False, estimate=0.99, pvalue=0.0001)
    beside = tables | {"agreement": pd.concat([frame, twins], ignore_index=True)}
    assert cautions(beside) == quiet
    assert 'aria-label="shuffled completions: median 0.99"' in summary(beside)


def beside(tables, rows):
    """Return the tables with specificities of random dictionaries: (control, estimate, lower end of the difference)."""
    primary = {"adapter": "bias", "measure": "contribution", "source": "truth_input", "judge": "table"}
    made = [
        {"subject": "testbed", "control": name, "estimate": estimate, "difference_ci_low": low, "statistic": "auroc"}
        | {"n_behaviors": 8, "n_latents": 400, "n_alive": 400, **primary}
        for name, estimate, low in rows
    ]
    table = TABLES["random_dictionaries"]
    return tables | {table.name: table.conform(pd.DataFrame(made).reindex(columns=table.column_names))}


def test_a_random_dictionary_that_is_not_known_to_be_less_specific_is_said(tables):
    own, worse = ("none", 0.28, None), ("frozen_encoder", 0.1, 0.05)
    quiet = cautions(beside(tables, [own, worse]))
    assert quiet == cautions(tables)
    rows = [
        own,
        worse,
        ("frozen_decoder", 0.25, -0.04),
        ("untrained_dictionary", 0.27, 0.0),
        ("random_model", None, None),
    ]
    said = [text for text in cautions(beside(tables, rows)) if text not in quiet]
    assert len(said) == 3
    assert "the baseline frozen decoder has a specificity of 0.25 and is not known to be less specific" in said[0]
    assert "than the dictionary (0.28; truth_input; compared over 8 behaviors)" in said[0]
    assert "untrained dictionary" in said[1]
    assert "the baseline random model has no specificity" in said[2]


def test_where_the_primary_explanations_are_of_one_dictionary_alone_a_baseline_is_compared_by_others(tables):
    rows = beside(tables, [("none", 0.2, None), ("untrained_dictionary", 0.19, -0.1)])
    rows["random_dictionaries"]["source"] = "local_input"
    (said,) = [text for text in cautions(rows) if "baseline" in text]
    assert "(0.20; local_input; " in said


def test_a_behavior_that_fell_has_moved_too(tables):
    fallen = _with(tables, "behavior_check", ci_low=-0.4, ci_high=-0.1)
    assert not any("do not show" in text for text in cautions(fallen))


def test_explanations_that_score_no_higher_than_exchanged_ones_are_said(tables):
    columns = TABLES["explanation_quality"].column_names
    rows = [
        ("testbed", source, "words", score, 90, 0, low + 0.1, low, low + 0.2, 0.52)
        for source in ("truth_input", "another")
        for score, low in (("detection", 0.6), ("fuzzing", 0.5), ("output", 0.52))
    ]
    quality = TABLES["explanation_quality"].conform(pd.DataFrame(rows, columns=columns))
    (said,) = [text for text in cautions(tables | {"explanation_quality": quality}) if "exchanged ones" in text]
    assert "does not show explanations from truth_input to be better than exchanged ones in fuzzing, output" in said
    good = quality.assign(ci_low=0.6)
    assert not any("exchanged ones" in text for text in cautions(tables | {"explanation_quality": good}))


def test_a_claim_that_is_smaller_than_its_noise_is_said_and_no_other_claim(tables):
    said = [text for text in cautions(tables) if "luck" in text]
    assert said == ["testbed: testbed bias against affine: luck."]
    assert not any("scale" in text or "probe" in text for text in said)
    assert any("Only training seeds" in text for text in cautions(tables))
    assert not any("Only training seeds" in text for text in cautions(_with(tables, "claims", 0, over="testbed.seed")))
    quiet = _with(tables, "claims", warning=None)
    assert len(cautions(quiet)) == len(cautions(tables)) - 1
    many = tables | {"claims": pd.concat([tables["claims"]] * 7, ignore_index=True)}
    found = [text for text in cautions(many) if "luck" in text or "reseeding" in text]
    assert len(found) == 5
    assert found[-1] == "testbed: 3 more differences in claims.csv may be reseeding alone."


def test_a_claim_between_several_subjects_begins_a_sentence(tables):
    between = _with(tables, "claims", of=None, warning="specificity in a lies above that in b.")
    assert "Specificity in a lies above that in b." in cautions(between)


def test_untested_latents_are_counted(tables):
    assert any("100 of 512 latents were not tested" in text for text in cautions(tables))
    assert not any("not tested" in text for text in cautions(_with(tables, "agreement", n_latents=512)))


def test_twin_subjects_raise_no_warning_of_their_own(tables):
    names = ("testbed-permuted", "testbed-frozen-decoder", "testbed-untrained-dictionary", "testbed-random-model")
    twins = [tables["subjects"].assign(subject=name, variance_explained=0.0) for name in names]
    both = tables | {"subjects": pd.concat([tables["subjects"], *twins])}
    assert cautions(both) == cautions(tables)
