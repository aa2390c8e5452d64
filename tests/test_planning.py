"""What a study will ask, told before it asks: exact where explanations are, at most where they are to come."""

import json

import numpy as np
import pandas as pd
import pytest

from isaerft.cli import main
from isaerft.config import plan_from_dict
from isaerft.explanations import read_explanations, write_explanations
from isaerft.explanations import write_sample
from isaerft.judges import judge_explanations
from isaerft.llm import LanguageModel
from isaerft.planning import cost_lines, costs

N = 40


def values(url, cache):
    return {
        "study": "small",
        "subjects": {"toy": {"testbed": {}, "train_sae": {"d_sae": 64}}},
        "behaviors": {
            name: {"description": f"The assistant is {name}.", "testbed": name} for name in ("humor", "alarm")
        },
        "adapters": {"bias": {}},
        "sources": {"local": {}, "late": {"kind": "local"}},
        "judges": {"lexical": {}, "llm": {"llm": "small"}},
        "primary": {"adapter": "bias", "measure": "attribution", "source": "local", "judge": "lexical"},
        "llms": {
            "small": {
                "model": "m",
                "base_url": url,
                "max_calls": 50,
                "price_per_million_input": 1000,
                "price_per_million_output": 0,
            }
        },
        "llm_cache": str(cache),
    }


