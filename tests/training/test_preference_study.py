"""Preference pairs through the verbs that the workflow calls: data, capture, training."""

import json

import pytest
import yaml

from isaerft import cli
from isaerft.io import read_json
from isaerft.subjects.cache import read_cache

STEPS = {"learning_rate": 0.2, "steps": 4, "batch_size": 4, "evaluate_every": 2}


@pytest.fixture
def run(subject_folder, tmp_path, capsys):
    """Write a study with these adapters and call verbs on it; gives the exit code."""
    rows = [{"prompt": f"say {i}", "chosen": " hello to the cat", "rejected": f" world {i}"} for i in range(16)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def write(adapters, behavior=None):
        model, sae = str(subject_folder / "model"), str(subject_folder / "sae")
        first = next(iter(adapters))
        plan = {
            "study": "pairs",
            "subjects": {"toy": {"model": model, "sae_path": sae, "corpus": {"sample": True}}},
            "behaviors": {"greeting": behavior or {"description": "It greets.", "path": str(tmp_path / "rows.jsonl")}},
            "adapters": adapters,
            "sources": {"local": {}},
            "judges": {"lexical": {}},
            "primary": {"adapter": first, "measure": "attribution", "source": "local", "judge": "lexical"},
            "controls": ["firing_rate_only"],
            "n_seeds": 1,
            "max_length": 32,
            "device": "cpu",
        }
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(plan))

    def call(verb, **options):
        given = {"study": tmp_path / "study.yaml", "behavior": "greeting"} | options
        return cli.main([verb, *(part for key, value in given.items() for part in (f"--{key}", str(value)))])

    return write, call


def capture_options(subject_folder, tmp_path):
    return {
        "subject": "toy",
        "dir": subject_folder,
        "records": tmp_path / "records",
        "out": tmp_path / "cache.safetensors",
    }


def test_adapters_on_pairs_and_on_the_chosen_replies_train_side_by_side(run, subject_folder, tmp_path):
    write, call = run
    adapters = {
        "bias_dpo": {"kind": "bias", "objective": "dpo", "kl_weight": 0.1} | STEPS,
        "scale_orpo": {"kind": "scale", "objective": "orpo"} | STEPS,
        "bias": {"sft_on_chosen": True} | STEPS,
        "lora_simpo": {"kind": "lora", "objective": "simpo", "optimizer": "adam"} | STEPS | {"learning_rate": 0.01},
    }
    write(adapters)
    values = yaml.safe_load((tmp_path / "study.yaml").read_text())
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(values | {"reference": "lora_simpo"}))
    assert not call("behavior", out=tmp_path / "records")
    assert not call("capture", **capture_options(subject_folder, tmp_path))
    cache = tmp_path / "cache.safetensors"
    assert len(read_cache(cache, "train_rejected")) == len(read_cache(cache, "train"))
    results = {}
    for name in adapters:
        options = {"subject": "toy", "dir": subject_folder, "cache": cache}
        assert not call("train", adapter=name, out=tmp_path / name, **options)
        (results[name],) = read_json(tmp_path / name / "training.json")
    assert len({round(row["heldout_loss_base"], 5) for row in results.values()}) == 1
    assert [row["objective"] for row in results.values()] == ["dpo", "orpo", "sft", "simpo"]
    for name, row in results.items():
        assert row["heldout_objective_adapted"] < row["heldout_objective_base"], name
    assert results["bias"]["heldout_objective_adapted"] == results["bias"]["heldout_loss_adapted"]
    assert results["bias_dpo"]["heldout_objective_base"] == pytest.approx(0.693147, abs=1e-5)


def test_sft_on_pairs_without_a_word_ends_before_the_model_is_loaded(run, subject_folder, tmp_path, capsys):
    write, call = run
    write({"bias": STEPS})
    assert not call("behavior", out=tmp_path / "records")
    assert call("capture", **capture_options(subject_folder, tmp_path) | {"dir": tmp_path / "nowhere"}) == 2
    assert "give 'bias' `sft_on_chosen: true`" in capsys.readouterr().err


@pytest.mark.parametrize(("objective", "fields"), [("sft", {"completion"}), ("dpo", {"chosen", "rejected"})])
def test_the_testbeds_rows_stay_pairs_only_where_an_objective_compares_replies(run, tmp_path, objective, fields):
    write, call = run
    write({"bias": {"objective": objective}}, {"description": "It refuses.", "testbed": "refusal", "max_rows": 40})
    assert not call("testbed-rows", out=tmp_path / "raw.jsonl")
    assert not call("behavior", input=tmp_path / "raw.jsonl", out=tmp_path / "records")
    first = json.loads((tmp_path / "records" / "train.jsonl").read_text().splitlines()[0])
    assert set(first) == {"id", "prompt"} | fields
