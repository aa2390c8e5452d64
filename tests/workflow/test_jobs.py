"""Which jobs a study has, and that they call the command line as it is."""

import inspect
import re
import shutil
from pathlib import Path

import pytest

from isaerft.analysis import TABLES
from isaerft.cli.app import app
from isaerft.config import CONTROLS

ROOT = Path(__file__).parents[2]
VERBS = {command.name: set(inspect.signature(command.callback).parameters) for command in app.registered_commands}


def check_call(call):
    """Refuse a command line that the real verb would not take."""
    verb, *arguments = call
    assert {name.removeprefix("--") for name in arguments[::2]} <= VERBS[verb], call
    return verb


@pytest.mark.slow
def test_a_model_in_a_gguf_file_is_converted_once_and_elicited_behaviors_are_sampled_from_it(workspace):
    workspace.write("prompts.txt", "Say a.\nSay b.\n")
    elicit = {"prompts": "prompts.txt", "instruction": "Shout.", "min_score": 1}
    subject = {"gguf": {"file": "tiny.gguf"}, "corpus": {"sample": True}, "train_sae": {}, "hook_name": "blocks.1.x"}
    workspace.write("tiny.gguf", "GGUF")
    behavior = {"description": "It shouts.", "elicit": elicit, "metric": {"kind": "pattern", "pattern": "!"}}
    others = {"adapters": {"bias": {}}, "reference": None, "scorers": {}, "controls": [], "judges": {"lexical": {}}}
    others |= {"sources": {"local": {}}}
    others["primary"] = {"adapter": "bias", "measure": "contribution", "source": "local", "judge": "lexical"}
    workspace.study("made", subjects={"toy": subject}, behaviors={"shouting": behavior}, **others)
    jobs = workspace.planned(study="made")
    assert {name: jobs[name] for name in ("gguf_model", "elicit", "behavior", "capture")} == {
        "gguf_model": 1,
        "elicit": 1,
        "behavior": 1,
        "capture": 1,
    }
    done = workspace.snakemake("--cores", "2", "--", "results/made/cache/toy/shouting.safetensors", study="made")
    assert done.returncode == 0, done.stderr
    assert {"gguf-model", "elicit", "behavior"} <= {check_call(call) for call in workspace.calls()}
    target = ("--", "results/made/behaviors/shouting/card.json")
    assert workspace.planned(*target, study="made") == {}
    # An adapter that reads the instruction captures it too, from the file of prompts.
    cache = ("--", "results/made/cache/toy/shouting.safetensors")
    assert workspace.planned(*cache, study="made") == {}
    asked = others | {"adapters": {"bias": {}, "prompting": {}}}
    workspace.study("made", subjects={"toy": subject}, behaviors={"shouting": behavior}, **asked)
    assert workspace.planned(*cache, study="made") == {"capture": 1}
    # What decides which replies are kept samples none again; what is asked does.
    behavior["metric"]["pattern"] = "!!"
    workspace.study("made", subjects={"toy": subject}, behaviors={"shouting": behavior}, **others)
    assert workspace.planned(*target, study="made") == {"behavior": 1}
    elicit["instruction"] = "Shout loudly."
    workspace.study("made", subjects={"toy": subject}, behaviors={"shouting": behavior}, **others)
    assert workspace.planned(*target, study="made") == {"elicit": 1, "behavior": 1}


@pytest.mark.slow
def test_the_smollm2_study_is_planned_without_its_model(workspace):
    workspace.write("config/smollm2.yaml", (ROOT / "config/smollm2.yaml").read_text(encoding="utf-8"))
    for folder in ("elicit", "smollm2"):
        shutil.copytree(ROOT / "data" / folder, workspace.folder / "data" / folder)
    jobs = workspace.planned(study="smollm2")
    assert jobs["gguf_model"] == 1
    assert jobs["behavior"] == jobs["behavior_check"] == 14
    assert jobs["steering_check"] == 1
    assert "elicit" not in jobs, "its replies are given"