@pytest.fixture
def given(openai_server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", openai_server.key)
    texts = [f"text {i % 30}" for i in range(N)]
    frame = pd.DataFrame({"latent_index": np.arange(N), "explanation": texts, "side": "input", "url": ""})
    write_explanations(frame, tmp_path / "results/explanations/toy/local.parquet")
    return values(openai_server.url, tmp_path / "cache.sqlite"), tmp_path / "results"


def asked(plan, results):
    found = read_explanations(results / "explanations/toy/local.parquet")
    behaviors = {name: part.description for name, part in plan.study.behaviors.items()}
    llm = LanguageModel.of(plan, "small")
    return judge_explanations("llm", plan.study.judges["llm"], found, behaviors, subject_dir=results, llm=llm)


def test_the_cost_is_told_before_and_nothing_is_left_of_it_after(given, openai_server, tmp_path):
    plan, results = plan_from_dict(given[0]), given[1]
    local, late = costs(plan, results)
    assert (local.plan.calls, local.exact) == (30, True)
    assert (late.plan.calls, late.exact) == (64, False)
    assert openai_server.received == 0
    assert not (tmp_path / "cache.sqlite").exists()
    asked(plan, results)
    assert openai_server.received == 30
    assert next(costs(plan, results)).plan.calls == 0
    lines = cost_lines(plan, results)
    assert lines[0] == "toy, local, judge llm: 0 requests (30 of 30 cached)"
    assert lines[1].startswith("toy, late, judge llm: no explanations yet; at most 64 requests (0 of 64 cached), about")
    assert "price" in lines[1]
    assert "used so far 30 of 50 requests" in lines[2]


def test_the_number_of_latents_is_the_subjects_own_where_it_is_known(given):
    plan, results = plan_from_dict(given[0]), given[1]
    (results / "subjects/toy").mkdir(parents=True)
    (results / "subjects/toy/subject.json").write_text(json.dumps([{"d_sae": 7}]))
    assert list(costs(plan, results))[1].plan.calls == 7


def test_only_the_latents_that_will_be_asked_for_are_counted(given):
    sampled = {"kind": "case_control", "n_cases": 3, "controls_per_case": 2}
    plan, results = plan_from_dict(given[0] | {"design": sampled}), given[1]
    assert list(costs(plan, results))[1].plan.calls == 2 * 3 * (1 + 2)
    (results / "subjects/toy").mkdir(parents=True)
    rates = pd.DataFrame({"latent_index": range(9), "firing_rate": [0.0] * 4 + [0.1] * 5})
    rates.to_parquet(results / "subjects/toy/latents.parquet")
    assert list(costs(plan_from_dict(given[0]), results))[1].plan.calls == 5
    drawn = pd.DataFrame({"latent_index": [5, 6], "role": "case", "stratum": 0, "matched_to": [5, 6], "drawn_for": ""})
    write_sample(drawn, results / "design/toy.parquet")
    assert list(costs(plan, results))[1].plan.calls == 2


def test_a_source_that_asks_is_counted_and_exact_once_the_evidence_is_there(given, openai_server):
    writer = {"kind": "llm", "llm": "small", "judges": ["lexical"]}
    plan, results = plan_from_dict(given[0] | {"sources": given[0]["sources"] | {"writer": writer}}), given[1]
    (cost,) = [cost for cost in costs(plan, results) if cost.judge is None]
    assert (cost.source, cost.plan.calls, cost.exact) == ("writer", 64, False)
    assert any(
        line.startswith("toy, writer, explaining: no evidence yet; at most 64") for line in cost_lines(plan, results)
    )
    folder = results / "subjects/toy"
    folder.mkdir(parents=True)
    pd.DataFrame({"latent_index": range(9), "firing_rate": [0.0] * 4 + [0.1] * 5}).to_parquet(
        folder / "latents.parquet"
    )
    rows = [(latent, "input", 0, f"word{latent}", "a", "b", 1.0) for latent in (3, 5, 6)]
    columns = ["latent_index", "side", "rank", "token", "before", "after", "value"]
    pd.DataFrame(rows, columns=columns).to_parquet(folder / "contexts.parquet")
    (cost,) = [cost for cost in costs(plan, results) if cost.judge is None]
    assert (cost.plan.calls, cost.exact) == (2, True)
    assert openai_server.received == 0


def test_a_scorer_that_asks_is_counted_with_its_floor_and_exact_once_the_evidence_is_there(given, openai_server):
    scorer = {"kind": "llm", "llm": "small", "sources": ["local"]}
    plan, results = plan_from_dict(given[0] | {"scorers": {"reader": scorer}}), given[1]
    (cost,) = [cost for cost in costs(plan, results) if cost.scorer]
    assert (cost.source, cost.plan.calls, cost.exact) == ("local", 2 * 3 * N, False)
    few = plan_from_dict(given[0] | {"scorers": {"reader": scorer | {"n_latents": 5}}})
    assert [cost.plan.calls for cost in costs(few, results) if cost.scorer] == [2 * 3 * 5]
    assert any("toy, local, scorer reader: no evidence yet; at most 240" in line for line in cost_lines(plan, results))
    folder = results / "subjects/toy"
    folder.mkdir(parents=True)
    rates = pd.DataFrame({"latent_index": range(9), "firing_rate": [0.0] * 4 + [0.1] * 5})
    rates.to_parquet(folder / "latents.parquet")
    rows = [(n, side, 0, f"{side}{n}", "a", "b", 1.0) for n in (3, 5, 6) for side in ("heldout", "silent")]
    columns = ["latent_index", "side", "rank", "token", "before", "after", "value"]
    pd.DataFrame(rows, columns=columns).to_parquet(folder / "scored_contexts.parquet")
    (cost,) = [cost for cost in costs(plan, results) if cost.scorer]
    assert (cost.plan.calls, cost.exact) == (2 * 2, True)  # latent 3 is dead
    assert openai_server.received == 0


def test_without_a_language_model_nothing_is_counted(given):
    plain = {key: value for key, value in given[0].items() if not key.startswith("llm")}
    plain["judges"] = {"lexical": {}}
    assert cost_lines(plan_from_dict(plain), given[1]) == ["no language model is asked"]


def test_the_verb_prints_the_lines_and_needs_no_key(given, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(json.dumps(given[0]))
    assert main(["cost", "--study", "study.yaml"]) == 0
    assert "judge llm: no explanations yet; at most 64 requests" in capsys.readouterr().out
