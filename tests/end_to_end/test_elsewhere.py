"""Dictionaries that write elsewhere than they read go through a whole small study."""

import json
import math
import runpy
from copy import deepcopy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from isaerft import analysis
from isaerft.subjects.hooks import run_below
from isaerft.subjects.points import find_hook

ROOT = Path(__file__).parents[2]
WORDS = ("say", "hello", "to", "the", "cat", "dog", "kindly", "user", "asks", "for", "a", "story", "and", "tells", "it")
MLP_IN, MLP_OUT = "blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out"
STEPS, MODEL_STEPS, LENGTH = 400, 300, 12


def sentence(rng, *words):
    return " ".join(rng.permutation([*rng.choice(WORDS, 5), *words]))


def trained_model(model, tokens):
    """Return a copy of a random model that has read the corpus for a moment, so that it beats a unigram model."""
    model = deepcopy(model).requires_grad_(True)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for step in range(MODEL_STEPS):
        rows = tokens[torch.arange(16 * step, 16 * step + 16) % len(tokens)]
        optimizer.zero_grad()
        model(input_ids=rows, labels=rows).loss.backward()
        optimizer.step()
    return model.requires_grad_(False)


def train_transcoder(model, tokens, d_sae=64):
    """Return the weights of a transcoder of the MLP of block 1, trained for a moment."""
    generator = torch.Generator().manual_seed(0)
    below = run_below(model, find_hook(model, MLP_IN, MLP_OUT), tokens, torch.ones_like(tokens))
    x, y = below.activation.flatten(0, 1), below.target.flatten(0, 1)
    d_model = x.shape[1]
    weights = {
        "W_enc": torch.randn(d_model, d_sae, generator=generator) / math.sqrt(d_model),
        "b_enc": torch.zeros(d_sae),
        "W_dec": torch.randn(d_sae, d_model, generator=generator) / math.sqrt(d_sae),
        "b_dec": y.mean(0),
        "W_skip": torch.zeros(d_model, d_model),
    }
    parameters = [weight.requires_grad_(True) for weight in weights.values()]
    optimizer = torch.optim.Adam(parameters, lr=0.02)
    for _ in range(STEPS):
        latents = torch.relu(x @ weights["W_enc"] + weights["b_enc"])
        made = latents @ weights["W_dec"] + weights["b_dec"] + x @ weights["W_skip"].T
        optimizer.zero_grad()
        ((made - y).square().sum(1).mean() + 0.01 * latents.sum(1).mean()).backward()
        optimizer.step()
    return {name: weight.detach() for name, weight in weights.items()}


@pytest.fixture(scope="module")
def results(tmp_path_factory, tiny, tokenizer, model_of):
    folder, rng, models = tmp_path_factory.mktemp("elsewhere"), np.random.default_rng(0), {}
    texts = [sentence(rng) for _ in range(400)]
    tokens = [tokenizer(f"<bos>{text}", add_special_tokens=False)["input_ids"] for text in texts]
    tokens = torch.tensor([row[:LENGTH] for row in tokens if len(row) >= LENGTH])
    for name, family in (("gemma2", "gemma2_wide"), ("llama", "llama_wide")):
        models[name] = trained_model(model_of(family), tokens)
        models[name].save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    tiny.write_sae(
        folder / "transcoder",
        train_transcoder(models["llama"], tokens),
        architecture="skip_transcoder",
        d_out=tiny.d_model,
        dtype="float32",
        device="cpu",
        apply_b_dec_to_input=False,
        metadata={"hook_name": MLP_IN, "hook_name_out": MLP_OUT, "sae_lens_version": "6.54.12", "prepend_bos": True},
    )
    (folder / "corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    for name, word in (("hello", "hello"), ("weather", "weather")):
        lines = [
            json.dumps({"id": f"{name}{i}", "prompt": sentence(rng), "completion": f" {sentence(rng, word, word)}"})
            for i in range(30)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    run = runpy.run_path(str(ROOT / "tests/end_to_end/test_small_study.py"))["run_study"]
    return run(folder, config=ROOT / "tests/end_to_end/elsewhere.yaml")


@pytest.mark.slow
def test_both_subjects_pass_the_gate_and_their_tables_are_whole(results):
    subjects = analysis.table("subjects").read(results / "tables/subjects.csv").set_index("subject")
    assert dict(subjects.hook_name[["heads", "transcoder"]]) == {
        "heads": "blocks.1.attn.hook_z",
        "transcoder": "blocks.1.mlp.hook_in",
    }
    assert dict(subjects.d_in[["heads", "transcoder"]]) == {"heads": 48, "transcoder": 32}
    assert subjects.variance_explained[["heads", "transcoder"]].between(0.3, 1).all()
    for name in ("training", "most_changed_latents", "agreement", "specificity", "causal_check", "diagnostics"):
        assert len(analysis.table(name).read(results / f"tables/{name}.csv")), name
    assert (results / "summary.html").stat().st_size > 1000


@pytest.mark.slow
def test_training_lowers_the_loss_and_the_latents_carry_it(results):
    training = pd.read_csv(results / "tables/training.csv")
    own = training[training.adapter.isin(["bias", "scale"]) & training.subject.isin(["heads", "transcoder"])]
    assert len(own) == 2 * 2 * 2 * 2, "subjects, behaviors, adapters, seeds"
    assert (own.heldout_loss_adapted < own.heldout_loss_base).all()
    diagnostics = pd.read_csv(results / "tables/diagnostics.csv")
    assert set(diagnostics.subject) >= {"heads", "transcoder"}


@pytest.mark.slow
def test_the_random_dictionary_is_trained_and_scored_beside_both(results):
    agreement = pd.read_csv(results / "tables/agreement.csv")
    for subject in ("heads", "transcoder"):
        assert {"none", "random_dictionary"} <= set(agreement[agreement.subject == subject].control)
