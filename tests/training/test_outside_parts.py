"""Parts of an outside package need nothing but their registration to be trained, measured and checked."""

from contextlib import contextmanager
from dataclasses import replace

import pandas as pd
import pytest
import torch
from torch.nn.functional import logsigmoid

from isaerft import config
from isaerft.adapters.base import LatentAdapter
from isaerft.adapters.baselines import Direction, Steering
from isaerft.adapters.model import ModelAdapter
from isaerft.changes.causal import check_causes
from isaerft.changes.measures import score_changes
from isaerft.errors import InputError
from isaerft.io import read_json
from isaerft.registry import ADAPTERS, MEASURES, OBJECTIVES
from isaerft.subjects.cache import write_cache
from isaerft.subjects.capture import capture, capture_behavior
from isaerft.subjects.hooks import HookState
from isaerft.training.pairs import need_pairs, row_log_probabilities
from isaerft.training.replicates import train_adapter

STEPS = {"steps": 4, "learning_rate": 0.1, "evaluate_every": 1, "batch_size": 4}


class Offset(LatentAdapter):
    """f' = f + b, and nothing else than `forward` and `latent_parameter` to say so."""

    def __init__(self, d_sae, *, start=0.0):
        super().__init__(d_sae)
        self.start = start
        self.offset = torch.nn.Parameter(torch.full((d_sae,), float(start)))

    def forward(self, activations):
        return activations + self.offset

    def latent_parameter(self):
        return self.offset.detach()

    def options(self):
        return {"start": self.start}


class Push(ModelAdapter):
    """x' = x + c."""

    def __init__(self, d_in):
        super().__init__()
        self.push = torch.nn.Parameter(torch.zeros(d_in))

    @classmethod
    @contextmanager
    def on(cls, subject, options, seed):
        yield cls(subject.language.d_model)

    def at_hook(self, subject, batch):
        moved = batch.residual + self.push
        return HookState(moved, moved)


class Contrast(Steering):
    """The difference of means."""

    def direction_of(self, fitting):
        return Direction(fitting.texts.mean(True) - fitting.texts.mean(False))


class Mean(Steering):
    """The mean of the behavior alone."""

    def direction_of(self, fitting):
        return Direction(fitting.texts.mean(True))


def half(subject, batch, residual, *, factor):
    """Return the loss of sft times a factor."""
    return factor * OBJECTIVES["sft"](subject, batch, residual)


def margin(subject, batch, residual, *, scale):
    """Return the loss of a pair's margin, without a reference model."""
    chosen, rejected = row_log_probabilities(subject, need_pairs(batch, "margin"), residual)[0].chunk(2)
    return -logsigmoid(scale * (chosen - rejected)).mean()


def size(trained):
    """Return the absolute mean change of activation."""
    return trained.mean_shift().abs()


def wrong(trained):
    """Return one number in place of one per latent."""
    return trained.mean_shift().sum()


@pytest.fixture
def registered(monkeypatch):
    for registry in (ADAPTERS, MEASURES, OBJECTIVES):
        monkeypatch.setattr(registry, "_parts", dict(registry._parts))
        monkeypatch.setattr(registry, "_facts", dict(registry._facts))
    ADAPTERS("offset")(Offset)
    ADAPTERS("push", made="model")(Push)
    ADAPTERS("contrast", made="fitted", contrasted=True)(Contrast)
    ADAPTERS("mean", made="fitted")(Mean)
    OBJECTIVES("half")(half)
    OBJECTIVES("margin", pairs=True)(margin)
    MEASURES("size", directed=False)(size)
    MEASURES("wrong")(wrong)


@pytest.fixture
def plan(registered):
    return config.plan_from_dict(
        {
            "study": "outside",
            "subjects": {"toy": {"testbed": {}}},
            "behaviors": {name: {"description": name, "rule": True} for name in ("a", "b")},
            "adapters": {
                "offset": STEPS | {"objective": "half", "objective_options": {"factor": 0.5}, "options": {"start": 0}},
                "push": STEPS,
                "contrast": {},
                "mean": {},
                "pairs": STEPS
                | {"kind": "offset", "objective": "margin", "objective_options": {"scale": 2.0}}
                | {"learning_rate": 0.05},
            },
            "sources": {"local": {}},
            "judges": {"lexical": {}},
            "primary": {"adapter": "offset", "measure": "size", "source": "local", "judge": "lexical"},
            "measures": ["size", "contribution"],
            "n_seeds": 1,
            "causal_check": {"ks": [2], "n_draws": 2},
        }
    )