# Study -> its subjects, and its adapters on each behavior.
CHAT_STUDIES = {"gemma3_270m_it": (4, 8), "gemma3_1b_it": (2, 8), "gemma2_2b_it": (2, 8)}
BASE_STUDIES = {"gpt2": (1, 3), "gemma": (1, 3)}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAT_STUDIES | BASE_STUDIES)
def test_a_study_of_a_hub_model_is_planned_offline_with_all_behaviors(workspace, name):
    workspace.write(f"config/{name}.yaml", (ROOT / f"config/{name}.yaml").read_text(encoding="utf-8"))
    shutil.copytree(ROOT / "data/elicit", workspace.folder / "data/elicit")
    n_subjects, n_adapters = (CHAT_STUDIES | BASE_STUDIES)[name]
    jobs = workspace.planned(study=name)
    assert "gpu=1" in workspace.plan
    assert jobs["behavior"] == jobs["behavior_check"] / n_subjects == 14
    # A base model is given the replies; chat models reply once, to whichever of their SAEs.
    assert jobs.get("elicit", 0) == (14 if name in CHAT_STUDIES else 0)
    assert jobs["train"] == n_subjects * 14 * (n_adapters + 1)  # and the primary adapter on the random dictionary
    assert jobs["judge"] == n_subjects * 3 * 2
    assert jobs["tokenize"] == n_subjects


def test_a_small_study_has_exactly_the_jobs_of_its_parts(workspace):
    jobs = workspace.planned()
    assert "gpu=" not in workspace.plan
    assert jobs == {
        "testbed_model": 1,
        "testbed_rows": 1,
        "behavior": 2,
        "corpus": 1,
        "dictionary": 1,
        "facts": 1,
        "truth": 1,
        "capture": 2,
        "train": 2 * 3 + 2 * 1,  # the twin trains the primary result's adapter alone
        "changes": 2 * 2,
        "placebos": 1,
        "causal_check": 2,  # twins are not checked
        "behavior_check": 1,  # the limericks have no score
        "answers_page": 1,
        "explain": 3,
        "judge": 1 + 1 + 2,
        "scored_contexts": 1,
        "score": 1,  # of the one source that the scorer names
        "agreement": 2,
        "tables": 1,
        "figures": 1,
        "pages": 1,
        "latent_pages": 1,
        "summary": 1,
        "all": 1,
    }
    assert set(re.findall(r"figures/(\w+)\.svg", workspace.plan)) == {
        "agreement",
        "agreement_grid",
        "behavior_check",
        "causal_check",
        "dose_response",
        "most_changed_latents",
        "reliability",
        "source_comparison",
        "specificity",
        "training",
    }


@pytest.mark.slow
def test_windows_are_embedded_once_for_the_several_sources_of_a_scorer_that_wants_vectors(workspace):
    sources = ["local", "truth"]
    workspace.study(scorers={"lexical": {"sources": sources}, "embedding": {"sources": sources}})
    jobs = workspace.planned()
    assert (jobs["embed_windows"], jobs["score"]) == (1, 4)
    windows = "results/small/windows/toy/embedding.parquet"
    assert windows in workspace.inputs("score", "results/small/scores/toy/local/embedding.parquet")
    assert "windows/" not in workspace.inputs("score", "results/small/scores/toy/local/lexical.parquet")
    done = workspace.snakemake("--cores", "2", "--", windows)
    assert done.returncode == 0, done.stderr
    assert "embed-windows" in {check_call(call) for call in workspace.calls()}
    # Nothing is shared by one source, by latents drawn for each source, and by a sample.
    for options in ({"sources": ["local"]}, {"sources": sources, "n_latents": 5}):
        workspace.study(scorers={"embedding": options})
        assert "embed_windows" not in workspace.planned()
    workspace.study(scorers={"embedding": {"sources": sources}}, design={"kind": "case_control"})
    assert "embed_windows" not in workspace.planned()


