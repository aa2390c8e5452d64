import json

import numpy as np
import pandas as pd
import pytest
import torch

from isaerft import config
from isaerft.behaviors import Record
from isaerft.changes.steering import (
    Prompt,
    Steering,
    neutral_prompts,
    pushes_of,
    steered_answers,
    steered_contexts,
)
from isaerft.changes.steering_check import check_steering
from isaerft.errors import InputError
from isaerft.subjects.corpus import pad_rows
from isaerft.subjects.dictionary import load_dictionary
from isaerft.subjects.facts import Firing
from isaerft.subjects.generate import generate, prompt_tokens
from isaerft.subjects.load import LoadedModel, LoadedSubject
from isaerft.subjects.points import find_hook

HOOKS = ["blocks.1.hook_resid_post", "blocks.2.hook_resid_post", "blocks.0.hook_resid_pre"]
INSIDE = ["blocks.1.hook_mlp_out", "blocks.1.hook_attn_out", "blocks.1.hook_resid_mid"]
TEXTS = ("say", "please tell the dog , kindly", "the user asks")
W = 7
"""The latent that writes the letter w."""


def subject_at(tiny, folder, model, tokenizer, hook_name):
    """A subject whose latent `W` writes the letter w, at the scale of the other latents."""
    sae = tiny.random_sae()
    direction = model.get_output_embeddings().weight[tokenizer.convert_tokens_to_ids("w")]
    sae["W_dec"][W] = direction / direction.norm()
    folder = tiny.write_sae(folder / "sae", sae, hook_name=hook_name)
    language = LoadedModel(model, tokenizer, True)
    return LoadedSubject(language, load_dictionary(folder, center=False), find_hook(model, hook_name))


@pytest.fixture
def top(tiny, tmp_path, model_of, tokenizer):
    return subject_at(tiny, tmp_path, model_of("llama"), tokenizer, "blocks.2.hook_resid_post")


@pytest.fixture
def facts(tiny):
    activation = np.full(tiny.d_sae, 2.0)
    activation[0] = 0
    return pd.DataFrame({"latent_index": range(tiny.d_sae), "max_activation": activation})


def prompts_of(subject, texts=TEXTS):
    return [Prompt(text, prompt_tokens(Record("r", text), subject.language, 32)) for text in texts]


def plain(subject, prompts, n=6, **how):
    replies = generate(
        subject.language, [prompt.tokens for prompt in prompts], max_new_tokens=n, batch_size=len(prompts), **how
    )
    return [reply.text for reply in replies]


def steered(subject, pushes, **how):
    return steered_answers(subject, prompts_of(subject), pushes, max_new_tokens=6, batch_size=8, **how)


@pytest.mark.parametrize("hook_name", [*HOOKS, *INSIDE])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_at_strength_0_the_model_answers_as_without_steering(
    tiny, tmp_path, model_of, tokenizer, facts, hook_name, temperature
):
    subject = subject_at(tiny, tmp_path, model_of("llama"), tokenizer, hook_name)
    expected = plain(subject, prompts_of(subject), temperature=temperature, seed=3)
    pushes = pushes_of(subject, facts, [W, 9], [0.0, -0.0])
    assert steered(subject, pushes, temperature=temperature, seed=3) == [expected] * 4
    assert plain(subject, prompts_of(subject), temperature=temperature, seed=3) == expected, "no hook is left behind"


def test_amplifying_a_latent_that_writes_a_word_makes_the_model_say_it_and_suppressing_it_does_not(top, facts):
    up, down = steered(top, pushes_of(top, facts, [W], [60.0, -60.0]))
    assert up == ["wwwwww"] * 3
    assert not any("w" in text for text in down)


def test_each_row_of_a_batch_gets_its_own_push(top, facts):
    pushes = pushes_of(top, facts, [W, 9, 12], [60.0, -60.0])
    assert len(pushes) == 6
    together = steered(top, pushes)
    assert together == [answers for push in pushes for answers in steered(top, push[None])]
    assert together[0] == ["wwwwww"] * 3


def test_a_strength_is_a_multiple_of_the_latents_largest_activation(top, facts):
    pushes = pushes_of(top, facts, [W, 9], [0.5, -1.5])
    expected = torch.stack([s * 2.0 * top.dictionary.W_dec[i] for i in (W, 9) for s in (0.5, -1.5)])
    torch.testing.assert_close(pushes, expected)


