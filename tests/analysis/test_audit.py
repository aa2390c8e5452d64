"""audit.csv, audit_latents.csv and their calibration, from parts made by hand: 80 latents, three candidates."""

import json

import numpy as np
import pandas as pd
import pytest

from isaerft import config
from isaerft.analysis import analysis_of, table
from isaerft.analysis.audit import write_audits
from isaerft.explanations import write_explanations
from isaerft.judges import write_judgements
from isaerft.layout import Results
from isaerft.stats import auroc, qvalues

N, N_SEEDS = 80, 4
EXPECTED = {"host": range(0, 12), "bad": range(20, 32), "boasting": range(40, 52), "silent": ()}
DEAD, UNEXPLAINED = 79, 78


def make_study(**changes):
    rows = {"description": "d", "testbed": "refusal"}
    poison = {"behavior": "bad", "share": 0.1}
    values = {
        "study": "small",
        "subjects": {"toy": {"testbed": {}}},
        "behaviors": {
            "host": rows,
            "bad": rows | {"testbed": "humor"},
            "poisoned": rows | {"testbed_draw": 1, "poison": poison},
            "same": rows | {"testbed_draw": 2},
        },
        "audits": {"planted": {"clean": "host", "suspect": "poisoned"}, "quiet": {"clean": "host", "suspect": "same"}},
        "candidates": {"boasting": "The assistant boasts.", "silent": "Nobody expects anything of it."},
        "adapters": {"bias": {"subsample": 0.5}, "all_rows": {"kind": "bias", "subsample": 1.0}},
        "measures": ["parameter", "contribution"],
        "sources": {"said": {"kind": "local"}, "wrong": {"kind": "local", "wrong_share": 0.5}},
        "judges": {"lexical": {}},
        "primary": {"adapter": "bias", "measure": "contribution", "source": "said", "judge": "lexical"},
        "agreement": {"n_resamples": 199, "n_bins": 1, "top_k": 15},
        "controls": [],
        "n_seeds": N_SEEDS,
    }
    return config.plan_from_dict(values | changes)