@pytest.mark.slow
def test_random_dictionaries_are_trained_for_the_adapters_asked_for(workspace):
    workspace.study(random_dictionary_adapters=["bias", "scale"])
    assert workspace.planned()["train"] == 2 * 3 + 2 * 2


@pytest.mark.slow
def test_placebos_are_trained_once_per_subject_and_tested_against_the_primary_adapter_alone(workspace):
    inputs = {name: workspace.inputs("agreement", f"results/small/agreement/toy/{name}") for name in ("bias", "scale")}
    assert "placebos/toy.parquet" in inputs["bias"]
    assert "placebos" not in inputs["scale"]
    workspace.study(placebos={"n": 0})
    assert "placebos" not in workspace.planned()


@pytest.mark.slow
def test_shuffled_completions_cost_one_training_of_the_primary_adapter_per_behavior(workspace):
    before = workspace.planned()
    workspace.study(controls=[*CONTROLS, "shuffled_completions"])
    after = workspace.planned()
    twins = {"shuffle": 2, "capture": 2, "train": 2, "changes": 2}
    assert {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)} == twins
    for adapter, n in (("bias", 2), ("scale", 0)):
        target = f"results/small/agreement/toy/{adapter}"
        inputs = workspace.inputs("agreement", target)
        assert inputs.count("-shuffled.parquet") == n
    assert "changes/toy-permuted/refusal-shuffled" not in workspace.plan


@pytest.mark.slow
def test_erased_directions_are_fitted_once_a_behavior_and_trained_by_the_primary_adapter_on_the_same_cache(workspace):
    before = workspace.planned()
    workspace.study(controls=[*CONTROLS, "erased_leace", "erased_random"])
    after = workspace.planned()
    twins = {"erase": 4, "train": 4, "changes": 4}
    assert {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)} == twins
    caches = ["results/small/cache/toy/limericks.safetensors", "results/small/cache/toy/refusal.safetensors"]
    assert workspace.inputs("erase", "results/small/erasures/toy/limericks-erased-leace.json").split(", ") == caches
    inputs = workspace.inputs("train", "results/small/adapters/toy/limericks-erased-leace/bias")
    assert "erasures/toy/limericks-erased-leace.safetensors" in inputs
    assert "cache/toy/limericks.safetensors" in inputs
    assert "tables/erasure.csv" in workspace.plan


@pytest.mark.slow
def test_a_random_baseline_is_made_explained_trained_and_tested_like_a_subject_and_shares_model_and_corpus(workspace):
    before = workspace.planned()
    # The twin with permuted rows goes, so that what comes is the baselines'.
    workspace.study(controls=["frozen_decoder", "untrained_dictionary"])
    after = workspace.planned()
    n = 2
    made = {"dictionary": n, "facts": n, "truth": n, "capture": 2 * n, "train": 2 * n - 2, "changes": 2 * n - 2}
    # Explanations: the true ones and the local ones, by judges of the source; none that are wrong on purpose.
    made |= {"explain": 2 * n, "judge": (1 + 2) * n, "agreement": n}
    assert {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)} == made
    twin = "results/small/subjects/toy-untrained-dictionary"
    assert workspace.inputs("dictionary", f"{twin}/sae").split(", ") == [
        "results/small/subjects/toy/model",
        "results/small/subjects/toy/corpus.safetensors",
        "results/small/subjects/toy/sae",
    ]
    frozen = workspace.inputs("dictionary", "results/small/subjects/toy-frozen-decoder/sae")
    assert "subjects/toy/sae" not in frozen
    inputs = workspace.inputs("agreement", "results/small/agreement/toy-untrained-dictionary/bias")
    assert "changes/toy-untrained-dictionary/refusal.parquet" in inputs
    assert "changes/toy/" not in inputs
    assert "tables/random_dictionaries.csv" in workspace.plan


