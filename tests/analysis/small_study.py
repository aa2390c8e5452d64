"""A study with parts made by hand, as the rules would write them: 60 latents, six behaviors, two seeds."""

import json

import numpy as np
import pandas as pd

from isaerft import config
from isaerft.analysis import analysis_of, table, tables_of, write_tables
from isaerft.analysis.agreement import write_agreement
from isaerft.explanations import write_explanations
from isaerft.judges import write_judgements
from isaerft.layout import Results

N = 60
DEAD, UNEXPLAINED = (3, 4), (5, 6, 7)
BEHAVIORS = ("a", "b", "c", "d", "e", "silent")
SCORED = ("a", "b")
EXPECTED = {"a": range(10, 20), "b": range(20, 30), "c": range(30, 36), "d": range(36, 42), "e": range(42, 48)}
EXPECTED |= {"silent": ()}


def options_of(**changes):
    """Return the small study's options as they would stand in its config, with these top-level ones replaced."""
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
    return values | changes


def make_study(**changes):
    return config.plan_from_dict(options_of(**changes))


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
        self.placebos("toy")

    def path(self, *parts):
        path = self.folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def subject(self, name):
        facts = pd.DataFrame({"latent_index": np.arange(N), "firing_rate": self.rng.uniform(0.01, 0.2, N)})
        facts.loc[list(DEAD), "firing_rate"] = 0.0
        facts = facts.assign(decoder_norm=1.0, density=self.rng.uniform(size=N), cluster=np.arange(N))
        facts = facts.assign(
            max_activation=1.0,
            absorber=np.roll(np.arange(N), -1),
            absorber_cosine=0.6,
            absorption=0.0,
            encoder_decoder_cosine=0.7,
        )
        facts.to_parquet(self.path("subjects", name, "latents.parquet"))
        card = {
            "subject": name,
            "model": "testbed",
            "release": None,
            "sae_id": None,
            "sae_model": None,
            "hook_name": "blocks.1",
        }
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
        found = [{"adapter": "bias", "seed": 1, "diagnostics": {"explained_share": 0.75}}] if subject == "toy" else []
        self.path("changes", subject, f"{behavior}.json").write_text(json.dumps(found))

    def placebos(self, subject, n=5):
        rows = [
            pd.DataFrame({"placebo": k, "measure": measure, "seed": seed, "latent_index": range(N)}).assign(
                change=np.random.default_rng(k).normal(size=N) + 0.05 * np.random.default_rng([k, seed]).normal(size=N)
            )
            for k in range(n)
            for measure in ("parameter", "contribution")
            for seed in range(2)
        ]
        Results(self.folder).placebos(subject).parent.mkdir(parents=True, exist_ok=True)
        pd.concat(rows, ignore_index=True).to_parquet(Results(self.folder).placebos(subject))

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
        for subject in plan.subjects:
            for adapter in plan.analyzed_adapters(subject):
                write_agreement(plan, Results(self.folder), subject, adapter)

    def table(self, plan, name):
        """Return one table of what is there."""
        return table(name).conform(analysis_of(plan, Results(self.folder)).frame(name))

    def tested(self, plan):
        """Test agreement and return agreement.csv."""
        self.agreement(plan)
        return self.table(plan, "agreement")

    def tables(self, plan):
        """Test agreement and return every table as it was written."""
        self.agreement(plan)
        write_tables(plan, Results(self.folder))
        return {name: table(name).read(self.folder / "tables" / f"{name}.csv") for name in tables_of(plan)}
