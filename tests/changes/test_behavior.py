import json
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from isaerft import config
from isaerft.adapters.base import adapted, make_adapter
from isaerft.adapters.model import Residual
from isaerft.adapters.saved import save_adapter
from isaerft.behaviors import Record
from isaerft.changes.behavior import check_behavior, distinct_prompts
from isaerft.errors import InputError
from isaerft.registry import METRICS
from isaerft.subjects.dictionary import load_dictionary
from isaerft.subjects.generate import generate, prompt_tokens
from isaerft.subjects.hooks import hidden_above, unembed
from isaerft.subjects.load import LoadedModel, LoadedSubject
from isaerft.subjects.points import find_hook

SCORE = {"kind": "phrases", "phrases": ["wwww"]}


def plan_of(**changes):
    behaviors = {
        "w": {"description": "It says w.", "rule": True, "metric": SCORE},
        "plain": {"description": "No score.", "rule": True},
        "styled": {"description": "Built in.", "testbed": "refusal"},
    }
    return config.plan_from_dict(
        {
            "study": "small",
            "subjects": {"toy": {"testbed": {}}},
            "behaviors": behaviors,
            "adapters": {"bias": {}, "scale": {}, "lora": {}},
            "reference": "lora",
            "sources": {"local": {}},
            "judges": {"lexical": {}},
            "primary": {"adapter": "bias", "measure": "contribution", "source": "local", "judge": "lexical"},
            "n_seeds": 2,
            "behavior_check": {"n_prompts": 3, "max_new_tokens": 5, "n_seeds": 2, "temperature": 0},
        }
        | changes
    )


def check(subject, records, out, *, names=("bias", "scale"), plan=None, behavior="w", metric=None):
    """Check adapters that lie beside the folder `out`."""
    check_behavior(
        plan or plan_of(),
        subject,
        behavior,
        records,
        metric or config.Metric(**SCORE),
        names=names,
        adapters=out.parent / "adapters",
        out=out,
    )


@pytest.fixture
def saying_w(subject, tiny, tokenizer, tmp_path):
    """A subject whose SAE sits at the top, with a bias of which seed 0 forces the letter w and seed 1 does nothing."""
    folder = tiny.write_sae(tmp_path / "sae", tiny.random_sae(), hook_name="blocks.2.hook_resid_post")
    top = replace(
        subject,
        dictionary=load_dictionary(folder, center=False),
        hook=find_hook(subject.model, "blocks.2.hook_resid_post"),
    )
    direction = top.model.get_output_embeddings().weight[tokenizer.convert_tokens_to_ids("w")]
    for name in ("bias", "scale"):
        for seed in range(2):
            adapter = make_adapter(name, top.dictionary.d_sae, {})
            if (name, seed) == ("bias", 0):
                with torch.no_grad():
                    push = torch.linalg.lstsq(top.dictionary.W_dec.T, 100 * direction).solution
                    adapter.bias.copy_(push)
            save_adapter(adapter, tmp_path / "adapters" / name / f"seed_{seed}")
    return top


def test_scores_before_and_after_are_of_the_answers_written_beside_them(saying_w, records, tmp_path):
    written = []
    for out in ("a", "b"):
        check(saying_w, records, tmp_path / out)
        written.append([(tmp_path / out / name).read_bytes() for name in ("scores.parquet", "answers.jsonl")])
    assert written[0] == written[1]
    table = pd.read_parquet(tmp_path / "a" / "scores.parquet").set_index("adapter")
    assert (table.n_prompts == 3).all()
    assert (table.n_seeds == 2).all()
    assert table.loc["bias", ["before", "after", "ci_low", "ci_high"]].tolist() == [0, 0.5, 0.5, 0.5]
    assert table.loc["scale", ["before", "after", "ci_low", "ci_high"]].tolist() == [0, 0, 0, 0]
    lines = [
        json.loads(line) for line in (tmp_path / "a" / "answers.jsonl").read_text(encoding="utf-8").split("\n") if line
    ]
    assert len(lines) == 2 * 2 * 3
    for line in lines:
        forced = (line["adapter"], line["seed"]) == ("bias", 0)
        assert (line["after"] == "wwwww") == forced
        assert line["score_after"] == float(forced)
        assert forced or line["after"] == line["before"]