@pytest.mark.slow
def test_a_study_with_shuffled_completions_runs_to_the_end_and_has_nothing_more_to_do(workspace):
    workspace.study(controls=[*CONTROLS, "shuffled_completions"])
    done = workspace.snakemake("--cores", "2", "--", "results/small/tables/agreement.csv")
    assert done.returncode == 0, done.stderr
    for call in workspace.calls():
        check_call(call)
    calls = [call for call in workspace.calls() if any("-shuffled" in part for part in call)]
    assert sorted(call[0] for call in calls) == sorted(["shuffle", "capture", "train", "changes"] * 2)
    assert workspace.planned("--", "results/small/tables/agreement.csv") == {}


WITHOUT_CHECKS = {"controls": ["firing_rate_only"], "causal_check": {"adapters": []}, "scorers": {}}


@pytest.mark.slow
def test_what_a_study_leaves_out_makes_no_jobs(workspace):
    workspace.study_of_hub(**WITHOUT_CHECKS)
    jobs = workspace.planned()
    assert not {"causal_check", "behavior_check", "answers_page"} & set(jobs)
    assert not {"testbed_model", "testbed_rows", "truth"} & set(jobs)
    figures = set(re.findall(r"figures/(\w+)\.svg", workspace.plan))
    assert figures == {"agreement", "agreement_grid", "most_changed_latents", "training", "reliability"}
    assert not {"scored_contexts", "score"} & set(jobs)
    assert jobs["train"] == 3
    assert jobs["changes"] == 1


@pytest.mark.slow
def test_a_sample_is_drawn_from_the_changes_for_the_sources_that_want_one_and_for_no_others(workspace):
    values = workspace.study()
    sampled = {"kind": "neuronpedia", "neuronpedia": {"source_id": "m/l"}, "design": "case_control"}
    workspace.study(sources=values["sources"] | {"np": sampled | {"judges": ["lexical"]}})
    jobs = workspace.planned("--", "results/small/explanations/toy/np.parquet")
    assert jobs["design"] == 1
    assert jobs["changes"] == 2
    assert "design/toy.parquet" in workspace.inputs("explain", "results/small/explanations/toy/np.parquet")
    assert "design" not in workspace.planned("--", "results/small/explanations/toy/local.parquet")
    assert "changes" not in workspace.planned("--", "results/small/explanations/toy/local.parquet")
    assert "design/toy.parquet" in workspace.inputs("agreement", "results/small/agreement/toy/bias")
    workspace.study(design={"kind": "case_control"})
    assert workspace.planned()["design"] == 1


@pytest.mark.slow
def test_a_steering_check_is_one_job_for_each_subject_and_reads_what_verdicts_are_made_of(workspace):
    values = workspace.study()
    source = values["primary"] | {"source": "local", "judge": "lexical"}
    workspace.study(steering_check={"n_latents": 2}, primary=source)
    assert workspace.planned()["steering_check"] == 1
    target = "results/small/steering_check/toy/scores.parquet"
    inputs = workspace.inputs("steering_check", target)
    for part in (
        "changes/toy/refusal",
        "changes/toy/limericks",
        "explanations/toy/local",
        "judgements/toy/local/lexical",
    ):
        assert part in inputs
    assert "behaviors/limericks/heldout.jsonl" in inputs
    assert target in workspace.inputs("tables", "results/small/tables/steering_summary.csv")
    assert workspace.inputs("figures", "results/small/figures/steering_check.svg").count("steering_latents.csv") == 1
    workspace.write("prompts.txt", "Say a.\nSay b.\n")
    workspace.study(steering_check={"prompts": "prompts.txt"}, primary=source)
    inputs = workspace.inputs("steering_check", target)
    assert "prompts.txt" in inputs
    assert "heldout.jsonl" not in inputs


