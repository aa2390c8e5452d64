"""agreement.csv: the result by the test of the statistics, q-values, and what is left empty."""

from dataclasses import fields

import numpy as np
import pandas as pd
import pytest

from isaerft.analysis import analysis_of, readings
from isaerft.analysis.agreement import agreement
from isaerft.analysis.readings import read_changes
from isaerft.judges import read_judgements, write_judgements
from isaerft.layout import Results
from isaerft.stats import (
    against_others,
    agreement_test,
    family_qvalues,
    mean_rank,
    negative_controls,
    others_of,
    qvalues,
    sign_agreement,
    specificity_matrix,
)
from tests.analysis.small_study import BEHAVIORS, DEAD, EXPECTED, UNEXPLAINED, N, make_study

UNIVERSE = [i for i in range(N) if i not in (*DEAD, *UNEXPLAINED)]
FOUND = [name for name in BEHAVIORS if EXPECTED[name]]


def changes_of(parts, plan):
    """Return the changes (n_behaviors, n) of the primary adapter and measure, and the expectations of those found."""
    read = read_changes(plan, Results(parts.folder), "toy", "bias")
    changes = np.array([mean_rank(read[name, "contribution"][:, UNIVERSE]) for name in BEHAVIORS])
    return changes, np.array([np.isin(UNIVERSE, EXPECTED[name]) for name in FOUND])


def test_a_result_is_compared_with_the_same_expectations_under_the_other_trainings(finished):
    parts, tables = finished
    plan = make_study()
    changes, labels = changes_of(parts, plan)
    facts = pd.read_parquet(parts.folder / "subjects/toy/latents.parquet").iloc[UNIVERSE]
    confounds = np.array([facts.firing_rate, facts.decoder_norm, facts.density])
    matrix = specificity_matrix(changes, labels, strata=np.zeros(len(UNIVERSE), int), confounds=confounds)
    raw = specificity_matrix(changes, labels)
    for place, name in enumerate(FOUND):
        row = tables["agreement"].query(f"behavior == '{name}' and primary").iloc[0]
        found = against_others(matrix[place, place], others_of(matrix[:, place], place), bounds=(0, 1))
        assert row.estimate == pytest.approx(raw[place, place], rel=1e-5)
        assert row.adjusted_estimate == pytest.approx(found.statistic, rel=1e-5)
        assert row.pvalue == pytest.approx(found.pvalue, rel=1e-5)
        assert (row.adjusted_ci_low, row.adjusted_ci_high) == pytest.approx(found.confidence_interval, rel=1e-5)
        assert (row.null_mean, row.null_sd) == pytest.approx((found.null_mean, found.null_sd), rel=1e-5)
        assert row.minimum_detectable_effect == pytest.approx(found.minimum_detectable_effect(), rel=1e-4)
        assert (row.n_others, row.n_placebos) == (5, 5)
        assert row.pvalue_placebo == pytest.approx(1 / 6, rel=1e-5)
        assert row.ci_over == "trainings"
        assert row.ci_low < row.estimate <= row.ci_high
        assert row.placebo_mean == pytest.approx(0.5, abs=0.2)


@pytest.fixture
def any_texts(monkeypatch):
    """Exchange texts although each latent has its own."""
    monkeypatch.setattr(readings, "LATENTS_PER_TEXT", 1)


def test_texts_are_not_exchanged_where_few_latents_share_one(finished):
    rows = finished[1]["agreement"].query("control == 'none'")
    assert (rows.n_texts > rows.n_latents / 4).all()
    assert rows[["pvalue_texts", "p_floor", "n_resamples"]].isna().all(axis=None)
    assert rows.query("behavior == 'a'").pvalue.notna().all()


@pytest.mark.parametrize(("texts", "shared"), [([0] * 4 + [1] * 4, True), ([0] * 4 + [1] * 3, False)])
def test_texts_are_shared_by_four_latents_on_average(texts, shared):
    nothing = np.zeros(len(texts))
    parts = {field.name: nothing for field in fields(readings.Confounds)} | {"texts": np.array(texts)}
    assert readings.Confounds(**parts).shares_texts == shared


