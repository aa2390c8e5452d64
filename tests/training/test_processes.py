"""Training by several processes together against training by one; they are started as the workflow starts them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from isaerft import cli
from isaerft.io import read_json
from isaerft.subjects.cache import write_cache

STEPS = {"steps": 6, "learning_rate": 0.2, "evaluate_every": 2, "batch_size": 5}
ADAPTERS = {
    "bias": {"gradient_accumulation": 2},
    "scale": {"optimizer": "adam", "kl_weight": 0.1},
    "low_rank": {"options": {"rank": 2}, "gradient_checkpointing": True},
    "few": {"kind": "affine", "sparsity": {"kind": "l0", "target": 5}},
}
# A last batch of one row leaves the second process without any.
BATCH = 11


@pytest.fixture
def arguments(subject_folder, cached, tmp_path):
    plan = {
        "study": "together",
        "subjects": {
            "toy": {
                "model": str(subject_folder / "model"),
                "sae_path": str(subject_folder / "sae"),
                "corpus": {"sample": True},
            }
        },
        "behaviors": {"greeting": {"description": "It greets.", "rule": True}},
        "adapters": {name: {**STEPS, **options} for name, options in ADAPTERS.items()},
        "sources": {"local": {}},
        "judges": {"lexical": {}},
        "primary": {"adapter": "bias", "measure": "attribution", "source": "local", "judge": "lexical"},
        "controls": ["firing_rate_only"],
        "n_seeds": 2,
        "batch_size": 3,
        "device": "cpu",
        "processes": 2,
    }
    plan["adapters"]["scale"] |= {"batch_size": BATCH, "subsample": 1.0}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(plan))

    def of(adapter, name):
        results = tmp_path / name
        write_cache({"train": cached[0], "heldout": cached[1]}, results / "cache/toy/greeting.safetensors")
        (results / "subjects").mkdir()
        (results / "subjects/toy").symlink_to(subject_folder)
        given = {"study": tmp_path / "study.yaml", "subject": "toy", "behavior": "greeting", "adapter": adapter}
        given["results"] = results
        return ["train", *(part for key, value in given.items() for part in (f"--{key}", str(value)))]

    return of


def together(arguments, n=2):
    """Run `isaerft` with these arguments in `n` processes."""
    command = [Path(sys.executable).with_name("torchrun"), "--standalone", "--nproc-per-node", str(n), "--no-python"]
    command += [Path(sys.executable).with_name("isaerft"), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300
    )
    return done.returncode, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_two_processes_take_the_steps_of_one(arguments, tmp_path, adapter):
    one, two = (arguments(adapter, name) for name in ("one", "two"))
    assert not cli.main(one)
    code, log = together(two)
    assert not code, log
    assert log.count("held-out objective") == 2, "one process speaks for both"
    folders = {name: tmp_path / name / "adapters/toy/greeting" / adapter for name in ("one", "two")}
    files = [sorted(str(p.relative_to(folder)) for p in folder.rglob("*")) for folder in folders.values()]
    assert files[0] == files[1]
    for seed in range(2):
        one, two = (load_file(folders[name] / f"seed_{seed}" / "adapter_model.safetensors") for name in ("one", "two"))
        assert any(value.any() for value in one.values())
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, atol=1e-5, rtol=1e-4)
    one, two = (read_json(folders[name] / "training.json") for name in ("one", "two"))
    for a, b in zip(one, two, strict=True):
        assert {key: b[key] for key in ("steps", "tokens", "best_step")} == {
            key: a[key] for key in ("steps", "tokens", "best_step")
        }
        for key in ("heldout_loss_base", "heldout_loss_adapted", "heldout_objective_adapted"):
            assert b[key] == pytest.approx(a[key], rel=1e-5)
        assert a["heldout_loss_adapted"] < a["heldout_loss_base"]


@pytest.mark.slow
def test_a_users_error_ends_all_processes_and_leaves_nothing(arguments, tmp_path):
    command = arguments("bias", "out")
    (tmp_path / "out/cache/toy/greeting.safetensors").unlink()
    code, log = together(command)
    assert code
    assert "isaerft train: error: cache" in log
    assert not (tmp_path / "out/adapters").exists()