@pytest.fixture
def trained(plan, subject, records, tmp_path):
    """Every adapter trained on behavior a; gives the only row of each training.json."""
    others = [replace(record, completion=" kindly , kindly the dog") for record in records]
    chosen = [replace(record, completion=None, chosen=record.completion, rejected=" world") for record in records]
    splits = {"train": chosen[:12], "heldout": chosen[8:]}
    splits |= {f"{name}_rejected": [record.with_rejected_reply() for record in part] for name, part in splits.items()}
    capture_behavior(subject, splits, tmp_path / "caches" / "a.safetensors", max_length=32, batch_size=4)
    rows = {"train": capture(subject, others[:10], 32, 5), "heldout": capture(subject, others[10:], 32, 5)}
    write_cache(rows, tmp_path / "caches" / "b.safetensors")
    found = {}
    for name in plan.study.adapters:
        folder = tmp_path / "adapters" / name
        cache = tmp_path / "caches" / "a.safetensors"
        train_adapter(plan, subject, name, cache, folder, behavior="a", permuted=False, contrast=tmp_path / "caches")
        (found[name],) = read_json(folder / "training.json")
    return found


def paths(tmp_path):
    return tmp_path / "caches" / "a.safetensors", tmp_path / "adapters", tmp_path / "changes.parquet"


def test_outside_adapters_and_objectives_are_trained_and_fitted(plan, trained, subject, tmp_path):
    assert plan.trained_on == ["completion", "pair"]
    assert {name: row["objective"] for name, row in trained.items()} == {
        "offset": "half",
        "push": "sft",
        "contrast": "none",
        "mean": "none",
        "pairs": "margin",
    }
    for name in ("offset", "push", "pairs"):
        assert trained[name]["heldout_objective_adapted"] < trained[name]["heldout_objective_base"] - 0.01
    base = trained["offset"]
    assert base["heldout_objective_base"] == pytest.approx(0.5 * base["heldout_loss_base"], rel=1e-5)
    assert set(trained["contrast"]["diagnostics"]) == {"heldout_auroc", "heldout_accuracy", "steering_strength"}
    assert set(trained["mean"]["diagnostics"]) == {"steering_strength"}, "there is no contrast to tell apart from"
    assert read_json(tmp_path / "adapters/pairs/seed_0/adapter_config.json")["kind"] == "offset"


def test_outside_measures_score_every_outside_adapter_and_the_causal_check_takes_them(plan, trained, subject, tmp_path):
    names = plan.analyzed_adapters()
    assert plan.diagnosed_adapters("toy", "a") == ["push"]
    diagnostics = tmp_path / "diagnostics.json"
    score_changes(
        plan,
        subject,
        *paths(tmp_path),
        measured=names,
        diagnosed=["push"],
        diagnostics=diagnostics,
        permuted=False,
    )
    table = pd.read_parquet(tmp_path / "changes.parquet")
    assert set(table.adapter) == set(names) == set(trained)
    assert (table[table.measure == "size"].change >= 0).all()
    assert table.groupby(["adapter", "measure"]).change.agg(lambda change: change.abs().max()).gt(0).all()
    (row,) = read_json(diagnostics)
    assert (row["adapter"], row["seed"]) == ("push", 0)
    adapted = trained["push"]["heldout_loss_adapted"]
    assert row["diagnostics"]["heldout_loss_displaced"] == pytest.approx(adapted, rel=1e-5)
    facts = pd.DataFrame({"latent_index": range(48), "firing_rate": 0.1, "decoder_norm": 1.0})
    check_causes(plan, subject, facts, *paths(tmp_path), tmp_path / "causes.parquet")
    assert set(pd.read_parquet(tmp_path / "causes.parquet").adapter) == set(names)


def test_a_measure_that_gives_no_number_per_latent_is_refused(plan, trained, subject, tmp_path):
    asked = config.Plan(replace(plan.study, measures=["wrong"], primary=replace(plan.study.primary, measure="wrong")))
    options = {"measured": ["offset"], "diagnosed": (), "diagnostics": tmp_path / "x.json", "permuted": False}
    with pytest.raises(InputError, match=r"measure 'wrong' returned shape \(\); allowed: \(48,\)"):
        score_changes(asked, subject, *paths(tmp_path), **options)
    assert not (tmp_path / "changes.parquet").exists()