def test_texts_are_exchanged_beside_it_with_what_other_trainings_did_taken_out(parts, any_texts):
    plan = make_study()
    changes, labels = changes_of(parts, plan)
    facts = pd.read_parquet(parts.folder / "subjects/toy/latents.parquet").iloc[UNIVERSE]
    confounds = np.array([facts.firing_rate, facts.decoder_norm, facts.density])
    # Nothing is expected for the last behavior; its training is a negative control all the same.
    others = np.vstack([labels[1:], np.zeros((1, len(UNIVERSE)), bool)])
    wanted = agreement_test(
        changes[0],
        labels[0],
        strata=np.zeros(len(UNIVERSE), int),
        confounds=confounds,
        controls=negative_controls(changes[1:], others),
        n_resamples=199,
        rng=0,
    )
    row = parts.tested(plan).query("behavior == 'a' and primary").iloc[0]
    assert row.pvalue_texts == pytest.approx(wanted.pvalue, abs=0.03)
    assert (row.n_resamples, row.p_floor) == (199, 1 / 200)
    assert (row.n_expected, row.n_seeds) == (10, 2)
    assert (row.n_texts, row.n_expected_texts) == (len(UNIVERSE), 10)
    assert row.noise_ceiling > 0.9


def test_where_nothing_is_expected_the_result_is_empty_and_not_zero(finished):
    parts, tables = finished
    table = tables["agreement"]
    silent = table[table.behavior == "silent"]
    assert len(silent)
    empty = ["estimate", "ci_low", "pvalue", "qvalue", "pvalue_texts", "pvalue_placebo", "n_resamples", "noise_ceiling"]
    assert silent[empty].isna().all(axis=None)
    assert (silent.n_expected == 0).all()
    judged = tables["specificity"].query("judged_for == 'silent'")
    assert judged.estimate.isna().all()
    assert tables["specificity"].query("judged_for == 'a'").estimate.notna().all()
    lines = (parts.folder / "tables/agreement.csv").read_text().splitlines()
    assert any(",silent,bias,contribution,said,lexical,none,auroc,,,,," in line for line in lines)


def test_exactly_the_primary_result_is_marked(finished):
    marked = finished[1]["agreement"].query("primary")
    assert marked.behavior.tolist() == list(BEHAVIORS)
    for column, value in {
        "adapter": "bias",
        "measure": "contribution",
        "source": "said",
        "judge": "lexical",
        "statistic": "auroc",
        "control": "none",
    }.items():
        assert (marked[column] == value).all()


def test_a_family_of_qvalues_is_one_question_about_all_behaviors_and_holds_no_control_or_wrong_arm(parts):
    plan = make_study()
    parts.agreement(plan)
    rng = np.random.default_rng(0)
    for adapter in ("bias", "scale"):
        path = parts.path("agreement", "toy", adapter, "agreement.parquet")
        table = pd.read_parquet(path)
        table.assign(pvalue=table.pvalue.where(table.pvalue.isna(), rng.uniform(size=len(table)))).to_parquet(path)
    table = agreement(analysis_of(plan, Results(parts.folder)))
    claims = (table.control == "none") & (table.source == "said")
    assert 0 < claims.sum() < len(claims)
    assert table[~claims][["family", "qvalue"]].isna().all(axis=None)
    question = ["subject", "adapter", "measure", "source", "judge", "statistic"]
    assert table[claims].groupby("family").ngroups == table[claims].groupby(question).ngroups
    own, others = table[claims & table.primary], table[claims & ~table.primary]
    assert own.family.nunique() == 1
    np.testing.assert_allclose(own.qvalue, qvalues(own.pvalue.to_numpy(float)))
    np.testing.assert_allclose(
        others.qvalue, family_qvalues(others.pvalue.to_numpy(float), others.family.to_numpy(str))
    )


