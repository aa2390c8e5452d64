import itertools
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from isaerft.analysis import TABLES
from isaerft.config import CONTROLS, Plan, load_plan
from isaerft.report.selection import SOURCES as SOURCE_FACTS
from isaerft.report.summary import summary_page

BEHAVIORS = ("helpfulness", "refusal", "sycophancy", "politeness", "hedging", "brevity", "formality", "enthusiasm")
ADAPTERS = ("bias", "scale", "lora")
MEASURES = ("parameter", "contribution", "attribution")
SOURCES = ("truth_input", "truth_output", "autointerp_input", "autointerp_output")
JUDGES = ("table", "lexical", "embedding")
SHARES = (0, 10, 20, 40, 60, 80, 100)
PRIMARY = ("bias", "contribution", "truth_input", "table")
EXPLANATIONS = (
    "fires once a formal register is known",
    "words of apology and regret at the start of a reply",
    "costs in dollars, as in $5 and $10_000, and code such as x_i",
    "<script>alert('x')</script> & \u202eright-to-left\u202c text",
    "tokens that open a numbered list, often after a question that asks for several steps or several reasons at once",
    "句末の丁寧語（です・ます）",
)


class Maker:
    """Synthesises conforming tables for a study of the given size."""

    def __init__(self, behaviors=BEHAVIORS, statistic="auroc", subjects=("testbed",), seed=0, doses=True, twin=False):
        self.behaviors, self.statistic, self.subjects, self.twin = tuple(behaviors), statistic, subjects, twin
        self.rng = np.random.default_rng(seed)
        self.doses = {}
        if doses:
            for side in ("input", "output"):
                self.doses |= {f"wrong_{side}_{share}": (side, share / 100) for share in SHARES}

    def tables(self):
        return {
            "subjects": self.subjects_table(),
            "training": self.training(),
            "most_changed_latents": self.most_changed(),
            "agreement": self.agreement(),
            "specificity": self.specificity(),
            "overall": self.overall(),
            "source_comparison": self.source_comparison(),
            "causal_check": self.causal_check(),
            "changes_over_time": self.changes_over_time(),
            "judge_quality": self.judge_quality(),
            "behavior_check": self.behavior_check(),
            "map_components": self.map_components(),
            "loss_curves": self.loss_curves(),
            "noise_probe": self.noise_probe(),
            "steering_latents": self.steering_latents(),
            "steering_summary": self.steering_summary(),
            "benchmark": self.benchmark(),
            "reliability": self.reliability(),
            "claims": self.claims(),
            "discriminability": self.discriminability(),
            "calibration": self.calibration(),
            SOURCE_FACTS: self.source_facts(),
        }

    def benchmark(self):
        rows = []
        scores = (("training", "truth", 0.9), ("combined", "training and the best other", 0.92))
        scores += (("lexical", "detection", 0.7), ("lexical", "output", 0.6), ("control", "length", 0.5))
        for side, share, among in itertools.product(("input", "output"), (0.1, 0.4), ("all", "testable")):
            for kind, (scorer, score, height) in itertools.product(("all", "another", "too_broad"), scores):
                value = height - 0.2 * (kind == "too_broad") * (scorer != "control") + self.rng.normal(0, 0.01)
                numbers = (5, 60, 540, 580, value, value - 0.05, min(1.0, value + 0.05), None)
                rows.append((side, share, kind, among, scorer, score, *numbers))
        return self._frame("benchmark", rows)

    def source_facts(self):
        rows = [(name, name.rpartition("_")[2], None) for name in SOURCES]
        rows += [(name, side, share) for name, (side, share) in self.doses.items()]
        return pd.DataFrame(rows, columns=["source", "side", "wrong_share"]).astype({"wrong_share": float})

    def subjects_table(self):
        rows = [
            (name, "models/toy", None, None, None, "blocks.2.hook_resid_post", 64, 512, 0.86, 11.7, 431, 9, 2.31, 2.44)
            for name in self.subjects
        ]
        return self._frame("subjects", rows)

    def training(self):
        rows = []
        for subject, behavior, adapter in itertools.product(self.subjects, self.behaviors, ADAPTERS):
            base = self.rng.uniform(1.2, 2.4)
            fall = {"bias": 0.35, "scale": 0.28, "lora": 0.5}[adapter] * self.rng.uniform(0.8, 1.2)
            for seed in range(3):
                after = base - fall * self.rng.uniform(0.93, 1.07)
                recovered = None if adapter == "lora" else (base - after) / 0.5
                seen = (base, after - 0.1) if seed else (None, None)
                row = (subject, behavior, adapter, "sft", seed, 512, 100, 90_000, base, after)
                rows.append((*row, *seen, "lora", recovered, None))
        return self._frame("training", rows)

    def changes_over_time(self):
        named = {"measure": "contribution", "source": "truth_input", "judge": "table", "statistic": self.statistic}
        rows = [
            {"subject": subject, "behavior": behavior, "adapter": adapter, "step": step, "n_seeds": 3, "estimate": at}
            | {"ci_low": at - 0.05, "ci_high": at + 0.05, "share_expected": at, "share_others": at**2}
            for subject, behavior, adapter in itertools.product(self.subjects, self.behaviors, ("bias", "scale"))
            for step, at in zip((1, 3, 10, 30, 100, None), (0.5, 0.6, 0.7, 0.8, 0.85, 0.86), strict=True)
        ]
        columns = TABLES["changes_over_time"].column_names
        table = pd.DataFrame([row | named for row in rows]).reindex(columns=columns)
        return TABLES["changes_over_time"].conform(table)

    def agreement(self):
        rows = []
        plain = itertools.product(self.subjects, ADAPTERS, MEASURES, SOURCES, JUDGES)
        dosed = ((s, "bias", "contribution", source, "table") for s in self.subjects for source in self.doses)
        for subject, adapter, measure, source, judge in itertools.chain(plain, dosed):
            height = {"parameter": 0.1, "contribution": 0.26, "attribution": 0.22}[measure]
            height *= {"table": 1.0, "lexical": 0.6, "embedding": 0.8}[judge] * {"lora": 0.6}.get(adapter, 1.0)
            height *= 0.7 if source.startswith("autointerp") else 1.0
            height *= 1 - self.doses[source][1] if source in self.doses else 1.0
            for behavior, control in itertools.product(self.behaviors, ("none", *CONTROLS)):
                rows.append(self._agreement_row(subject, behavior, adapter, measure, source, judge, control, height))
        return self._frame("agreement", rows)

    def _agreement_row(self, subject, behavior, adapter, measure, source, judge, control, height):
        centre = 0.5 if self.statistic == "auroc" else 0.0
        shift = {"none": height, "mismatched_behavior": -0.04, "firing_rate_only": 0.06}.get(control, 0.0)
        estimate = centre + shift + self.rng.normal(0, 0.03)
        pvalue = 0.0001 if control == "none" and shift > 0.15 else float(self.rng.uniform(0.02, 1))
        is_primary = (adapter, measure, source, judge) == PRIMARY and control == "none"
        if self.twin and control == "random_dictionary":
            subject, control = subject + "-permuted", "none"
        ceiling, detectable = (centre + 0.42, centre + 0.12) if is_primary else (None, None)
        keys = {"subject": subject, "behavior": behavior, "adapter": adapter, "measure": measure, "source": source}
        keys |= {"judge": judge, "control": control, "statistic": self.statistic, "provenance": "proven"}
        numbers = {"estimate": estimate, "ci_low": estimate - 0.07, "ci_high": estimate + 0.06, "pvalue": pvalue}
        numbers |= {"qvalue": min(1, pvalue * 3), "pvalue_texts": pvalue, "n_latents": 412, "n_expected": 37}
        numbers |= {"n_texts": 200, "n_expected_texts": 20, "n_seeds": 3, "n_resamples": 9999, "primary": is_primary}
        if control == "none" and not subject.endswith("-permuted"):
            numbers |= {"adjusted_estimate": estimate, "adjusted_ci_low": estimate - 0.07, "ci_over": "trainings"}
            numbers |= {"adjusted_ci_high": estimate + 0.06, "null_mean": centre, "null_sd": 0.05, "n_others": 5}
            numbers |= {"placebo_mean": centre - 0.02, "placebo_sd": 0.04, "n_placebos": 19, "pvalue_placebo": 0.05}
        return keys | numbers | {"noise_ceiling": ceiling, "minimum_detectable_effect": detectable}

    def specificity(self):
        rows = []
        for subject, trained, judged in itertools.product(self.subjects, self.behaviors, self.behaviors):
            estimate = 0.45 + self.rng.normal(0, 0.04) + (0.3 if trained == judged else 0.0)
            estimate -= 0.5 if self.statistic == "spearman" else 0
            rows.append((subject, *PRIMARY, trained, judged, estimate, estimate - 0.01))
        return self._frame("specificity", rows)

    def overall(self):
        rows = []
        for subject, (quantity, estimate) in itertools.product(
            self.subjects, (("agreement", 0.76), ("specificity", 0.28))
        ):
            keys = dict(zip(("adapter", "measure", "source", "judge"), PRIMARY, strict=True))
            numbers = {"estimate": estimate, "ci_low": estimate - 0.06, "ci_high": estimate + 0.05, "pvalue": 0.0002}
            numbers |= {"qvalue": 0.0004, "leave_one_out_low": estimate - 0.02, "leave_one_out_high": estimate + 0.01}
            numbers |= {"reliable_difference": 0.05}
            counts = {"n_behaviors": len(self.behaviors), "n_families": len(self.behaviors), "primary": True}
            same = {"subject": subject, "quantity": quantity, "statistic": self.statistic, "provenance": "proven"}
            rows.append(same | keys | numbers | counts)
        return self._frame("overall", rows)

    def source_comparison(self):
        rows = []
        sources = (("truth_output", "output"), ("truth_input", "input"), ("local_both", "both"))
        for subject, judge, quantity in itertools.product(self.subjects, JUDGES, ("agreement", "specificity")):
            for rank, (source, side) in enumerate(sources, 1):
                estimate = {"agreement": 0.9, "specificity": 0.4}[quantity] - 0.1 * rank
                rival, difference = (sources[1][0], 0.1) if rank == 1 else (sources[0][0], -0.1 * (rank - 1))
                numbers = (estimate, estimate - 0.05, estimate + 0.05, rival, difference, difference - 0.15)
                keys = (subject, "bias", "contribution", judge, quantity, self.statistic, rank, source, side)
                rows.append((*keys, 400, len(self.behaviors), 12.5, *numbers, difference + 0.15))
        return self._frame("source_comparison", rows)

    def judge_quality(self):
        rows = []
        for subject, judge, statistic in itertools.product(
            self.subjects, JUDGES[1:], ("kappa", "mcc", "true_positive_rate", "true_negative_rate", "spearman")
        ):
            rows.append((subject, "truth_input", judge, "table", statistic, 0.5, 0.4, 0.6, 120, 400, 3200))
            if statistic not in ("true_positive_rate", "true_negative_rate"):
                rows.append((subject, "local", "lexical", "embedding", statistic, 0.3, None, None, 90, 400, 3200))
        return self._frame("judge_quality", rows).drop_duplicates()

    def causal_check(self):
        rows = []
        for subject, behavior, adapter, k in itertools.product(self.subjects, self.behaviors, ADAPTERS[:2], (10, 50)):
            left = {10: 0.55, 50: 0.2}[k] + self.rng.normal(0, 0.05)
            rows.append((subject, behavior, adapter, k, "most_changed", left, left - 0.08, left + 0.07))
            rows.append((subject, behavior, adapter, k, "matched_random", 0.99 - k / 1000, 0.93, 1.02))
        return self._frame("causal_check", rows)

    def behavior_check(self):
        rows = []
        for subject, (place, behavior), adapter in itertools.product(
            self.subjects, enumerate(self.behaviors), ADAPTERS[:2]
        ):
            score, scale = ("length", 30) if place % 4 == 3 else ("words", 1)
            rise = self.rng.uniform(0.05, 0.3) * scale
            keys = (subject, behavior, adapter, score, 24)
            rows.append((*keys, 0.05 * scale, 0.05 * scale + rise, 0.7 * rise, 1.3 * rise, 0.4 * scale, 1))
        return self._frame("behavior_check", rows)

    def map_components(self):
        """Two adapters with two components and a bias each; the second component may matter more than the first."""
        rows = []
        for subject, behavior, adapter, seed, component in itertools.product(
            self.subjects, self.behaviors, ("low_rank", "residual"), range(2), (1, 2, 0)
        ):
            lost, kept = (9.0, 9.0) if component == 0 else self.rng.uniform(0, 1, 2)
            row = {"subject": subject, "behavior": behavior, "adapter": adapter, "seed": seed, "component": component}
            row |= {"n_components": 2, "size": 1.0, "constant_share": 0.3, "lost_without": lost, "kept_alone": kept}
            if component:
                row |= {"reads": "7 (+0.40); 9 (-0.10)", "reads_explanation": EXPLANATIONS[3], "share": 0.5}
                row |= {"read_recurrence": 0.5, "read_chance": 0.11, "write_recurrence": 0.9, "write_chance": 0.12}
            rows.append(row)
        made = TABLES["map_components"]
        return made.conform(pd.DataFrame(rows).reindex(columns=made.column_names))

    def loss_curves(self):
        """Two families, one of them free, of every behavior and over behaviors."""
        rows = [
            (subject, behavior, family, k, k * n, 3.0, 2.0, share * k / 8, 0.0, 1.0, 3)
            for subject, behavior in itertools.product(self.subjects, (*self.behaviors, None))
            for family, n, share in (("latents", 8, 0.9), ("rank_residual", 64, 1.0))
            for k in (1, 4, 8)
        ]
        return self._frame("loss_curves", rows)

    def noise_probe(self):
        """The unchanged model, whose score stays, and an adapter's, which rises with the noise."""
        rows = []
        for subject, behavior, adapter, place, level in itertools.product(
            self.subjects, self.behaviors, (None, "bias"), ("residual", "weights"), (0.0, 0.2, 0.8)
        ):
            score = 0.1 + (level / 2 if adapter else 0)
            row = {"subject": subject, "behavior": behavior, "adapter": adapter, "place": place, "level": level}
            row |= {"metric": "words", "n_prompts": 24, "n_seeds": 1, "n_draws": 4 if level else 0, "loss": 1 + level}
            row |= {"score": score} | ({"score_ci_low": score - 0.05, "score_ci_high": score + 0.05} if level else {})
            rows.append(row)
        made = TABLES["noise_probe"]
        return made.conform(pd.DataFrame(rows).reindex(columns=made.column_names))

    def steering_latents(self):
        """More supported latents than the figure shows, and a few of the other groups; some are confirmed."""
        rows = []
        for subject, (group, n) in itertools.product(
            self.subjects, (("supported", 30), ("contradicted", 3), ("untested", 5))
        ):
            for place in range(n):
                effect = self.rng.normal() + (group == "supported")
                latent = {"supported": 0, "contradicted": 100, "untested": 200}[group] + place
                keys = (subject, "truth_input", "table", latent, EXPLANATIONS[place % 6], group)
                partner = place if group == "untested" else None
                numbers = (f"raises {self.behaviors[0]}", effect, effect - 0.6, effect + 0.6, effect > 0.6)
                rows.append((*keys, partner, *numbers))
        return self._frame("steering_latents", rows)

    def steering_summary(self):
        rows = []
        for subject in self.subjects:
            for group, n in (("supported", 30), ("contradicted", 3), ("untested", 5)):
                rows.append((subject, "claimed_effect", group, n, n // 3, 0.4, 0.1, 0.7, None, None, None))
            rows.append((subject, "auroc", "verdict supported", 38, 12, 0.7, 0.55, 0.82, None, None, None))
            rows.append((subject, "auroc", "verdict score", 38, 12, 0.72, 0.56, 0.83, 0.02, -0.1, 0.12))
            rows.append((subject, "auroc", "detection (lexical)", 30, 9, 0.5, 0.3, 0.7, -0.2, -0.4, 0.05))
        return self._frame("steering_summary", rows)

    def audit(self):
        """Two audits: a planted behavior that is found, and nothing."""
        rows = []
        for subject, audit, place, (source, is_primary) in itertools.product(
            self.subjects, ("planted", "quiet"), range(len(self.behaviors)), (("truth_input", True), ("other", False))
        ):
            found = audit == "planted" and place == 1
            estimate, qvalue = (0.9, 0.004) if found else (0.6 - place / 50, 0.3)
            rank = {"planted": [2, 1]}.get(audit, [1, 2])[place] if place < 2 else place + 1
            keys = (subject, audit, *PRIMARY[:2], source, PRIMARY[3], rank, self.behaviors[place])
            numbers = (estimate, estimate - 0.1, min(1, estimate + 0.1), qvalue / 8, qvalue)
            rows.append((*keys, *numbers, 412, 37, 4, is_primary))
        return self._frame("audit", rows)

    def audit_latents(self):
        rows = []
        for subject, audit, rank in itertools.product(self.subjects, ("planted", "quiet"), range(1, 6)):
            keys = (subject, audit, *PRIMARY[:2], rank, 100 + rank, 0.3 / rank * (-1) ** rank)
            numbers = (9.0 / rank, 0.01, 0.03, 0.02)
            rows.append((*keys, *numbers, "truth_input", EXPLANATIONS[rank % 6], "table", "refusal", None))
        return self._frame("audit_latents", rows)

    def reliability(self):
        """Every adapter over training seeds, and the primary one's subjects over worlds."""
        rows = []
        for of, adapter, quantity in itertools.product(self.subjects, ADAPTERS, ("agreement", "specificity")):
            over, method = ("training seed", "jackknife") if adapter != "lora" else ("testbed.seed", "replicates")
            keys = ("overall", "estimate", adapter, *PRIMARY[1:], None, quantity, self.statistic, None)
            numbers = (4, 0.3, 0.01, 0.006, 0.04, 0.03, 0.045, "[0.29, 0.3, 0.31, 0.3]")
            rows.append((*keys, of, over, method, *numbers, adapter == "bias"))
        run = ("training", "heldout_loss_adapted", "bias", None, None, None, self.behaviors[0], None, None, None)
        rows.append((*run, self.subjects[0], "training seed", "replicates", 1, 1.5, *[None] * 5, "[1.5]", True))
        return self._frame("reliability", rows)

    def claims(self):
        """Per subject a claim that holds, one that is smaller than its noise, and one of one seed."""
        rows = []
        for subject in self.subjects:
            same = (subject, "training seed", "adapter", None, "bias")
            numbers = ("specificity", self.statistic, 0.3)
            rows.append((*same, "scale", *numbers, 0.2, 0.1, 4, 0.05, True, None))
            rows.append(
                (*same, "affine", *numbers, 0.31, -0.01, 4, 0.05, False, f"{subject} bias against affine: luck.")
            )
            rows.append((*same, "probe", *numbers, 0.31, -0.01, 1, None, None, None))
        return self._frame("claims", rows)

    def discriminability(self):
        rows = []
        for column, share in (("variance_explained", 0.9), ("l0", 0.1), ("n_alive", None)):
            keys = ("subjects", column, *[None] * 8)
            found = (9.0, 0.01, share, share - 0.2, 0.95, 3, 2) if share else (None,) * 5 + (3, None)
            rows.append((*keys, "narrow, usual, wide", "train_sae.d_sae", 3, 9, 0.7, 0.9, *found, True))
        return self._frame("discriminability", rows)

    def calibration(self):
        rows = []
        for test, world, level in itertools.product(
            ("trainings", "naive_binomial"), ("plain", "clustered"), (0.05, 0.01)
        ):
            setting = f"test={test}; level={level}; world={world}; n=500; worlds=2000"
            rows.append(("false_positive_rate", setting, 0.4 if "naive" in test else level, 0.03, 0.5))
        for n, ratio in itertools.product((100, 2000), (1.2, 1.9, 4)):
            setting = f"test=trainings; odds_ratio={ratio}; n={n}; behaviors=8; level=0.05"
            rows.append(("power", f"{setting}; worlds=200", 0.6, 0.5, 0.7))
        for interval, ratio in itertools.product(("trainings", "overall_agreement"), (1, 1.9)):
            rows.append(("coverage", f"interval={interval}; odds_ratio={ratio}; n=500", 0.95, 0.93, 0.96))
        for wrong, ratio in itertools.product((0.05, 0.1), (4, 16)):
            setting = f"wrong={wrong}; odds_ratio={ratio}; n=500; behaviors=8; worlds=100"
            rows.append(("wrong_explanations_auroc", setting, 0.9, 0.88, 0.92))
        rows.append(("strictly_falls", "subject=testbed; side=input; shares=7", 1.0, None, None))
        return self._frame("calibration", rows)

    def most_changed(self):
        rows = []
        for subject, behavior in itertools.product(self.subjects, self.behaviors):
            for rank in range(1, 11):
                change = float(self.rng.choice([-1, 1], p=[0.3, 0.7]) * 2.4 / rank)
                verdict = ("expected", "unexpected", "unstable", "expected")[int(self.rng.integers(4))]
                explanation, url = EXPLANATIONS[rank % len(EXPLANATIONS)], "javascript:alert(1)" if rank == 1 else None
                keys = (
                    subject,
                    behavior,
                    "bias",
                    "contribution",
                    rank,
                    int(self.rng.integers(512)),
                    change,
                    0.01,
                    0.04,
                )
                facts = ("up" if change > 0 else "down", 0.02, "truth_input", explanation)
                rows.append((*keys, *facts, "table", float(rank % 2), verdict, url))
        return self._frame("most_changed_latents", rows)

    @staticmethod
    def _frame(name, rows):
        return TABLES[name].conform(pd.DataFrame(rows, columns=TABLES[name].column_names))


@pytest.fixture
def maker():
    return Maker


@pytest.fixture(scope="session")
def tables():
    return Maker().tables()


@pytest.fixture(scope="session")
def plan():
    return load_plan(Path(__file__).parents[2] / "config" / "testbed.yaml")


@pytest.fixture(scope="session")
def lean_plan(plan):
    """Return a study of one behavior, source and judge, without checks."""
    study = plan.study
    lean = replace(
        study,
        behaviors={"refusal": study.behaviors["refusal"]},
        sources={"truth_input": study.sources["truth_input"]},
        adapters={name: study.adapters[name] for name in (study.primary.adapter, study.reference)},
        controls=["shuffled_explanations"],
        behavior_check=replace(study.behavior_check, behaviors=[]),
        causal_check=replace(study.causal_check, adapters=[]),
    )
    return Plan(lean)


def summary(tables, figures=(), links=(), study="testbed", **options):
    """Return the summary page of tables alone, or with figures and links."""
    return summary_page(study, tables, catalogue=TABLES, figures=dict(figures), links=dict(links), **options)


@pytest.fixture(scope="session", name="summary")
def _summary():
    return summary


class Reader(HTMLParser):
    """Collects tags, attributes and the cells of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.cells, self._in_cell = [], [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag == "td":
            self._in_cell = True
            self.cells.append("")

    def handle_endtag(self, tag):
        self._in_cell = self._in_cell and tag != "td"

    def handle_data(self, data):
        if self._in_cell:
            self.cells[-1] += data


@pytest.fixture(scope="session")
def reader():
    return Reader