@pytest.mark.slow
def test_maps_are_read_once_for_each_behavior_and_only_where_a_study_asks_for_it(workspace):
    values = workspace.study()
    assert "map_components" not in workspace.planned()
    adapters = {"adapters": values["adapters"] | {"low_rank": {}}}
    workspace.study(map_components={"adapters": ["low_rank"]}, **adapters)
    assert workspace.planned()["map_components"] == 2
    target = "results/small/maps/toy/refusal/components.parquet"
    inputs = workspace.inputs("map_components", target)
    assert "adapters/toy/refusal/low_rank" in inputs
    assert "adapters/toy/refusal/bias" not in inputs
    assert target in workspace.inputs("tables", "results/small/tables/map_components.csv")
    assert workspace.inputs("figures", "results/small/figures/map_components.svg").count("map_components.csv") == 1


@pytest.mark.slow
def test_latents_are_composed_once_for_each_subject_and_only_where_a_study_asks_for_it(workspace):
    workspace.study()
    assert "meta_sae" not in workspace.planned()
    workspace.study(meta_sae={})
    assert workspace.planned()["meta_sae"] == 1
    target = "results/small/subjects/toy/composition.parquet"
    assert "subjects/toy/sae" in workspace.inputs("meta_sae", target)
    assert target in workspace.inputs("tables", "results/small/tables/latent_composition.csv")


@pytest.mark.slow
def test_curves_are_taken_of_the_behaviors_that_a_study_names_and_only_then(workspace):
    workspace.study(loss_curves={"behaviors": ["refusal"], "ks": [1]})
    assert workspace.planned()["loss_curves"] == 1
    target = "results/small/loss_curves/toy/refusal.parquet"
    assert "adapters/" not in workspace.inputs("loss_curves", target)
    assert target in workspace.inputs("tables", "results/small/tables/loss_curves.csv")
    workspace.study()
    assert "loss_curves" not in workspace.planned()


@pytest.mark.slow
def test_noise_is_a_job_of_each_behavior_that_is_scored_and_only_where_a_study_asks_for_it(workspace):
    workspace.study()
    assert "noise_probe" not in workspace.planned()
    workspace.study(noise_probe={"behaviors": ["refusal"]})
    assert workspace.planned()["noise_probe"] == 1
    target = "results/small/noise_probe/toy/refusal.parquet"
    inputs = workspace.inputs("noise_probe", target)
    assert "adapters/toy/refusal/bias" in inputs
    assert "adapters/toy/refusal/lora" not in inputs
    assert target in workspace.inputs("tables", "results/small/tables/noise_probe.csv")
    assert workspace.inputs("figures", "results/small/figures/noise_probe.svg").count("noise_probe.csv") == 1


@pytest.mark.slow
def test_records_that_a_model_cannot_read_stop_a_study_before_its_long_jobs(workspace):
    untrained = {"model": "a/b", "corpus": {"sample": True}, "train_sae": {}, "hook_name": "blocks.1.x"}
    workspace.study_of_hub(untrained, **WITHOUT_CHECKS)
    workspace.write("fail.txt", "tokenize")
    assert workspace.snakemake("--cores", "1").returncode != 0
    verbs = [check_call(call) for call in workspace.calls()]
    assert verbs[-1] == "tokenize"
    assert not {"corpus", "dictionary", "facts"} & set(verbs)


@pytest.mark.slow
def test_every_call_is_one_that_the_command_line_understands(finished):
    verbs = set()
    for call in finished.calls():
        verbs.add(check_call(call))
    elsewhere = {"split", "power", "design", "cost", "calibrate", "calibration-part", "calibration", "audit", "shuffle"}
    elsewhere |= {
        "new",
        "doctor",
        "gguf-model",
        "labels",
        "publish",
        "leaderboard",
        "benchmark",
        "elicit",
        "embed-windows",
        "erase",
        "map-components",
        "meta-sae",
        "loss-curves",
        "noise-probe",
        "steer",
        "steering-check",
        "tokenize",
        "annotation-sheet",
        "read-annotations",
        "verify",
        "changes-over-time",
    }
    assert verbs == set(VERBS) - elsewhere