def test_an_adapter_that_changed_nothing_leaves_its_rows_empty_and_the_rest_whole(parts):
    def nothing(table):
        table["change"] = 0.0

    parts.changes("toy", "a", nothing)
    tables = parts.tables(make_study())
    table = tables["agreement"].query("control == 'none'").set_index("behavior")
    assert table.loc["a"].estimate.isna().all()
    assert table.loc["b"].estimate.notna().all()
    matrix = tables["specificity"].query("judged_for == 'b'").set_index("trained_on").estimate
    assert matrix["a"].isna().all()
    assert matrix["b"].notna().all()


def test_a_seed_that_changed_nothing_leaves_the_others_result(parts):
    def first_seed(table):
        table.loc[table.seed == 0, "change"] = 0.0

    parts.changes("toy", "a", first_seed)
    parts.changes("toy-permuted", "a", first_seed)
    table = parts.tested(make_study()).query("behavior == 'a' and source == 'said'")
    # All decoder rows are equally long here, so that control alone is empty.
    assert (table.estimate.isna() == (table.control == "decoder_norm_only")).all()
    assert table.query("control == 'none'").noise_ceiling.isna().all()


def test_strata_that_leave_nothing_to_exchange_make_the_row_empty_with_a_warning(parts, caplog, any_texts):
    plan = make_study(agreement={"n_resamples": 199, "n_bins": 1, "min_firing_rate": 0.01})
    facts = pd.read_parquet(parts.folder / "subjects/toy/latents.parquet")
    facts["cluster"] = 0
    facts.to_parquet(parts.folder / "subjects/toy/latents.parquet")
    table = parts.tested(plan).query("behavior == 'a' and control == 'none' and statistic == 'auroc'")
    assert table.pvalue_texts.isna().all()
    assert table.estimate.notna().all()  # other trainings can be compared all the same
    assert "no exchange can change the labels" in caplog.text


def test_a_source_is_tested_with_the_adapters_that_it_names_alone(parts):
    sources = {"said": {"kind": "local"}, "wrong": {"kind": "local", "wrong_share": 0.5, "adapters": ["scale"]}}
    table = parts.tables(make_study(sources=sources))
    for name in ("agreement", "overall", "specificity"):
        rows = table[name].groupby("source").adapter.unique()
        assert (set(rows["said"]), set(rows["wrong"])) == ({"bias", "scale"}, {"scale"})


def test_sign_agreement_reads_signed_changes_and_is_empty_where_a_measure_has_no_direction(parts, any_texts):
    def edit(table):
        table["change"] -= 1.5
        table["measure"] = table.measure.replace("parameter", "attribution")

    for subject in ("toy", "toy-permuted"):
        for behavior in BEHAVIORS:
            parts.changes(subject, behavior, edit)
    judged = parts.folder / "judgements/toy/said/lexical.parquet"
    table = read_judgements(judged)
    write_judgements(table.assign(expected_effect=table.expected_effect - 0.5 * (table.latent_index >= 30)), judged)
    statistics = {"n_resamples": 199, "n_bins": 1, "statistics": ["auroc", "sign_agreement"]}
    plan = make_study(agreement=statistics, measures=["contribution", "attribution"])
    table = parts.tested(plan).query("statistic == 'sign_agreement' and source == 'said'")
    assert table.query("measure == 'attribution'").estimate.isna().all()
    rows = table.query("measure == 'contribution' and adapter == 'bias' and behavior == 'a'").set_index("control")
    change = read_changes(plan, Results(parts.folder), "toy", "bias")["a", "contribution"].mean(0)
    expected = np.isin(range(N), EXPECTED["a"]) - 0.5 * (np.arange(N) >= 30)
    universe = [i for i in range(N) if i not in (*DEAD, *UNEXPLAINED)]
    assert rows.estimate["none"] == pytest.approx(float(sign_agreement(change[universe], expected[universe])), rel=1e-5)
    assert rows.estimate["none"] > 0.7 > rows.estimate["shuffled_explanations"] + 0.1
    assert rows.pvalue_texts["none"] < 0.02
    # What has no sign cannot stand in the place of a signed change.
    without = ["firing_rate_only", "decoder_norm_only", "explanation_length", "genericity"]
    assert rows.estimate[without].isna().all()
