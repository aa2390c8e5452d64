import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from isaerft import config
from isaerft.adapters.base import make_adapter, save_adapter, save_outside
from isaerft.adapters.maps import Residual
from isaerft.behaviors import Record
from isaerft.changes.behavior import ANSWERS, SCORES, check_behavior, distinct_prompts
from isaerft.errors import InputError
from isaerft.subjects.dictionary import load_dictionary
from isaerft.subjects.hooks import find_hook

SCORE = {"kind": "phrases", "phrases": ["wwww"]}


def plan(**changes):
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
        check_behavior(
            plan(),
            saying_w,
            "w",
            ["bias", "scale"],
            config.Metric(**SCORE),
            records,
            tmp_path / "adapters",
            tmp_path / out,
        )
        written.append([(tmp_path / out / name).read_bytes() for name in (SCORES, ANSWERS)])
    assert written[0] == written[1]
    table = pd.read_parquet(tmp_path / "a" / SCORES).set_index("adapter")
    assert (table.n_prompts == 3).all()
    assert (table.n_seeds == 2).all()
    assert table.loc["bias", ["before", "after", "ci_low", "ci_high"]].tolist() == [0, 0.5, 0.5, 0.5]
    assert table.loc["scale", ["before", "after", "ci_low", "ci_high"]].tolist() == [0, 0, 0, 0]
    lines = [json.loads(line) for line in (tmp_path / "a" / ANSWERS).read_text(encoding="utf-8").split("\n") if line]
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
        save_outside(adapter, tmp_path / "adapters/residual/seed_0")
    score = config.Metric(**SCORE)
    check_behavior(plan(), saying_w, "w", ["residual", "bias"], score, records, tmp_path / "adapters", tmp_path / "out")
    table = pd.read_parquet(tmp_path / "out" / SCORES).set_index("adapter")
    assert table.loc["residual", ["before", "after", "n_seeds"]].tolist() == [0, 1, 1]
    assert table.loc["bias", ["before", "after", "n_seeds"]].tolist() == [0, 0.5, 2]


def test_every_behavior_draws_its_own_random_numbers(saying_w, records, tmp_path):
    hot = plan(behavior_check={"n_prompts": 6, "max_new_tokens": 8, "temperature": 1.5})
    said = []
    for number, behavior in enumerate(["w", "v", "w"]):
        out = tmp_path / str(number)
        check_behavior(hot, saying_w, behavior, ["scale"], config.Metric(**SCORE), records, tmp_path / "adapters", out)
        lines = (out / ANSWERS).read_text(encoding="utf-8").split("\n")
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
    options = plan(max_length=500)
    score = config.Metric(kind="length")
    check_behavior(options, saying_w, "w", ["scale"], score, records, tmp_path / "adapters", tmp_path / "out")
    assert np.isfinite(pd.read_parquet(tmp_path / "out" / SCORES).before).all()


def test_what_is_checked_is_as_the_config_says():
    assert plan().behavior_checked == {"w": ["bias", "lora"], "styled": ["bias", "lora"]}
    alone = plan(reference=None, adapters={"bias": {}, "scale": {}})
    assert alone.behavior_checked["w"] == ["bias"]
    off = {"n_prompts": 3}
    assert plan(behavior_check=off | {"adapters": []}).behavior_checked == {}
    assert plan(behavior_check=off | {"behaviors": []}).behavior_checked == {}
    chosen = plan(behavior_check=off | {"behaviors": ["w"], "adapters": ["scale"]})
    assert chosen.behavior_checked == {"w": ["scale"]}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"behaviors": ["plain"]}, "'plain' has no score"),
        ({"behaviors": ["wu"]}, "unknown behavior_check.behaviors 'wu'"),
        ({"adapters": ["lara"]}, "did you mean 'lora'"),
        ({"n_seeds": 3}, "at most n_seeds, 2"),
    ],
)
def test_a_check_of_what_is_not_there_is_refused(changes, expected):
    with pytest.raises(InputError, match=expected):
        plan(behavior_check=changes)


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        ({"kind": "phrase", "phrases": ["a"]}, "did you mean 'phrases'"),
        ({"kind": "phrases"}, "score 'phrases' without phrases"),
        ({"kind": "words"}, "score 'words' without words"),
        ({"kind": "classifier"}, "score 'classifier' without model"),
    ],
)
def test_a_score_that_lacks_what_it_needs_is_refused(score, expected):
    with pytest.raises(InputError, match=expected):
        plan(behaviors={n: {"description": "d", "rule": True, "metric": score} for n in "ab"})