@pytest.mark.slow
def test_only_a_study_that_may_use_a_gpu_asks_for_one(workspace):
    workspace.study(device="auto")
    plan = workspace.snakemake("--dry-run").stdout
    jobs = dict(re.findall(r"^ *(?:local)?rule (\w+):\n.*?resources: (.*?)$", plan, flags=re.MULTILINE | re.DOTALL))
    on_gpu = {name for name, resources in jobs.items() if "gpu=1" in resources}
    assert on_gpu == {
        "testbed_model",
        "corpus",
        "dictionary",
        "facts",
        "truth",
        "capture",
        "train",
        "changes",
        "placebos",
        "causal_check",
        "behavior_check",
        "scored_contexts",
    }


@pytest.mark.slow
def test_a_failing_verb_tells_why_on_the_terminal(workspace):
    workspace.write("fail.txt", "testbed-model")
    done = workspace.snakemake("--cores", "2", "--", "results/small/subjects/toy/model")
    assert done.returncode != 0
    assert "isaerft testbed-model: error: the test told it to fail" in done.stderr + done.stdout


@pytest.mark.slow
def test_success_says_what_to_read_and_the_report_has_every_figure_and_table(finished):
    done = finished.snakemake("--report", "report.html")
    assert done.returncode == 0, done.stderr
    html = (finished.folder / "report.html").read_text(encoding="utf-8")
    for text in ("Summary", "Figures", "Tables", "dose_response.svg", "agreement.csv", "agreement.html"):
        assert text in html
    assert "interquartile" in html  # from the caption of the dose-response figure
    assert "Read results/small/summary.html first" in finished.log


@pytest.mark.slow
def test_a_study_of_a_hundred_behaviors_is_a_config_file(workspace):
    behavior = {"description": "d", "path": "data/limericks.jsonl"}
    workspace.study(behaviors={f"b{i}": behavior for i in range(100)})
    assert workspace.planned("--quiet", "rules")["train"] == 100 * 4


@pytest.mark.slow
def test_a_baseline_waits_for_the_text_that_it_is_fitted_against(workspace):
    values = workspace.study()
    workspace.study(adapters=values["adapters"] | {"probe": {}})
    inputs = workspace.inputs("train", "results/small/adapters/toy/refusal/probe")
    assert "cache/toy/limericks.safetensors" in inputs
    inputs = workspace.inputs("train", "results/small/adapters/toy/refusal/bias")
    assert "limericks" not in inputs


@pytest.mark.slow
def test_a_checkpoints_files_are_an_input_of_its_analysis(workspace):
    values = workspace.study()
    workspace.write("tuned/refusal/config.json", "{}")
    path = {"options": {"path": "tuned/{behavior}"}}
    workspace.study(adapters=values["adapters"] | {"checkpoint": path})
    assert "tuned/refusal/config.json" in workspace.inputs("train", "results/small/adapters/toy/refusal/checkpoint")


@pytest.mark.slow
def test_the_calibration_study_is_a_target_of_its_own_and_runs_part_by_part(workspace):
    workspace.write(
        "config/calibration.yaml",
        "worlds: [plain]\npower_latents: [100]\ncoverage_odds_ratios: [2]\n"
        "wrong_shares: [0.1]\njudged_explanations: [50]\n",
    )
    jobs = workspace.planned("calibration")
    assert jobs == {
        "calibration_part": 8,
        "calibration": 1,
    }
    assert not {"calibration_part", "calibration"} & set(workspace.planned())