def test_what_acts_outside_the_latents_answers_too_as_often_as_it_is_there(saying_w, records, tokenizer, tmp_path):
    direction = saying_w.model.get_output_embeddings().weight[tokenizer.convert_tokens_to_ids("w")]
    with Residual.on(saying_w, {"rank": 0, "bias": True}, 0) as adapter, torch.no_grad():
        adapter.bias.copy_(100 * direction)
        save_adapter(adapter, tmp_path / "adapters/residual/seed_0")
    check(saying_w, records, tmp_path / "out", names=["residual", "bias"])
    table = pd.read_parquet(tmp_path / "out" / "scores.parquet").set_index("adapter")
    assert table.loc["residual", ["before", "after", "n_seeds"]].tolist() == [0, 1, 1]
    assert table.loc["bias", ["before", "after", "n_seeds"]].tolist() == [0, 0.5, 2]


def test_every_behavior_draws_its_own_random_numbers(saying_w, records, tmp_path):
    hot = plan_of(behavior_check={"n_prompts": 6, "max_new_tokens": 8, "temperature": 1.5})
    said = []
    for number, behavior in enumerate(["w", "v", "w"]):
        out = tmp_path / str(number)
        check(saying_w, records, out, names=["scale"], plan=hot, behavior=behavior)
        lines = (out / "answers.jsonl").read_text(encoding="utf-8").split("\n")
        said.append({line["prompt"]: line["before"] for line in map(json.loads, filter(None, lines))})
    assert said[0] == said[2]
    common = set(said[0]) & set(said[1])
    assert common
    assert all(said[0][prompt] != said[1][prompt] for prompt in common)


def test_a_prompt_that_stands_twice_is_one_prompt(subject):
    records = [Record(f"r{i}", f"prompt {i % 4}", "x") for i in range(20)]
    chosen = distinct_prompts(records, subject.language, 10, 0)
    assert sorted(record.prompt for record in chosen) == [f"prompt {i}" for i in range(4)]
    few = distinct_prompts(records, subject.language, 2, 0)
    assert len({record.prompt for record in few}) == 2
    assert few == distinct_prompts(records, subject.language, 2, 0)


def test_a_prompt_as_long_as_the_model_leaves_room_for_the_answer(saying_w, tmp_path):
    records = [Record(f"r{i}", "please tell the dog " * 40 + str(i), "x") for i in range(2)]
    options = plan_of(max_length=500)
    check(saying_w, records, tmp_path / "out", names=["scale"], plan=options, metric=config.Metric(kind="length"))
    assert np.isfinite(pd.read_parquet(tmp_path / "out" / "scores.parquet").before).all()


def test_what_is_checked_is_as_the_config_says():
    assert plan_of().behavior_checked == {"w": ["bias", "lora"], "styled": ["bias", "lora"]}
    alone = plan_of(reference=None, adapters={"bias": {}, "scale": {}})
    assert alone.behavior_checked["w"] == ["bias"]
    off = {"n_prompts": 3}
    assert plan_of(behavior_check=off | {"adapters": []}).behavior_checked == {}
    assert plan_of(behavior_check=off | {"behaviors": []}).behavior_checked == {}
    chosen = plan_of(behavior_check=off | {"behaviors": ["w"], "adapters": ["scale"]})
    assert chosen.behavior_checked == {"w": ["scale"]}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"behaviors": ["plain"]}, "'plain' has no metric"),
        ({"behaviors": ["wu"]}, "unknown behavior_check.behaviors 'wu'"),
        ({"adapters": ["lara"]}, "did you mean 'lora'"),
        ({"n_seeds": 3}, "at most n_seeds, 2"),
    ],
)
def test_a_check_of_what_is_not_there_is_refused(changes, expected):
    with pytest.raises(InputError, match=expected):
        plan_of(behavior_check=changes)


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        ({"kind": "phrase", "phrases": ["a"]}, "did you mean 'phrases'"),
        ({"kind": "phrases"}, "metric 'phrases' without phrases"),
        ({"kind": "words"}, "metric 'words' without words"),
        ({"kind": "classifier"}, "metric 'classifier' without model"),
    ],
)
def test_a_score_that_lacks_what_it_needs_is_refused(score, expected):
    with pytest.raises(InputError, match=expected):
        plan_of(behaviors={n: {"description": "d", "rule": True, "metric": score} for n in "ab"})


HOOKS = ["blocks.1.hook_resid_post", "blocks.0.hook_resid_pre", "blocks.2.hook_resid_post"]


INSIDE = ["blocks.1.hook_mlp_out", "blocks.1.hook_attn_out", "blocks.1.hook_resid_mid"]


def subject_at(tiny, tmp_path, model, tokenizer, hook_name):
    # Without a threshold latents fire at embeddings too, which are short.
    sae = tiny.random_sae() | {"b_enc": torch.zeros(tiny.d_sae), "b_dec": torch.zeros(tiny.d_model)}
    folder = tiny.write_sae(tmp_path / "sae", sae, hook_name=hook_name)
    return LoadedSubject(
        LoadedModel(model, tokenizer, True), load_dictionary(folder, center=False), find_hook(model, hook_name)
    )


