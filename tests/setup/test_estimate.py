"""The cost model: its formulas on numbers that can be worked out by hand, and its disk against a real cache."""

import pytest
import yaml

from isaerft.config import Adapter, plan_from_dict
from isaerft.setup.estimate import (
    GPU_FAST,
    GPU_SLOW,
    Rows,
    Shape,
    cost_lines,
    estimate,
    size,
    training_flop,
)

SHAPE = Shape(n_blocks=26, n_below=14, d_model=1152, vocabulary=262_144, block_parameters=26_000_000, d_sae=16_384)
ROWS = Rows(train=200, heldout=30, prompt=80, completion=80)
VALUES = yaml.safe_load("""
study: s
subjects: {m: {model: a/b, release: r, sae_id: blocks.1.x, corpus: {sample: true, tokens: 1000}}}
behaviors:
  a: {description: d, rule: true}
  b: {description: d, rule: true}
adapters: {bias: {steps: 10, batch_size: 4, n_seeds: 2}, lora: {steps: 10, batch_size: 4, n_seeds: 1}}
reference: lora
sources: {neuronpedia: {}}
judges: {lexical: {}}
primary: {adapter: bias, measure: contribution, source: neuronpedia, judge: lexical}
measures: [contribution]
placebos: {n: 0}
causal_check: {adapters: []}
controls: [shuffled_explanations]
""")


def planned(**changes):
    behaviors = {name: {"description": "d", "testbed": "refusal"} for name in "ab"}
    return plan_from_dict(VALUES | {"behaviors": behaviors} | changes)


def test_a_training_costs_four_operations_a_token_and_weight_in_a_step_and_two_in_an_evaluation():
    adapter = Adapter(steps=160, batch_size=8, evaluate_every=20)
    weights = 12 * 26_000_000
    per_row = 160 * weights + 80 * 1152 * 262_144
    assert training_flop(adapter, SHAPE, ROWS) == (4 * 160 * 8 + 2 * 9 * 30) * per_row


def test_blocks_below_the_hook_cost_nothing_in_training():
    adapter = Adapter(steps=10)
    last = SHAPE._replace(n_below=26, vocabulary=1)
    assert training_flop(adapter, last, ROWS) < 1e-4 * training_flop(adapter, SHAPE, ROWS)


def test_trainings_count_seeds_adapters_behaviors_and_the_random_dictionary():
    rows = {"a": ROWS, "b": ROWS}
    one = training_flop(planned().study.adapters["bias"], SHAPE, ROWS)
    found = estimate(planned(), {"m": SHAPE}, rows)
    assert found.flop["training"] == pytest.approx(2 * (2 + 1) * one)
    twin = estimate(planned(controls=["random_dictionary"]), {"m": SHAPE}, rows)
    assert twin.flop["training"] == pytest.approx(2 * (2 + 1 + 2) * one)
    named = planned(controls=["untrained_dictionary"], sources={"neuronpedia": {}, "local": {}})
    baseline = estimate(named, {"m": SHAPE}, rows)
    assert baseline.flop["training"] == twin.flop["training"]
    assert baseline.disk["caches"] == 2 * found.disk["caches"] == 2 * twin.disk["caches"]
    assert baseline.disk["models and SAEs"] > found.disk["models and SAEs"] == twin.disk["models and SAEs"]
    placebos = estimate(planned(placebos={"n": 5}), {"m": SHAPE}, rows)
    assert placebos.flop["placebos"] > 5 * 2 * one
    assert placebos.flop["training"] == found.flop["training"]


def test_caches_take_a_number_for_each_dimension_and_eight_bytes_for_each_active_latent():
    found = estimate(planned(), {"m": SHAPE}, {"a": ROWS, "b": ROWS})
    assert found.disk["caches"] == 2 * 230 * 160 * (4 * 1152 + 8 * 64)
    assert found.disk["changes"] == 2 * 2 * 16 * 16_384
    narrow = VALUES["subjects"]["m"] | {"dtype": "bfloat16"}
    half = estimate(planned(subjects={"m": narrow}), {"m": SHAPE}, {"a": ROWS, "b": ROWS})
    assert half.disk["caches"] == 2 * 230 * 160 * (2 * 1152 + 8 * 64)


def test_requests_are_bounded_by_the_latents_or_by_the_sample():
    rows = {"a": ROWS, "b": ROWS}
    assert estimate(planned(), {"m": SHAPE}, rows).requests == {"Neuronpedia": 20 + 410}
    assert estimate(planned(), {}, rows, {"m": 400}).requests == {"Neuronpedia": 20 + 10}
    sampled = planned(design={"kind": "case_control", "n_cases": 10, "controls_per_case": 4})
    assert estimate(sampled, {"m": SHAPE}, rows).requests == {"Neuronpedia": 20 + 3}
    asked = {"llms": {"big": {"model": "x"}}, "judges": {"llm": {"llm": "big"}}}
    asked["primary"] = VALUES["primary"] | {"judge": "llm"}
    assert estimate(planned(**asked), {"m": SHAPE}, rows).requests["the language model big"] == 16_384


def test_jobs_are_those_of_the_study():
    jobs = estimate(planned(), {"m": SHAPE}, {"a": ROWS, "b": ROWS}).jobs
    assert (jobs["train"], jobs["changes"], jobs["summary"]) == (2 * 2, 2, 1)


def test_a_faster_gpu_and_more_cores_take_less_time_and_the_text_has_all_three_costs():
    found = estimate(planned(), {"m": SHAPE}, {"a": ROWS, "b": ROWS})
    assert found.gpu_minutes(GPU_FAST) < found.gpu_minutes(GPU_SLOW)
    assert found.cpu_minutes(4) == pytest.approx(found.cpu_minutes(1) / 4)
    assert [line.partition(":")[0] for line in cost_lines(found, cores=2)] == ["requests", "time", "disk"]
    assert [line.partition(":")[0] for line in cost_lines(estimate(planned(), {}, {}), cores=2)] == ["requests"]


def test_sizes_are_for_people():
    assert [size(n) for n in (2_000, 5.5e6, 1.234e9, 2e12)] == ["2 kB", "5.5 MB", "1.23 GB", "2 TB"]
