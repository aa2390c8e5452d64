"""A study that `isaerft new` wrote for a tiny local model and SAE: it is planned by a dry run, and runs to its end."""

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from isaerft import analysis
from tests.workflow.conftest import Workspace

ROOT = Path(__file__).parents[2]
helpers = runpy.run_path(str(ROOT / "tests/end_to_end/test_elsewhere.py"))
sentence = helpers["sentence"]
ASKED = ("--model", "model", "--sae-path", "sae", "--corpus", "corpus.jsonl", "--size", "quick", "--device", "cpu")
BEHAVIORS = (
    "--behavior",
    "hello=hello.csv",
    "--behavior",
    "weather.jsonl",
    "--describe",
    "hello=It says hello to dogs.",
)


def exact_sae(d_model):
    """Return the weights of an SAE that reconstructs everything: two latents of opposite sign for each dimension."""
    both = torch.cat([torch.eye(d_model), -torch.eye(d_model)])
    return {"W_enc": both.T.clone(), "b_enc": torch.zeros(2 * d_model), "W_dec": both, "b_dec": torch.zeros(d_model)}


def write_inputs(folder, tiny, tokenizer, model_of):
    """Write a model that has read the corpus for a moment, an SAE, and data in two forms."""
    rng = np.random.default_rng(0)
    texts = [sentence(rng) for _ in range(400)]
    rows = [tokenizer(f"<bos>{text}", add_special_tokens=False)["input_ids"][:12] for text in texts]
    tokens = torch.tensor([row for row in rows if len(row) == 12])
    helpers["trained_model"](model_of("llama"), tokens).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    tiny.write_sae(folder / "sae", exact_sae(tiny.d_model), dtype="float32", device="cpu")
    (folder / "corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    pairs = [(sentence(rng), f" {sentence(rng, 'hello', 'hello')}") for _ in range(30)]
    pd.DataFrame(pairs, columns=["question", "answer"]).to_csv(folder / "hello.csv", index=False)
    chats = [
        [{"role": "user", "content": sentence(rng)}, {"role": "assistant", "content": sentence(rng, "weather")}]
        for _ in range(30)
    ]
    (folder / "weather.jsonl").write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))


def new(folder):
    """Run `isaerft new mine` in a folder."""
    command = [sys.executable, "-m", "isaerft.cli", "new", "mine", *ASKED, *BEHAVIORS]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_snakemake_plans_the_study_that_was_written(tmp_path, tiny, tokenizer, model_of):
    workspace = Workspace(tmp_path)
    write_inputs(tmp_path, tiny, tokenizer, model_of)
    out = new(tmp_path)
    assert "prompt is `question`, reply is `answer`" in out
    assert "`messages` holds conversations" in out
    jobs = workspace.planned(study="mine")
    assert (jobs["behavior"], jobs["facts"], jobs["placebos"], jobs["summary"]) == (2, 1, 1, 1)
    assert jobs["train"] == 2 * 4 + 2, "four adapters, and the primary one on the random dictionary"


@pytest.mark.slow
def test_the_study_that_was_written_runs_to_the_end(tmp_path, tiny, tokenizer, model_of):
    (tmp_path / "made").mkdir()
    write_inputs(tmp_path / "made", tiny, tokenizer, model_of)
    new(tmp_path / "made")
    run = runpy.run_path(str(ROOT / "tests/end_to_end/test_small_study.py"))["run_study"]
    for path in (tmp_path / "made").iterdir():
        if path.name != "config":
            shutil.move(path, tmp_path)
    results = run(tmp_path, config=tmp_path / "made/config/mine.yaml")
    for name in ("subjects", "training", "agreement", "specificity", "explanation_verdicts", "causal_check"):
        assert len(analysis.table(name).read(results / f"tables/{name}.csv")), name
    agreement = pd.read_csv(results / "tables/agreement.csv")
    assert {"none", "random_dictionary", "shuffled_explanations", "mismatched_behavior"} <= set(agreement.control)
    assert (results / "summary.html").stat().st_size > 1000
