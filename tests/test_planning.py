"""Planning: the cost is exact where texts exist and an upper estimate before, and the latents that a study needs."""

import json

import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel, ConfigDict

from isaerft.cli import main
from isaerft.config import plan_from_dict
from isaerft.errors import InputError
from isaerft.explanations import read_explanations, write_explanations, write_sample
from isaerft.judges import distinct_texts, judge_explanations, judgements
from isaerft.layout import Results
from isaerft.llm import LanguageModel, Prompt
from isaerft.planning import cost_lines, costs, power_lines
from isaerft.registry import JUDGES
from isaerft.stats.power import auroc_of_odds_ratio

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
def study(openai_server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", openai_server.key)
    texts = [f"text {i % 30}" for i in range(N)]
    frame = pd.DataFrame({"latent_index": np.arange(N), "explanation": texts, "side": "input", "url": ""})
    write_explanations(frame, tmp_path / "results/explanations/toy/local.parquet")
    return values(openai_server.url, tmp_path / "cache.sqlite"), tmp_path / "results"


def judge_local(plan, results):
    found = read_explanations(results / "explanations/toy/local.parquet")
    behaviors = {name: part.description for name, part in plan.study.behaviors.items()}
    llm = LanguageModel.of(plan, "small")
    return judge_explanations("llm", plan.study.judges["llm"], found, behaviors, subject_dir=results, llm=llm)


def test_the_cost_is_told_before_and_nothing_is_left_of_it_after(study, openai_server, tmp_path):
    plan, results = plan_from_dict(study[0]), study[1]
    local, late = costs(plan, Results(results))
    assert (local.requests.calls, local.exact) == (30, True)
    assert (late.requests.calls, late.exact) == (64, False)
    assert openai_server.received == 0
    assert not (tmp_path / "cache.sqlite").exists()
    judge_local(plan, results)
    assert openai_server.received == 30
    assert next(costs(plan, Results(results))).requests.calls == 0
    lines = cost_lines(plan, Results(results))
    assert lines[0] == "toy, local, judge llm: 0 requests (30 of 30 cached)"
    assert lines[1].startswith("toy, late, judge llm: no explanations yet; at most 64 requests (0 of 64 cached), about")
    assert "price" in lines[1]
    assert "used so far 30 of 50 requests" in lines[2]


def test_the_name_of_a_model_makes_no_line_of_its_own(study):
    study[0]["llms"]["small"]["model"] = "m\nllm other: 0 requests\x1b[2J"
    assert all(line.isprintable() for line in cost_lines(plan_from_dict(study[0]), Results(study[1])))


def test_the_number_of_latents_is_the_subjects_own_where_it_is_known(study):
    plan, results = plan_from_dict(study[0]), study[1]
    (results / "subjects/toy").mkdir(parents=True)
    (results / "subjects/toy/subject.json").write_text(json.dumps([{"d_sae": 7}]))
    assert list(costs(plan, Results(results)))[1].requests.calls == 7


def test_only_the_latents_that_will_be_asked_for_are_counted(study):
    sampled = {"kind": "case_control", "n_cases": 3, "controls_per_case": 2}
    plan, results = plan_from_dict(study[0] | {"design": sampled}), study[1]
    assert list(costs(plan, Results(results)))[1].requests.calls == 2 * 3 * (1 + 2)
    (results / "subjects/toy").mkdir(parents=True)
    rates = pd.DataFrame({"latent_index": range(9), "firing_rate": [0.0] * 4 + [0.1] * 5})
    rates.to_parquet(results / "subjects/toy/latents.parquet")
    assert list(costs(plan_from_dict(study[0]), Results(results)))[1].requests.calls == 5
    drawn = pd.DataFrame({"latent_index": [5, 6], "role": "case", "stratum": 0, "matched_to": [5, 6], "drawn_for": ""})
    write_sample(drawn, results / "design/toy.parquet")
    assert list(costs(plan, Results(results)))[1].requests.calls == 2


def test_a_source_that_asks_is_counted_and_exact_once_the_evidence_is_there(study, openai_server):
    writer = {"kind": "llm", "llm": "small", "judges": ["lexical"]}
    plan, results = plan_from_dict(study[0] | {"sources": study[0]["sources"] | {"writer": writer}}), study[1]
    (cost,) = [cost for cost in costs(plan, Results(results)) if cost.part == "source"]
    assert (cost.source, cost.requests.calls, cost.exact) == ("writer", 64, False)
    assert any(
        line.startswith("toy, writer, explaining: no evidence yet; at most 64")
        for line in cost_lines(plan, Results(results))
    )
    folder = results / "subjects/toy"
    folder.mkdir(parents=True)
    pd.DataFrame({"latent_index": range(9), "firing_rate": [0.0] * 4 + [0.1] * 5}).to_parquet(
        folder / "latents.parquet"
    )
    rows = [(latent, "input", 0, f"word{latent}", "a", "b", 1.0) for latent in (3, 5, 6)]
    columns = ["latent_index", "side", "rank", "token", "before", "after", "value"]
    pd.DataFrame(rows, columns=columns).to_parquet(folder / "contexts.parquet")
    (cost,) = [cost for cost in costs(plan, Results(results)) if cost.part == "source"]
    assert (cost.requests.calls, cost.exact) == (2, True)
    assert openai_server.received == 0


def test_a_scorer_that_asks_is_counted_with_its_floor_and_exact_once_the_evidence_is_there(study, openai_server):
    scorer = {"kind": "llm", "llm": "small", "sources": ["local"]}
    plan, results = plan_from_dict(study[0] | {"scorers": {"reader": scorer}}), study[1]
    (cost,) = [cost for cost in costs(plan, Results(results)) if cost.part == "scorer"]
    assert (cost.source, cost.requests.calls, cost.exact) == ("local", 2 * 3 * N, False)
    few = plan_from_dict(study[0] | {"scorers": {"reader": scorer | {"n_latents": 5}}})
    assert [cost.requests.calls for cost in costs(few, Results(results)) if cost.part == "scorer"] == [2 * 3 * 5]
    assert any(
        "toy, local, scorer reader: no evidence yet; at most 240" in line for line in cost_lines(plan, Results(results))
    )
    folder = results / "subjects/toy"
    folder.mkdir(parents=True)
    rates = pd.DataFrame({"latent_index": range(9), "firing_rate": [0.0] * 4 + [0.1] * 5})
    rates.to_parquet(folder / "latents.parquet")
    rows = [(n, side, 0, f"{side}{n}", "a", "b", 1.0) for n in (3, 5, 6) for side in ("heldout", "silent")]
    columns = ["latent_index", "side", "rank", "token", "before", "after", "value"]
    pd.DataFrame(rows, columns=columns).to_parquet(folder / "scored_contexts.parquet")
    (cost,) = [cost for cost in costs(plan, Results(results)) if cost.part == "scorer"]
    assert (cost.requests.calls, cost.exact) == (2 * 2, True)  # latent 3 is dead
    assert openai_server.received == 0


def test_without_a_language_model_nothing_is_counted(study):
    plain = {key: value for key, value in study[0].items() if not key.startswith("llm")}
    plain["judges"] = {"lexical": {}}
    assert cost_lines(plan_from_dict(plain), Results(study[1])) == ["no language model is asked"]


def test_the_verb_prints_the_lines_and_needs_no_key(study, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(json.dumps(study[0]))
    assert main(["cost", "--study", "study.yaml"]) == 0
    assert "judge llm: no explanations yet; at most 64 requests" in capsys.readouterr().out


class Verdict(BaseModel):
    """A short answer."""

    model_config = ConfigDict(extra="forbid")

    relevant: bool


class OutsideJudge:
    """A judge of another package, with one short prompt for each pair of text and behavior."""

    def requests(self, explanations, behaviors, judge, *, subject_dir, llm):
        texts, _ = distinct_texts(explanations)
        return [Prompt("?", f"{text}|{name}", Verdict, 5, llm.seed) for text in texts for name in behaviors]

    def __call__(self, explanations, behaviors, judge, *, subject_dir, llm):
        llm.ask(self.requests(explanations, behaviors, judge, subject_dir=subject_dir, llm=llm))
        effects = np.zeros((len(explanations), len(behaviors)))
        return judgements(explanations, behaviors, effects, expected=effects > 0)


@pytest.fixture
def with_outside_judge(study, monkeypatch):
    """Return a plan with a judge of another package, registered for the length of a test."""
    monkeypatch.setattr(JUDGES, "_parts", dict(JUDGES._parts))
    monkeypatch.setattr(JUDGES, "_facts", dict(JUDGES._facts))

    def give(judge):
        JUDGES("outside", asks=True)(judge)
        judges = {"lexical": {}, "outside": {"llm": "small"}}
        return plan_from_dict(study[0] | {"judges": judges}), study[1]

    return give


def test_a_judge_of_another_package_is_planned_by_its_own_prompts(with_outside_judge, openai_server):
    plan, results = with_outside_judge(OutsideJudge())
    openai_server.answer = lambda body: {"content": '{"relevant": true}'}
    local, late = costs(plan, Results(results))
    assert (local.name, local.requests.calls, late.requests.calls) == ("outside", 2 * 30, 2 * 64)
    assert local.requests.completion_tokens == 5 * 2 * 30
    openai_server.check = lambda body, raw: []
    found = read_explanations(results / "explanations/toy/local.parquet")
    llm = LanguageModel.of(plan, "small")
    with pytest.raises(InputError, match="max_calls: 50"):
        judge_explanations("outside", plan.study.judges["outside"], found, plan.described, subject_dir=".", llm=llm)
    assert next(costs(plan, Results(results))).requests.calls == 60 - 50


def test_a_part_that_does_not_tell_its_requests_is_said_to_be_unplannable(with_outside_judge, openai_server):
    judge = OutsideJudge()
    plan, results = with_outside_judge(lambda *arguments, **options: judge(*arguments, **options))
    lines = cost_lines(plan, Results(results))
    assert lines[0] == ("toy, local, judge outside: cannot be planned: its judge cannot list its requests in advance")
    assert "0 requests (0 of 0 cached), plus 2 that cannot be planned; used so far" in lines[-1]
    assert openai_server.received == 0


def test_the_latents_needed_fall_with_seeds_behaviors_and_effect():
    def table(**effect):
        rows = [line.split() for line in power_lines(**effect)[3:]]
        return {(int(row[0]), int(row[1])): [float(number) for number in row[3:]] for row in rows}

    weak, strong = table(auroc=0.6), table(auroc=0.7)
    assert len(weak) == 16
    assert all(low < high for low, high in weak.values())  # more power takes more latents
    assert all(strong[size][0] < weak[size][0] for size in weak)
    assert weak[1, 4] > weak[3, 4] > weak[3, 8]


def test_an_odds_ratio_gives_the_table_of_its_auroc_and_exactly_one_effect_is_needed():
    options = {"expected_share": 0.05, "reliability": 0.8, "alpha": 0.01}
    by_ratio = power_lines(odds_ratio=3.0, **options)
    assert by_ratio == power_lines(auroc=auroc_of_odds_ratio(3.0), **options)
    assert "odds ratio 3.00), 0.05 of the latents expected" in by_ratio[0]
    assert by_ratio[0].endswith("one seed's reliability 0.8, one-sided level 0.01")
    for effect in ({}, {"auroc": 0.6, "odds_ratio": 2.0}):
        with pytest.raises(InputError, match="no effect, or more than one; allowed: one of --auroc and --odds-ratio"):
            power_lines(**effect)