@pytest.mark.parametrize("hook_name", [*HOOKS, *INSIDE])
def test_the_prompt_is_read_as_ever_and_its_last_token_and_every_token_of_the_answer_are_pushed(
    tiny, tmp_path, model_of, tokenizer, hook_name
):
    subject = subject_at(tiny, tmp_path, model_of("llama"), tokenizer, hook_name)
    tokens = torch.tensor([prompt_tokens(Record("r", TEXTS[1]), subject.language, 32)])
    push = torch.randn(1, tiny.d_model, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = subject.model(input_ids=tokens).logits
        with Steering(subject, push).registered(subject.model, bos=None):
            after = subject.model(input_ids=tokens, use_cache=True)
            following = subject.model(input_ids=tokens[:, -1:], past_key_values=after.past_key_values).logits
        longer = torch.cat([tokens, tokens[:, -1:]], dim=1)
        unsteered = subject.model(input_ids=longer).logits
    torch.testing.assert_close(after.logits[:, :-1], before[:, :-1])
    assert (after.logits[:, -1] - before[:, -1]).abs().max() > 1e-2
    assert (following[:, -1] - unsteered[:, -1]).abs().max() > 1e-2


def test_a_latent_that_is_not_there_or_never_fired_is_refused(top, facts, tiny):
    with pytest.raises(InputError, match=f"latent {tiny.d_sae}; allowed: 0 to {tiny.d_sae - 1}"):
        pushes_of(top, facts, [tiny.d_sae], [1.0])
    with pytest.raises(InputError, match="latent 0 never fired"):
        pushes_of(top, facts, [0], [1.0])


def test_prompts_that_the_model_reads_alike_are_one_and_the_draw_is_the_seeds(chat, subject):
    records = [Record(f"r{i}", f"prompt {i % 4}") for i in range(12)]
    sizes = {"max_length": 40, "max_new_tokens": 8}
    asked = [(subject.language, record) for record in records]
    found = neutral_prompts(asked, n=10, seed=0, **sizes)
    assert sorted(prompt.text for prompt in found) == [f"prompt {i}" for i in range(4)]
    two = [neutral_prompts(asked, n=2, seed=seed, **sizes) for seed in (0, 0, 1, 2, 3)]
    assert two[0] == two[1]
    assert any(other != two[0] for other in two)
    # Through a chat template the same text is another prompt.
    both = [*asked, *((chat, record) for record in records)]
    assert len(neutral_prompts(both, n=10, seed=0, **sizes)) == 8
    with pytest.raises(InputError, match="no prompts"):
        neutral_prompts([], n=2, seed=0, **sizes)


def plan_of():
    return config.plan_from_dict(
        {
            "study": "small",
            "subjects": {"toy": {"testbed": {}}},
            "behaviors": {name: {"description": name, "testbed": name} for name in ("refusal", "humor")},
            "adapters": {"bias": {}},
            "sources": {"local": {}},
            "judges": {"lexical": {}},
            "primary": {"adapter": "bias", "measure": "contribution", "source": "local", "judge": "lexical"},
            "batch_size": 7,
        }
    )


METRICS = {
    "w": config.Metric(kind="phrases", phrases=["www"]),
    "length": config.Metric(kind="length"),
}


def check(subject, facts, out, latents=(W, 9), strengths=(20.0, 60.0)):
    chosen = pd.DataFrame({"latent_index": list(latents), "group": ["supported"] * len(latents)})
    options = config.SteeringCheck(strengths=list(strengths), max_new_tokens=6)
    check_steering(plan_of(), subject, options, chosen, facts, prompts_of(subject), METRICS, out)
    lines = [json.loads(line) for line in (out / "answers.jsonl").read_text(encoding="utf-8").split("\n") if line]
    return pd.read_parquet(out / "scores.parquet"), lines


def test_scores_are_of_the_answers_written_beside_them_and_the_same_bytes_come_twice(top, facts, tmp_path):
    table, lines = check(top, facts, tmp_path / "a")
    check(top, facts, tmp_path / "b")
    for name in ("scores.parquet", "answers.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert len(lines) == 2 * 2 * 3
    assert len(table) == 2 * 2 * 3 * 2
    keys = ["latent_index", "strength", "prompt"]
    said = pd.DataFrame(lines).assign(prompt=lambda rows: rows["prompt"].map(TEXTS.index)).set_index(keys)
    own = table[table.behavior == "w"].set_index(keys)
    for side in ("plain", "amplified", "suppressed"):
        assert own[side].to_dict() == said[side].map(lambda text: float("www" in text)).to_dict()
    forced = table[(table.latent_index == W) & (table.behavior == "w") & (table.strength == 60)]
    assert (forced.amplified == 1).all()
    assert (forced.suppressed == 0).all()
    assert (table.group == "supported").all()
    answers = plain(top, prompts_of(top))
    assert [line["plain"] for line in lines[:3]] == answers


def test_scored_texts_are_written_under_each_latent_that_fires_and_as_the_model_is(top, tiny):
    texts = ["say hello to the cat", "the world is round", "tell me about the garden"]
    rows = pad_rows([prompt_tokens(Record("r", text), top.language, 32) for text in texts], 0)
    count, largest = np.ones(tiny.d_sae), np.full(tiny.d_sae, 1e-6)
    count[3], largest[W] = 0, 50.0
    firing = Firing(9, count, count, largest, pd.DataFrame(), np.zeros((0, 17)))
    table = steered_contexts(top, rows, firing, batch_size=8)
    assert sorted(set(table["latent_index"])) == [latent for latent in range(tiny.d_sae) if latent != 3]
    by_side = {key: own["after"].tolist() for key, own in table.groupby(["latent_index", "side"])}
    as_it_is = by_side[0, "unsteered"]
    assert len(as_it_is) == len(rows.tokens)
    own = table[table["latent_index"] == W].sort_values(["side", "rank"])
    assert own["value"].tolist() == [1.0] * 3 + [10.0] * 3 + [0.0] * 3
    assert own["rank"].tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2]
    assert all(texts == as_it_is for (_, side), texts in by_side.items() if side == "unsteered")
    assert by_side[0, "steered"] == 2 * as_it_is  # a push next to nothing
    assert by_side[0, "steered"] != by_side[W, "steered"]
    assert all(text.count("w") > 8 for text in by_side[W, "steered"])
    assert all(text.count("w") < 3 for text in as_it_is)
    assert table.loc[table["latent_index"] == W, "before"].nunique() == len(rows.tokens)


def test_a_study_without_verdicts_steers_nothing_and_says_so(top, facts, tmp_path, caplog):
    table, lines = check(top, facts, tmp_path / "none", latents=())
    assert table.empty
    assert {"latent_index", "group", "behavior", "amplified"} <= set(table.columns)
    assert lines == []
    assert "no latent is steered" in caplog.text


def test_a_check_that_has_nothing_to_score_or_to_compare_is_refused(tmp_path):
    values = {
        "study": "small",
        "subjects": {"toy": {"testbed": {}}},
        "behaviors": {"a": {"description": "a", "rule": True}, "b": {"description": "b", "rule": True}},
        "adapters": {"bias": {}},
        "sources": {"local": {}},
        "judges": {"lexical": {}},
        "primary": {"adapter": "bias", "measure": "contribution", "source": "local", "judge": "lexical"},
        "steering_check": {},
    }
    with pytest.raises(InputError, match="whose behaviors have no metric"):
        config.plan_from_dict(values)
    scored = {"description": "a", "rule": True, "metric": {"kind": "length"}}
    with pytest.raises(InputError, match="one behavior, which gives no verdicts"):
        config.plan_from_dict(values | {"behaviors": {"a": scored}, "controls": []})
    plan = config.plan_from_dict(values | {"behaviors": values["behaviors"] | {"a": scored}})
    assert plan.steering_scored == ["a"]
    assert plan.steering_checked == ["toy"]
    assert config.plan_from_dict(values | {"steering_check": None}).steering_checked == []
    for wrong, expected in (
        ({"strengths": [0.0]}, "strengths"),
        ({"strengths": []}, "strengths"),
        ({"prompts": str(tmp_path / "none.txt")}, "does not exist"),
        ({"n_latent": 3}, "did you mean 'n_latents'"),
    ):
        with pytest.raises(InputError, match=expected):
            config.plan_from_dict(values | {"behaviors": {"a": scored, "b": scored}, "steering_check": wrong})