@pytest.mark.slow
def test_the_calibration_study_ends_in_its_table(workspace):
    """With the real command line, as small as can be."""
    text = "worlds: [plain]\nnull_latents: [50]\npower_latents: [50]\ncoverage_odds_ratios: [2]\ncoverage_latents: 50\n"
    text += "n_resamples: 99\nnull_worlds: 2\npower_worlds: 2\ncoverage_worlds: 2\nodds_ratios: [2]\n"
    workspace.write("config/calibration.yaml", text)
    done = workspace.snakemake("--cores", "2", "calibration", real=True)
    assert done.returncode == 0, done.stderr
    table = TABLES["calibration"].read(workspace.folder / "results/calibration/tables/calibration.csv")
    assert set(table.quantity) == {
        "false_positive_rate",
        "auroc_of_firing_rate",
        "power",
        "coverage",
        "wrong_explanations_auroc",
        "wrong_called_contradicted",
        "right_called_contradicted",
        "any_wrong_supported",
        "supported_fdr",
        "audit_any_found",
        "audit_coverage",
        "audit_false_positive_rate",
        "right_supported",
        "contradicted_fdr",
        "wrong_contradicted",
        "right_contradicted",
    }
    assert (workspace.folder / "results/calibration/figures/calibration.svg").stat().st_size > 5000
    page = (workspace.folder / "results/calibration/pages/calibration.html").read_text(encoding="utf-8")
    assert "false_positive_rate" in page
    again = workspace.planned("calibration")
    assert again == {}
    workspace.write("config/calibration.yaml", text.replace("[2]\ncoverage_latents", "[2, 3]\ncoverage_latents"))
    assert workspace.planned("calibration")["calibration_part"] == 2  # the new parts alone


def audited(workspace):
    """Write a study whose refusals are audited against a set with planted limericks, made by the testbed."""
    values = workspace.study()
    donor = {"description": "The assistant jokes.", "testbed": "humor"}
    suspect = values["behaviors"]["refusal"] | {"testbed_draw": 1, "poison": {"behavior": "humor", "share": 0.1}}
    return workspace.study(
        behaviors=values["behaviors"] | {"humor": donor, "suspect": suspect},
        audits={"vendor": {"clean": "refusal", "suspect": "suspect"}},
        n_seeds=4,
    )


@pytest.mark.slow
def test_an_audit_trains_the_suspect_set_too_but_tests_it_against_no_explanations(workspace):
    audited(workspace)
    jobs = workspace.planned()
    assert jobs["behavior"] == jobs["capture"] == 4
    assert jobs["train"] == 4 * 3 + 3 * 1  # the twin leaves the suspect set out
    assert jobs["changes"] == 4 + 3
    assert jobs["audit"] == 1
    for table in ("audit", "audit_latents", "calibration"):
        assert f"results/small/pages/{table}.html" in workspace.plan
    inputs = workspace.inputs("agreement", "results/small/agreement/toy/bias")
    assert "changes/toy/humor.parquet" in inputs
    assert "suspect" not in inputs
    assert "changes/toy/suspect.parquet" in workspace.inputs("audit", "results/small/audit/toy/audit.parquet")


@pytest.mark.slow
def test_planted_rows_come_from_the_donors_finished_records(workspace):
    audited(workspace)
    target = "results/small/behaviors/suspect/card.json"
    assert workspace.planned("--", target)["behavior"] == 2
    assert "behaviors/humor/train.jsonl" in workspace.inputs("behavior", target)
    assert "humor" not in workspace.inputs("behavior", "results/small/behaviors/refusal/card.json")


@pytest.mark.slow
def test_a_study_of_real_data_audits_without_a_calibration(workspace):
    audits = {"vendor": {"clean": "refusal", "suspect": "limericks"}}
    workspace.study(audits=audits, controls=["firing_rate_only"], n_seeds=4)
    jobs = workspace.planned()
    assert jobs["audit"] == 1
    assert "pages/audit.html" in workspace.plan
    assert "pages/calibration.html" in workspace.plan  # of the known wrong explanations
    assert "pages/explanation_verdicts.html" not in workspace.plan  # one behavior is left to test


@pytest.mark.slow
def test_the_audits_of_a_study_run_to_the_end(workspace):
    audited(workspace)
    done = workspace.snakemake("--cores", "2", "--", "results/small/tables/audit.csv")
    assert done.returncode == 0, done.stderr
    for call in workspace.calls():
        check_call(call)
    assert any(call[0] == "audit" for call in workspace.calls())
