"""calibration.csv of a study with known shares of wrong explanations is read off its tables, row by row."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from isaerft.analysis import analysis_of
from isaerft.analysis.calibration import TABLE, dose_rows
from isaerft.calibration.results import table_of
from isaerft.config import Adapter, Behavior, Judge, Primary, Source, Study, Subject
from isaerft.config.plan import Plan
from isaerft.layout import Results
from isaerft.stats import auroc

SHARES = (0, 0.2, 1)
BEHAVIORS = ("refusal", "humor", "alarm")


@pytest.fixture
def plan():
    arms = {f"wrong{round(100 * share)}": Source(kind="file", wrong_share=share) for share in SHARES}
    return Plan(
        Study(
            study="s",
            subjects={"toy": Subject(testbed={})},
            behaviors={name: Behavior(description=name, testbed=name) for name in BEHAVIORS},
            adapters={"bias": Adapter()},
            sources=arms | {"local": Source(kind="local")},
            judges={"truth": Judge(kind="table")},
            primary=Primary(adapter="bias", measure="contribution", source="wrong0", judge="truth"),
        )
    )


def agreement(medians):
    rows = [
        {"source": f"wrong{round(100 * share)}", "behavior": behavior, "control": control, "estimate": estimate}
        for share, median in zip(SHARES, medians, strict=True)
        for behavior, shift in zip(BEHAVIORS, (-0.05, 0, 0.05), strict=True)
        for control, estimate in (("none", median + shift), ("random_dictionary", 0.72))
    ]
    same = {"subject": "toy", "adapter": "bias", "measure": "contribution", "judge": "truth", "statistic": "auroc"}
    other = pd.DataFrame(rows).assign(**same | {"measure": "parameter", "estimate": 0.1})
    return pd.concat([pd.DataFrame(rows).assign(**same), other])


OVERALL = pd.DataFrame(
    {"subject": "toy", "adapter": "bias", "measure": "contribution", "judge": "truth", "quantity": quantity}
    | {"source": "wrong0", "pvalue": pvalue, "n_behaviors": 3}
    for quantity, pvalue in (("agreement", 0.5), ("specificity", 0.0002))
)


@pytest.fixture
def verdicts():
    rng = np.random.default_rng(0)
    right = [f"fires on {word}" for word in "abcdefghij" * 4]
    said = {"wrong0": right, "wrong20": ["fires on x"] * 8 + right[8:], "wrong100": ["fires on x"] * 40}
    pvalues = np.where(np.arange(40) < 8, 0.1, 0.6) + rng.normal(0, 0.2, 40)
    parts = [
        pd.DataFrame({"subject": "toy", "source": source, "judge": "truth", "latent_index": range(40)}).assign(
            explanation=texts, contradiction_pvalue=pvalues
        )
        for source, texts in said.items()
    ]
    return pd.concat(parts), pvalues


def rows_of(table, quantity):
    chosen = table[table.quantity == quantity]
    return dict(zip(chosen.setting, chosen.value, strict=True))


def test_every_number_is_that_of_the_tables(plan, verdicts):
    told, pvalues = verdicts
    frames = {"agreement": agreement([0.8, 0.7, 0.5]), "overall": OVERALL, "explanation_verdicts": told}
    table = TABLE.conform(analysis_of(plan, Results("none"), frames).frame("calibration"))
    assert list(rows_of(table, "agreement_median").values()) == pytest.approx([0.8, 0.7, 0.5])
    assert rows_of(table, "strictly_falls") == {"subject=toy; side=input; shares=3": 1.0}
    assert rows_of(table, "specificity_pvalue") == {"subject=toy; side=input; behaviors=3": 0.0002}
    assert rows_of(table, "real_above_random_dictionary") == {"subject=toy; side=input; behaviors=3": 1.0}
    found = rows_of(table, "wrong_explanations_auroc")
    assert found == {
        "subject=toy; side=input; wrong=0.2; explanations=40; of_them_wrong=8": pytest.approx(
            float(auroc(-pvalues, np.arange(40) < 8))
        )
    }
    row = table[table.quantity == "wrong_explanations_auroc"].iloc[0]
    assert row.ci_low < row.value < row.ci_high


def test_a_fall_that_stops_for_one_share_is_not_strict(plan):
    table = table_of(dose_rows(plan, agreement([0.8, 0.5, 0.5]), OVERALL, None))
    assert set(rows_of(table, "strictly_falls").values()) == {0.0}
    assert not rows_of(table, "wrong_explanations_auroc")


def test_explanations_that_predict_nothing_are_not_told_apart(plan, verdicts):
    told, _ = verdicts
    told = told.assign(contradiction_pvalue=told.contradiction_pvalue.where(told.latent_index % 2 == 0))
    table = table_of(dose_rows(plan, agreement([0.8, 0.7, 0.5]), OVERALL, told))
    assert not rows_of(table, "wrong_explanations_auroc")  # four wrong ones are left


def test_a_study_without_right_and_wrong_arms_has_none(plan):
    assert plan.dose_arms == {"input": {0: "wrong0", 0.2: "wrong20", 1: "wrong100"}}
    primary = replace(plan.study.primary, source="wrong20")
    alone = replace(plan.study, sources={"wrong20": plan.study.sources["wrong20"]}, primary=primary)
    assert Plan(alone).dose_arms == {}
    assert not TABLE.when(Plan(alone))