def said(subject, prompts, **how):
    return [reply.text for reply in generate(subject.language, prompts, **how)]


def stirred(subject, kind="scale"):
    adapter = make_adapter(kind, subject.dictionary.d_sae, {})
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(0.7 * torch.randn(parameter.shape, generator=generator))
    return adapter.requires_grad_(False)


@pytest.mark.parametrize("kind", ["bias", "scale"])
@pytest.mark.parametrize("hook_name", [*HOOKS, *INSIDE])
def test_the_adapter_acts_as_on_the_cached_path_it_was_trained_on(
    tiny, tmp_path, model_of, tokenizer, records, hook_name, kind
):
    from isaerft.subjects.capture import capture

    subject = subject_at(tiny, tmp_path, model_of("llama"), tokenizer, hook_name)
    adapter = stirred(subject, kind)
    batch = capture(subject, records[:5], 32, 5).batch(torch.arange(5))
    moved = adapted(subject, adapter, batch)
    padded = moved.new_zeros(*batch.mask.shape, moved.shape[-1]).index_put(batch.mask.nonzero(as_tuple=True), moved)
    with torch.no_grad():
        expected = unembed(subject.model, hidden_above(subject.model, subject.hook, padded, batch.mask.long()))
    tokens = torch.zeros_like(batch.mask, dtype=torch.int64)
    tokens[batch.mask] = batch.tokens
    with torch.no_grad(), adapter.in_model(subject):
        logits = subject.model(input_ids=tokens, attention_mask=batch.mask.long()).logits
    plain = subject.model(input_ids=tokens, attention_mask=batch.mask.long()).logits
    torch.testing.assert_close(logits[batch.mask], expected[batch.mask], atol=1e-4, rtol=1e-4)
    assert (logits - plain)[batch.mask].abs().max() > 1e-3


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "gemma2", "gemma3", "qwen3", "mistral"])
def test_an_answer_does_not_depend_on_the_longer_prompts_beside_it(tiny, tmp_path, model_of, tokenizer, architecture):
    subject = subject_at(tiny, tmp_path, model_of(architecture), tokenizer, HOOKS[0])
    adapter = stirred(subject)
    texts = ["say", "please tell the dog , kindly", "the user asks"]
    prompts = [prompt_tokens(Record("r", text, "x"), subject.language, 32) for text in texts]
    for context in (nullcontext(), adapter.in_model(subject)):
        with context:
            together = said(subject, prompts, max_new_tokens=6, batch_size=3)
            assert together == said(subject, prompts, max_new_tokens=6, batch_size=1)


def test_an_adapter_that_forces_a_token_makes_the_model_say_it(tiny, tmp_path, model_of, tokenizer):
    subject = subject_at(tiny, tmp_path, model_of("llama"), tokenizer, "blocks.2.hook_resid_post")
    token = tokenizer.convert_tokens_to_ids("w")
    direction = subject.model.get_output_embeddings().weight[token]
    adapter = make_adapter("bias", subject.dictionary.d_sae, {})
    with torch.no_grad():  # the change of latents that comes nearest to this direction in the residual stream
        adapter.bias.copy_(torch.linalg.lstsq(subject.dictionary.W_dec.T, 100 * direction).solution)
    prompts = [prompt_tokens(Record("r", "say hello", "x"), subject.language, 32)]
    with adapter.in_model(subject):
        assert said(subject, prompts, max_new_tokens=5, batch_size=1) == ["wwwww"]
    assert said(subject, prompts, max_new_tokens=5, batch_size=1) != ["wwwww"]


def test_a_metric_of_an_outside_package_scores_the_answers(saying_w, records, tmp_path, monkeypatch):
    monkeypatch.setattr(METRICS, "_parts", dict(METRICS._parts))
    monkeypatch.setattr(METRICS, "_facts", dict(METRICS._facts))

    @METRICS("share_of")
    def share_of(options):
        return lambda texts: np.array([text.count(options.options["letter"]) / max(1, len(text)) for text in texts])

    metric = {"kind": "share_of", "options": {"letter": "w"}}
    plan = plan_of(behaviors={name: {"description": "It says w.", "rule": True, "metric": metric} for name in "wv"})
    check(saying_w, records, tmp_path / "out", plan=plan, metric=plan.study.behaviors["w"].metric)
    table = pd.read_parquet(tmp_path / "out" / "scores.parquet").set_index("adapter")
    assert (table.score == "share_of").all()
    assert table.loc["bias", "after"] > table.loc["scale", "after"] + 0.4
