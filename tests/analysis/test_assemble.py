"""The result tables from parts made by hand: 60 latents, three behaviors, two seeds."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from isaerft import config
from isaerft.analysis.agreement import write_agreement
from isaerft.analysis.collect import agreement_table, write_tables
from isaerft.analysis.inputs import alive_latents, read_changes, read_expectation
from isaerft.analysis.most_changed import _pushed, _verdicts, most_changed
from isaerft.errors import InputError
from isaerft.explanations import write_explanations
from isaerft.judges import read_judgements, write_judgements
from isaerft.stats import agreement_test, auroc, mean_rank, qvalues, sign_agreement
from isaerft.table import TABLES, conform, read_table

N = 60
DEAD, UNEXPLAINED = (3, 4), (5, 6, 7)
BEHAVIORS = ("a", "b", "silent")
SCORED = ("a", "b")
EXPECTED = {"a": range(10, 20), "b": range(20, 30), "silent": ()}


def make_study(**changes):
    values = {
        "study": "small",
        "subjects": {"toy": {"testbed": {}}},
        "behaviors": {
            name: {"description": name, "rule": True, "metric": {"kind": "length"} if name in SCORED else None}
            for name in BEHAVIORS
        },
        "adapters": {"bias": {}, "scale": {}, "lora": {}},
        "reference": "lora",
        "random_dictionary_adapters": ["bias", "scale"],
        "measures": ["parameter", "contribution"],
        "sources": {"said": {"kind": "local"}, "wrong": {"kind": "local", "wrong_share": 0.5}},
        "judges": {"lexical": {}},
        "primary": {"adapter": "bias", "measure": "contribution", "source": "said", "judge": "lexical"},
        "agreement": {"n_resamples": 199, "n_bins": 1, "top_k": 12},
        "n_seeds": 2,
    }
    return config.plan_from_dict(values | changes)


class Parts:
    """The folder results/small with every part that the rules would have written."""

    def __init__(self, folder):
        self.folder, self.rng = folder, np.random.default_rng(0)
        self.subject("toy")
        for subject in ("toy", "toy-permuted"):
            for behavior in BEHAVIORS:
                self.changes(subject, behavior)
                if subject == "toy":
                    self.causal_check(subject, behavior)
                    if behavior in SCORED:
                        self.behavior_check(subject, behavior)
                for adapter in ("bias", "scale", "lora"):
                    if (subject, adapter) != ("toy-permuted", "lora"):
                        self.training(subject, behavior, adapter)
        for source in ("said", "wrong"):
            self.explanations("toy", source)
            self.judgements("toy", source)

    def path(self, *parts):
        path = self.folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def subject(self, name):
        facts = pd.DataFrame({"latent_index": np.arange(N), "firing_rate": self.rng.uniform(0.01, 0.2, N)})
        facts.loc[list(DEAD), "firing_rate"] = 0.0
        facts = facts.assign(decoder_norm=1.0, density=self.rng.uniform(size=N), cluster=np.arange(N))
        facts = facts.assign(nearest_latent=np.roll(np.arange(N), -1), nearest_cosine=0.6, encoder_decoder_cosine=0.7)
        facts.to_parquet(self.path("subjects", name, "latents.parquet"))
        card = {"subject": name, "model": "testbed", "release": None, "sae_id": None, "hook_name": "blocks.1"}
        card |= {"d_in": 8, "d_sae": N, "variance_explained": 0.8, "l0": 3.0, "n_alive": 58, "n_dense": 0}
        card |= {"loss_base": 2.0, "loss_spliced": 2.1}
        twin = card | {"subject": f"{name}-permuted", "variance_explained": 0.1}
        self.path("subjects", name, "subject.json").write_text(json.dumps([card, twin]))

    def changes(self, subject, behavior, edit=None, n_seeds=2):
        rows = []
        for adapter in ("bias", "scale"):
            shared = self.rng.normal(size=N)
            if subject == "toy":
                shared[list(EXPECTED.get(behavior, ()))] += 3
            for measure in ("parameter", "contribution"):
                for seed in range(n_seeds):
                    values = shared + 0.05 * self.rng.normal(size=N)
                    values[list(DEAD)] = 99
                    rows.append(
                        pd.DataFrame(
                            {
                                "adapter": adapter,
                                "measure": measure,
                                "seed": seed,
                                "latent_index": range(N),
                                "change": values,
                            }
                        )
                    )
        table = pd.concat(rows, ignore_index=True)
        if edit:
            edit(table)
        table.to_parquet(self.path("changes", subject, f"{behavior}.parquet"))

    def training(self, subject, behavior, adapter):
        after = {"bias": (2.6, 2.8), "scale": (3.0, 3.2), "lora": (2.0, 2.2)}[adapter]
        rows = [
            {
                "seed": seed,
                "n_parameters": N,
                "objective": "sft",
                "steps": 9,
                "tokens": 99,
                "best_step": 9,
                "heldout_loss_base": 3.0,
                "heldout_loss_adapted": after[seed],
                "diagnostics": {"explained_share": 0.25 + seed / 4, "none": None} if adapter == "scale" else {},
            }
            for seed in range(2)
        ]
        self.path("adapters", subject, behavior, adapter, "training.json").write_text(json.dumps(rows))

    def causal_check(self, subject, behavior):
        rows = [
            {"adapter": adapter, "k": k, "latents": latents, "loss_recovered": 0.5, "ci_low": 0.4, "ci_high": np.nan}
            for adapter in ("bias", "scale")
            for k in (10, 50)
            for latents in ("most_changed", "matched_random")
        ]
        pd.DataFrame(rows).to_parquet(self.path("causal_check", subject, f"{behavior}.parquet"))

    def behavior_check(self, subject, behavior):
        row = {"adapter": "bias", "score": "length", "n_prompts": 24, "before": 0.1, "after": 0.4}
        row |= {"ci_low": 0.2, "ci_high": np.nan, "target": 0.5, "n_seeds": 1}
        pd.DataFrame([row]).to_parquet(self.path("behavior_check", subject, behavior, "scores.parquet"))

    def explanations(self, subject, source):
        known = [i for i in range(N) if i not in UNEXPLAINED]
        frame = pd.DataFrame(
            {"latent_index": known, "explanation": [f"latent {i}" for i in known], "side": "input", "url": ""}
        )
        write_explanations(frame, self.path("explanations", subject, f"{source}.parquet"))

    def judgements(self, subject, source, behaviors=BEHAVIORS):
        known = [i for i in range(N) if i not in UNEXPLAINED]
        rows = [
            {
                "latent_index": i,
                "behavior": name,
                "expected_effect": float(i in EXPECTED[name]),
                "expected": i in EXPECTED[name],
                "confidence": np.nan,
                "rationale": "",
            }
            for i in known
            for name in behaviors
        ]
        write_judgements(pd.DataFrame(rows), self.path("judgements", subject, source, "lexical.parquet"))

    def agreement(self, plan):
        for subject in plan.study.subjects:
            for adapter in ("bias", "scale"):
                write_agreement(
                    plan,
                    subject,
                    adapter,
                    self.folder / "subjects" / subject,
                    self.folder / "changes",
                    self.folder / "explanations" / subject,
                    self.folder / "judgements" / subject,
                    self.folder / "agreement" / subject / adapter,
                )

    def tables(self, plan):
        self.agreement(plan)
        write_tables(plan, self.folder, self.folder / "tables")
        return {
            name: read_table(name, self.folder / "tables" / f"{name}.csv")
            for name in TABLES
            if (self.folder / "tables" / f"{name}.csv").exists()
        }


@pytest.fixture
def parts(tmp_path):
    return Parts(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    parts = Parts(tmp_path_factory.mktemp("results"))
    return parts, parts.tables(make_study())


def test_every_table_keeps_its_contract(finished):
    for name, table in finished[1].items():
        conform(name, table)
        assert len(table), name
        assert list(table) == [column.name for column in TABLES[name]]


def test_the_causal_check_is_collected_for_every_behavior_and_left_out_when_off(finished, tmp_path):
    table = finished[1]["causal_check"]
    assert set(table.behavior) == set(BEHAVIORS)
    assert len(table) == len(BEHAVIORS) * 2 * 2 * 2
    assert table.ci_high.isna().all()
    without = Parts(tmp_path).tables(make_study(causal_check={"adapters": []}))
    assert "causal_check" not in without


def test_the_behavior_check_is_collected_for_every_scored_behavior_and_left_out_when_off(finished, tmp_path):
    table = finished[1]["behavior_check"]
    assert table.behavior.tolist() == list(SCORED)
    assert (table.target == 0.5).all()
    assert table.ci_high.isna().all()
    without = Parts(tmp_path).tables(make_study(behavior_check={"adapters": []}))
    assert "behavior_check" not in without


def test_the_universe_leaves_out_the_dead_and_the_unexplained(finished):
    parts, tables = finished
    plan = make_study()
    facts = pd.read_parquet(parts.folder / "subjects/toy/latents.parquet")
    alive = alive_latents(plan, facts)
    assert set(range(N)) - set(alive) == set(DEAD)
    expectation = read_expectation(plan, parts.folder / "judgements/toy/said/lexical.parquet", alive)
    assert set(expectation.latents) == set(range(N)) - set(DEAD) - set(UNEXPLAINED)
    assert [row.sum() for row in expectation.expected] == [10, 10, 0]
    assert (tables["agreement"].n_latents == N - 5).all()


def test_a_result_is_the_agreement_test_of_mean_ranks_over_the_universe(finished):
    parts, tables = finished
    plan = make_study()
    facts = pd.read_parquet(parts.folder / "subjects/toy/latents.parquet")
    universe = [i for i in range(N) if i not in (*DEAD, *UNEXPLAINED)]
    change = read_changes(plan, parts.folder / "changes", "toy", "bias")["a", "contribution"][:, universe]
    labels = np.isin(universe, EXPECTED["a"])
    expected = agreement_test(mean_rank(change), labels, n_resamples=199, rng=0)
    table = tables["agreement"]
    row = table.query("behavior == 'a' and primary").iloc[0]
    assert row.estimate == pytest.approx(expected.statistic, rel=1e-5)
    assert row.pvalue == pytest.approx(expected.pvalue)
    assert (row.n_expected, row.n_seeds, row.n_resamples) == (10, 2, 199)
    assert row.noise_ceiling > 0.9
    assert 0.5 < row.minimum_detectable_effect < row.estimate
    assert len(facts) == N


def test_what_is_found_where_it_was_put_and_the_controls_are_at_chance(finished):
    table = finished[1]["agreement"].query("source == 'said' and statistic == 'auroc' and behavior != 'silent'")
    assert (table.query("control == 'none'").estimate > 0.9).all()
    for control in ("shuffled_explanations", "mismatched_behavior", "random_dictionary", "firing_rate_only"):
        estimates = table[table.control == control].estimate
        assert len(estimates) == 2 * 2 * 2
        assert 0.3 < estimates.median() < 0.65


def test_shuffled_completions_are_tested_as_the_result_is_for_the_primary_adapter_alone(parts):
    for behavior in BEHAVIORS:
        parts.changes("toy", f"{behavior}-shuffled")
    controls = [*config.CONTROLS, "shuffled_completions"]
    table = parts.tables(make_study(controls=controls))["agreement"]
    rows = table[table.control == "shuffled_completions"]
    assert set(rows.adapter) == {"bias"}
    assert set(rows.source) == {"said"}  # an arm of wrong explanations is a control itself
    assert len(rows) == len(BEHAVIORS) * 2 * 2
    assert rows[rows.behavior == "silent"].estimate.isna().all()
    assert rows.minimum_detectable_effect.isna().all()
    assert not rows.primary.any()
    for behavior in BEHAVIORS:
        shutil.copy(
            parts.folder / f"changes/toy/{behavior}-shuffled.parquet", parts.folder / f"changes/toy/{behavior}.parquet"
        )
    table = parts.tables(make_study())["agreement"].query("adapter == 'bias' and source == 'said'")
    tested = ["behavior", "measure", "statistic", "estimate", "ci_low", "ci_high", "pvalue", "n_expected", "n_seeds"]
    results = table.loc[table.control == "none", tested]
    pd.testing.assert_frame_equal(rows[tested].reset_index(drop=True), results.reset_index(drop=True))


def test_without_shuffled_completions_nothing_else_in_the_table_changes(parts):
    plain = parts.tables(make_study())["agreement"]
    for behavior in BEHAVIORS:
        parts.changes("toy", f"{behavior}-shuffled")
    beside = parts.tables(make_study(controls=[*config.CONTROLS, "shuffled_completions"]))["agreement"]
    assert "shuffled_completions" not in set(plain.control)
    kept = beside[beside.control != "shuffled_completions"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, plain)


def test_shuffled_completions_train_no_row_of_another_table(parts):
    for behavior in BEHAVIORS:
        parts.changes("toy", f"{behavior}-shuffled")
    tables = parts.tables(make_study(controls=[*config.CONTROLS, "shuffled_completions"]))
    for name in set(tables) - {"agreement"}:
        assert "-shuffled" not in tables[name].to_csv(), name


def test_what_confounds_stands_in_the_place_of_changes(parts):
    facts = pd.read_parquet(parts.folder / "subjects/toy/latents.parquet")
    facts["decoder_norm"] = np.random.default_rng(1).uniform(1, 2, N)
    facts.to_parquet(parts.folder / "subjects/toy/latents.parquet")
    known = [i for i in range(N) if i not in UNEXPLAINED]
    said = ["x" * (1 + i % 7 + 5 * (i in EXPECTED["a"])) for i in known]
    frame = pd.DataFrame({"latent_index": known, "explanation": said, "side": "input", "url": ""})
    write_explanations(frame, parts.path("explanations", "toy", "said.parquet"))
    table = parts.tables(make_study())["agreement"].query(
        "source == 'said' and statistic == 'auroc' and behavior == 'a' and primary == False and adapter == 'bias'"
        " and measure == 'parameter'"
    )
    estimates = table.set_index("control").estimate
    universe = [i for i in known if i not in DEAD]
    labels = np.isin(universe, EXPECTED["a"])
    for control, values in {
        "firing_rate_only": facts.firing_rate[universe],
        "decoder_norm_only": facts.decoder_norm[universe],
        "explanation_length": [len(text) for text, i in zip(said, known, strict=True) if i in universe],
        # How many behaviors but its own each latent is expected for: b alone has any.
        "genericity": np.isin(universe, EXPECTED["b"]),
    }.items():
        assert estimates[control] == pytest.approx(float(auroc(values, labels)), rel=1e-5), control
    assert estimates["explanation_length"] > 0.7


def test_sign_agreement_reads_signed_changes_and_is_empty_where_a_measure_has_no_direction(parts):
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
    table = parts.tables(plan)["agreement"].query("statistic == 'sign_agreement' and source == 'said'")
    assert table.query("measure == 'attribution'").estimate.isna().all()
    rows = table.query("measure == 'contribution' and adapter == 'bias' and behavior == 'a'").set_index("control")
    change = read_changes(plan, parts.folder / "changes", "toy", "bias")["a", "contribution"].mean(0)
    expected = np.isin(range(N), EXPECTED["a"]) - 0.5 * (np.arange(N) >= 30)
    universe = [i for i in range(N) if i not in (*DEAD, *UNEXPLAINED)]
    assert rows.estimate["none"] == pytest.approx(float(sign_agreement(change[universe], expected[universe])), rel=1e-5)
    assert rows.estimate["none"] > 0.7 > rows.estimate["shuffled_explanations"] + 0.1
    assert rows.pvalue["none"] < 0.02
    # What has no sign cannot stand in the place of a signed change.
    without = ["firing_rate_only", "decoder_norm_only", "explanation_length", "genericity"]
    assert rows.estimate[without].isna().all()


def test_where_nothing_is_expected_the_result_is_empty_and_not_zero(finished):
    parts, tables = finished
    table = tables["agreement"]
    silent = table[table.behavior == "silent"]
    assert len(silent)
    assert silent[["estimate", "ci_low", "pvalue", "qvalue", "n_resamples", "noise_ceiling"]].isna().all(axis=None)
    assert (silent.n_expected == 0).all()
    judged = tables["specificity"].query("judged_for == 'silent'")
    assert judged.estimate.isna().all()
    assert tables["specificity"].query("judged_for == 'a'").estimate.notna().all()
    lines = (parts.folder / "tables/agreement.csv").read_text().splitlines()
    assert any(",silent,bias,contribution,said,lexical,none,auroc,,,,,,55,0,2,,,,True" in line for line in lines)


def test_overall_results_are_means_over_the_behaviors_that_could_be_tested(finished):
    tables, keys = finished[1], ["adapter", "measure", "source", "judge"]
    overall = tables["overall"].set_index([*keys, "quantity"]).sort_index()
    assert (overall.n_behaviors == 2).all()
    assert (overall.statistic == "auroc").all()
    own = tables["agreement"].query("control == 'none' and statistic == 'auroc'").groupby(keys).estimate.mean()
    agreement = overall.xs("agreement", level="quantity")
    assert len(agreement) == len(own)
    assert agreement.estimate.to_dict() == pytest.approx(own.to_dict(), rel=1e-5)
    matrix = tables["specificity"].dropna()
    of_row = matrix.assign(own=matrix.trained_on == matrix.judged_for)[lambda rows: rows.trained_on != "silent"]
    means = of_row.groupby([*keys, "own"]).estimate.mean().unstack()
    specificity = overall.xs("specificity", level="quantity").estimate
    assert specificity.to_dict() == pytest.approx((means[True] - means[False]).to_dict(), rel=1e-4)
    assert overall.primary.sum() == 2
    assert overall.xs(("bias", "contribution", "said", "lexical")).pvalue.agreement < 0.02
    assert overall.xs(("bias", "contribution", "said", "lexical")).pvalue.specificity == 0.5


def test_exactly_the_primary_result_is_marked(finished):
    marked = finished[1]["agreement"].query("primary")
    assert marked.behavior.tolist() == ["a", "b", "silent"]
    for column, value in {
        "adapter": "bias",
        "measure": "contribution",
        "source": "said",
        "judge": "lexical",
        "statistic": "auroc",
        "control": "none",
    }.items():
        assert (marked[column] == value).all()


def test_qvalues_run_within_the_primary_results_all_others_and_each_control(parts):
    plan = make_study()
    parts.agreement(plan)
    rng = np.random.default_rng(0)
    for adapter in ("bias", "scale"):
        path = parts.path("agreement", "toy", adapter, "agreement.parquet")
        table = pd.read_parquet(path)
        table.assign(pvalue=table.pvalue.where(table.pvalue.isna(), rng.uniform(size=len(table)))).to_parquet(path)
    table = agreement_table(plan, parts.folder)
    families = [table.primary, (table.control == "none") & ~table.primary]
    families += [table.control == control for control in plan.study.controls]
    assert sum(family.sum() for family in families) == len(table)
    for family in families:
        part = table[family]
        np.testing.assert_allclose(part.qvalue, qvalues(part.pvalue.to_numpy(float)))


def test_an_arm_with_wrong_explanations_has_no_controls_of_its_own(finished):
    table = finished[1]["agreement"]
    assert set(table[table.source == "wrong"].control) == {"none"}
    assert set(table[table.source == "said"].control) == {"none", *make_study().controls}


def test_the_own_column_is_the_rows_largest_where_changes_are_specific(finished):
    table = finished[1]["specificity"].query("measure == 'contribution' and adapter == 'bias' and source == 'said'")
    matrix = table.pivot(index="trained_on", columns="judged_for", values="estimate")
    assert matrix.loc["a", "a"] > 0.9 > matrix.loc["a", "b"]
    assert matrix.loc["b", "b"] > 0.9 > matrix.loc["b", "a"]


def test_loss_recovered_is_the_share_of_the_references_fall(finished):
    table = finished[1]["training"]
    assert len(table) == 3 * (3 + 2) * 2
    by = table.set_index(["subject", "behavior", "adapter", "seed"]).loss_recovered
    # The reference falls from 3.0 to 2.1 in the mean.
    assert by["toy", "a", "bias", 0] == pytest.approx(0.4 / 0.9, rel=1e-4)
    assert by["toy", "a", "lora", 0] == pytest.approx(1 / 0.9, rel=1e-4)
    assert by["toy", "a", "scale", 1] == pytest.approx(-0.2 / 0.9, rel=1e-4)
    assert by["toy-permuted", "a", "bias", 0] == pytest.approx(0.4 / 0.9, rel=1e-4)
    assert (table.reference == "lora").all()
    assert table.seconds.isna().all()


def test_loss_recovered_is_empty_where_the_reference_did_not_help_or_is_not_named(parts):
    for row in (parts.path("adapters", "toy", "a", "lora", "training.json"),):
        rows = json.loads(row.read_text())
        row.write_text(json.dumps([r | {"heldout_loss_adapted": 3.0} for r in rows]))
    table = parts.tables(make_study())["training"]
    assert table[table.behavior == "a"].loss_recovered.isna().all()
    assert table[table.behavior == "b"].loss_recovered.notna().all()
    without = make_study(reference=None, adapters={"bias": {}, "scale": {}})
    table = parts.tables(without)["training"]
    assert table.loss_recovered.isna().all()
    assert table.reference.isna().all()


def test_the_subject_and_its_random_twin_are_listed(finished):
    assert finished[1]["subjects"].subject.tolist() == ["toy", "toy-permuted"]


def test_the_most_changed_are_ranked_by_size_and_never_dead(finished):
    parts, tables = finished
    table = tables["most_changed_latents"]
    assert not table.latent_index.isin(DEAD).any()
    group = table.query("behavior == 'a' and adapter == 'bias' and measure == 'contribution'")
    assert group["rank"].tolist() == list(range(1, 13))
    changes = read_changes(make_study(), parts.folder / "changes", "toy", "bias")["a", "contribution"]
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
    table = most_changed(make_study(n_seeds=4), "toy", parts.folder)
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
    table = most_changed(make_study(n_seeds=1), "toy", parts.folder)
    assert (table.verdict == "unstable").all()
    assert table.pvalue.isna().all()


def test_a_subject_that_the_primary_source_does_not_speak_of_gets_what_speaks_of_it(parts):
    said = {"kind": "local", "subjects": ["other"]}
    plan = make_study(
        subjects={"toy": {"testbed": {}}, "other": {"testbed": {}}},
        sources={"said": said, "wrong": {"kind": "local", "subjects": ["toy"]}},
    )
    table = most_changed(plan, "toy", parts.folder)
    assert set(table.source) == {"wrong"}
    assert set(table.judge) == {"lexical"}


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
    table = parts.tables(make_study())["agreement"].query("behavior == 'a' and source == 'said'")
    # All decoder rows are equally long here, so that control alone is empty.
    assert (table.estimate.isna() == (table.control == "decoder_norm_only")).all()
    assert table.query("control == 'none'").noise_ceiling.isna().all()


def test_strata_that_leave_nothing_to_exchange_make_the_row_empty_with_a_warning(parts, caplog):
    plan = make_study(agreement={"n_resamples": 199, "n_bins": 1, "min_firing_rate": 0.01})
    facts = pd.read_parquet(parts.folder / "subjects/toy/latents.parquet")
    facts["cluster"] = np.where(facts.latent_index.isin(EXPECTED["a"]), 10, 0)
    facts.to_parquet(parts.folder / "subjects/toy/latents.parquet")
    table = parts.tables(plan)["agreement"].query("behavior == 'a' and control == 'none' and statistic == 'auroc'")
    assert table.estimate.isna().all()
    assert "no exchange can change the labels" in caplog.text


def test_without_a_random_twin_that_control_is_not_shown(parts):
    plan = make_study(controls=["shuffled_explanations", "mismatched_behavior"])
    table = parts.tables(plan)["agreement"]
    assert set(table.control) == {"none", "shuffled_explanations", "mismatched_behavior"}


def test_a_change_that_is_not_finite_is_refused_by_its_file(parts):
    def broken(table):
        table.loc[7, "change"] = np.nan

    parts.changes("toy", "b", broken)
    with pytest.raises(InputError, match=r"b\.parquet: parameter of adapter 'bias' holds changes that are not finite"):
        read_changes(make_study(), parts.folder / "changes", "toy", "bias")


def test_a_behavior_that_was_not_judged_is_refused_by_name(parts):
    parts.judgements("toy", "said", ("a", "b"))
    with pytest.raises(InputError, match=r"judges no latent for \['silent'\]"):
        parts.agreement(make_study())


def test_a_latent_that_is_not_judged_for_every_behavior_leaves_the_universe_and_no_other_does(parts):
    plan, path = make_study(), parts.folder / "judgements/toy/said/lexical.parquet"
    before = parts.tables(plan)["agreement"]
    judged = read_judgements(path)
    failed, half = judged.latent_index == 10, (judged.latent_index == 20) & (judged.behavior == "a")
    write_judgements(judged[~failed & ~half].reset_index(drop=True), path)
    after = parts.tables(plan)["agreement"]
    said = (before.source == "said") & (before.control == "none")
    assert (after.n_latents[said] == before.n_latents[said] - 2).all()
    parted = judged.behavior.eq("a") ^ judged.latent_index.lt(30)
    write_judgements(judged[parted].reset_index(drop=True), path)
    with pytest.raises(InputError, match=r"judges no latent for every behavior; .*tested: false"):
        parts.agreement(plan)


def test_two_runs_give_the_same_bytes(finished, tmp_path):
    parts, _ = finished
    again = Parts(tmp_path)
    again.tables(make_study())
    for path in (parts.folder / "tables").iterdir():
        assert (tmp_path / "tables" / path.name).read_bytes() == path.read_bytes()
    other = replace(make_study(), seed=1)
    again.tables(other)
    assert (tmp_path / "tables/agreement.csv").read_bytes() != (parts.folder / "tables/agreement.csv").read_bytes()


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


def test_what_was_noted_of_a_run_is_a_row_of_the_diagnostics(finished):
    table = finished[1]["diagnostics"]
    assert set(table.adapter) == {"scale"}
    assert len(table) == 2 * 3 * 2 * 2, "twins too"
    shares = table[table.quantity == "explained_share"]
    assert shares.value.tolist() == [0.25 + seed / 4 for seed in shares.seed]
    assert table[table.quantity == "none"].value.isna().all()


def test_a_study_in_which_nothing_was_noted_has_an_empty_table(parts, tmp_path):
    table = parts.tables(make_study(adapters={"bias": {}}, reference=None, random_dictionary_adapters=["bias"]))
    assert table["diagnostics"].empty


def test_a_source_is_tested_with_the_adapters_that_it_names_alone(parts):
    sources = {"said": {"kind": "local"}, "wrong": {"kind": "local", "wrong_share": 0.5, "adapters": ["scale"]}}
    table = parts.tables(make_study(sources=sources))
    for name in ("agreement", "overall", "specificity"):
        rows = table[name].groupby("source").adapter.unique()
        assert (set(rows["said"]), set(rows["wrong"])) == ({"bias", "scale"}, {"scale"})