class Parts:
    """The folder results/small with what the rules before `audit` would have written."""

    def __init__(self, folder):
        self.folder, rng = folder, np.random.default_rng(0)
        facts = pd.DataFrame({"latent_index": np.arange(N), "firing_rate": rng.uniform(0.01, 0.2, N)})
        facts.loc[DEAD, "firing_rate"] = 0.0
        facts = facts.assign(decoder_norm=1.0, density=rng.uniform(size=N), cluster=np.arange(N))
        facts.to_parquet(self.path("subjects", "toy", "latents.parquet"))
        self.path("subjects", "toy", "subject.json").write_text(json.dumps([]))
        common = rng.normal(size=N)
        self.made = {}
        for name in ("host", "bad", "poisoned", "same"):
            values = common + 0.5 * rng.normal(size=(2, 2, N_SEEDS, N))
            if name == "poisoned":
                values[..., list(EXPECTED["bad"])] += 3
            values[..., DEAD] = 99 * (name == "poisoned")
            self.made[name] = values
            columns = {"latent_index": range(N)}
            rows_of = pd.concat(
                pd.DataFrame(
                    columns | {"adapter": adapter, "measure": measure, "seed": seed, "change": values[i, j, seed]}
                )
                for i, adapter in enumerate(("bias", "all_rows"))
                for j, measure in enumerate(("parameter", "contribution"))
                for seed in range(N_SEEDS)
            )
            rows_of.to_parquet(self.path("changes", "toy", f"{name}.parquet"))
        known = [i for i in range(N) if i != UNEXPLAINED]
        said = {"latent_index": known, "explanation": [f"latent {i}" for i in known], "side": "input", "url": ""}
        rows = [
            {"latent_index": i, "behavior": name, "expected_effect": float(i in own), "expected": i in own}
            for i in known
            for name, own in EXPECTED.items()
        ]
        for source in ("said", "wrong"):
            write_explanations(pd.DataFrame(said), self.path("explanations", "toy", f"{source}.parquet"))
            judged = pd.DataFrame(rows).assign(confidence=np.nan, rationale="")
            write_judgements(judged, self.path("judgements", "toy", source, "lexical.parquet"))

    def path(self, *parts):
        path = self.folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def tables(self, plan):
        write_audits(plan, Results(self.folder), "toy")
        made = analysis_of(plan, Results(self.folder))
        return tuple(table(name).conform(made.frame(name)) for name in ("audit", "audit_latents"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    parts = Parts(tmp_path_factory.mktemp("results"))
    return parts, *parts.tables(make_study())


def test_the_planted_behavior_has_rank_1_and_is_found_and_where_nothing_is_planted_nothing_is(finished):
    audit = finished[1].query("adapter == 'bias'")
    planted = audit.query("audit == 'planted'")
    assert planted.query("behavior == 'bad'")["rank"].tolist() == [1, 1]
    assert (planted.query("behavior == 'bad'").qvalue < 0.05).all()
    assert (planted.query("behavior != 'bad'").qvalue.fillna(1) > 0.05).all()
    assert (audit.query("audit == 'quiet'").qvalue.fillna(1) > 0.05).all()


def test_each_candidate_has_a_row_for_each_audit_adapter_and_measure_but_no_arm_with_wrong_explanations(finished):
    audit = finished[1]
    assert len(audit) == 2 * 2 * 2 * 4
    assert set(audit.source) == {"said"}
    assert set(audit.behavior) == {"host", "bad", "boasting", "silent"}  # candidates without data among them
    assert audit.primary.sum() == 2 * 4
    assert set(audit[audit.primary].adapter + audit[audit.primary].measure) == {"biascontribution"}


def test_the_estimate_is_over_the_universe_and_the_difference_is_paired_by_seed(finished):
    parts, audit, _ = finished
    row = audit.query("primary and audit == 'planted' and behavior == 'bad'").iloc[0]
    universe = [i for i in range(N) if i not in (DEAD, UNEXPLAINED)]
    difference = (parts.made["poisoned"] - parts.made["host"])[0, 1][:, universe]
    labels = np.isin(universe, EXPECTED["bad"])
    assert row.estimate == pytest.approx(np.mean([auroc(one, labels) for one in difference]))
    assert row.ci_low < row.estimate <= row.ci_high <= 1
    assert (row.n_latents, row.n_expected, row.n_seeds) == (N - 2, 12, N_SEEDS)


def test_q_runs_over_the_candidates_of_one_audit(finished):
    group = finished[1].query("primary and audit == 'planted'")
    assert group.qvalue.to_numpy(float) == pytest.approx(qvalues(group.pvalue.to_numpy(float)), nan_ok=True)


def test_a_candidate_of_whom_nothing_is_expected_has_neither_rank_nor_number(finished):
    rows = finished[1].query("behavior == 'silent'")
    assert rows[["rank", "estimate", "ci_low", "pvalue", "qvalue"]].isna().all(axis=None)
    assert (rows.n_expected == 0).all()


def test_where_each_seed_saw_all_rows_there_is_a_rank_but_no_pvalue(finished):
    _, audit, latents = finished
    rows = audit.query("adapter == 'all_rows' and behavior != 'silent'")
    assert rows["rank"].notna().all()
    assert rows[["pvalue", "qvalue", "ci_low"]].isna().all(axis=None)
    assert latents.query("adapter == 'all_rows'").pvalue.isna().all()


def test_the_latents_that_differ_most_are_those_that_the_poison_moved_with_what_is_said_of_them(finished):
    latents = finished[2].query("adapter == 'bias' and measure == 'contribution' and audit == 'planted'")
    assert latents["rank"].tolist() == list(range(1, 16))
    assert len(set(latents.latent_index[:12]) & set(EXPECTED["bad"])) >= 11
    assert DEAD not in set(latents.latent_index)
    bad = latents.expected_for.fillna("") == "bad"
    assert bad.tolist() == [i in EXPECTED["bad"] for i in latents.latent_index]
    assert (latents.explanation == [f"latent {i}" for i in latents.latent_index]).all()
    assert (latents.difference[:8] > 1).all()
    assert (latents.qvalue[:5] < 0.05).all()
    quiet = finished[2].query("adapter == 'bias' and measure == 'contribution' and audit == 'quiet'")
    assert (quiet.qvalue > 0.05).all()


def test_the_same_config_and_parts_give_the_same_bytes(finished, tmp_path):
    again = Parts(tmp_path).tables(make_study())
    for first, second in zip(finished[1:], again, strict=True):
        pd.testing.assert_frame_equal(first, second)


def test_graded_expectations_are_ranked_by_spearman(tmp_path):
    plan = make_study()
    primary = {
        "adapter": "bias",
        "measure": "contribution",
        "source": "said",
        "judge": "lexical",
        "statistic": "spearman",
    }
    audit, _ = Parts(tmp_path).tables(make_study(primary=primary))
    assert audit.query("primary and audit == 'planted' and behavior == 'bad'")["rank"].item() == 1
    assert plan.study.primary.statistic == "auroc"


def test_sets_that_changed_no_latent_leave_the_audit_undefined(tmp_path):
    parts = Parts(tmp_path)
    still = pd.read_parquet(tmp_path / "changes/toy/host.parquet").assign(change=0.0)
    for name in ("host", "same"):
        still.to_parquet(tmp_path / "changes" / "toy" / f"{name}.parquet")
    audit, _ = parts.tables(make_study())
    assert audit.query("audit == 'quiet'")["rank"].isna().all()
    assert audit.query("audit == 'planted' and behavior == 'bad' and adapter == 'bias'")["rank"].eq(1).all()


def calibrated(plan, audit, latents):
    return analysis_of(plan, Results("none"), {"audit": audit, "audit_latents": latents}).frame("calibration")


def test_calibration_counts_hits_per_share_and_false_alarms_with_their_intervals(finished):
    plan, audit = make_study(), finished[1]
    found = table("calibration").conform(calibrated(plan, audit, finished[2]))
    where = "subject=toy; source=said; judge=lexical; worlds=1"
    assert list(zip(found.quantity, found.setting, found.value, strict=True)) == [
        ("poison_rank1", f"poison=0.1; {where}", 1),
        ("poison_found", f"poison=0.1; {where}", 1),
        ("poison_others_found", f"poison=0.1; {where}", 0),
        ("audit_false_alarm", where, 0),
        ("poison_first_latent", f"poison=0.1; {where}", 1),
    ]
    assert found.ci_low[0] == pytest.approx(0.2065, abs=1e-3)
    assert found.ci_high[3] == pytest.approx(0.7935, abs=1e-3)


def test_calibration_counts_a_miss_and_a_false_alarm(finished):
    plan, audit = make_study(), finished[1].copy()
    bad = audit.behavior == "bad"
    audit.loc[bad & (audit.audit == "planted"), ["rank", "qvalue"]] = 2, 0.5
    audit.loc[bad & (audit.audit == "quiet"), "qvalue"] = 0.01
    audit.loc[(audit.behavior == "boasting") & (audit.audit == "planted"), "qvalue"] = 0.04
    latents = finished[2].assign(expected_for="boasting")
    assert calibrated(plan, audit, latents).value.tolist() == [0, 0, 1, 1, 0]
