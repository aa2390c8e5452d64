"""A study from a notebook: the same tables as the workflow's, and what a reader of the notebook sees."""

import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import torch
import yaml

import isaerft
from isaerft.errors import InputError
from isaerft.notebook.run import named_files, run_steps
from tests.workflow.conftest import ROOT

SIZE = {"steps": 4, "evaluate_every": 2, "batch_size": 4}
SETTINGS = {
    "corpus": {"sample": True, "tokens": 3000, "context_size": 32},
    "subject": {"min_variance_explained": -100, "max_loss_increase": 1000},
    "n_seeds": 2,
    "max_length": 48,
    "device": "cpu",
    "placebos": {"n": 1},
    "measures": ["parameter", "contribution"],
    "agreement": {"n_resamples": 99, "n_bins": 2, "top_k": 5},
    "causal_check": {"ks": [5], "n_draws": 2},
}
WORDS = {"greeting": "hello", "asking": "please"}


def rows(word):
    return pd.DataFrame(
        {"prompt": [f"say {n} to" for n in range(24)], "completion": [f"{word} {n}" for n in range(24)]}
    )


BEHAVIORS = {name: {"description": f"The assistant says {word}.", "rows": rows(word)} for name, word in WORDS.items()}


@pytest.fixture(scope="module")
def given(model_of, tokenizer, tiny, tmp_path_factory):
    sae = tiny.write_sae(tmp_path_factory.mktemp("given") / "sae", tiny.random_sae(), dtype="float32", device="cpu")
    said = [f"it says {word}" for word in ("hello", "please", "cat")]
    explanations = pd.DataFrame({"latent_index": range(48), "explanation": said * 16})
    return {"model": model_of("llama"), "tokenizer": tokenizer, "sae": sae, "explanations": explanations}


@pytest.fixture(scope="module")
def study(given, tmp_path_factory):
    before = torch.get_num_threads(), torch.random.get_rng_state()
    study = isaerft.validate(
        **given,
        behaviors=BEHAVIORS,
        adapters={"bias": SIZE},
        folder=tmp_path_factory.mktemp("study") / "own",
        **SETTINGS,
    )
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.random.get_rng_state(), before[1])
    return study


@pytest.mark.slow
def test_its_tables_are_the_workflows_byte_for_byte(study, tmp_path):
    for part in ("workflow", "profiles", "environment.yml"):
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, tmp_path / part)
    environment = os.environ | {
        "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", str(study.folder / "study.yaml")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    made = tmp_path / "results" / study.plan.study.study
    for folder in ("tables", "figures", "pages", "latents"):
        here, there = study.results.root / folder, made / folder
        names = sorted(path.name for path in there.iterdir() if path.name != ".snakemake_timestamp")
        assert names == sorted(path.name for path in here.iterdir())
        assert len(names) > 3
        for name in names:
            assert (here / name).read_bytes() == (there / name).read_bytes(), name


@pytest.mark.slow
def test_tables_figures_verdicts_and_latents_are_there_to_look_at(study):
    assert {"agreement", "specificity", "explanation_verdicts"} <= set(study.tables)
    assert set(study.tables["agreement"].behavior) == set(WORDS)
    assert set(study.verdicts.latent_index) <= set(range(48))
    assert study.figures["agreement"]._repr_html_().startswith('<img src="data:image/svg+xml;base64,')
    assert study.figures._repr_html_().count("<details>") == len(study.figures)
    assert "<dt><b>overall</b></dt>" in study.tables._repr_html_()
    assert "overall: " in repr(study.tables)
    shown = study._repr_html_()
    assert "sandbox" in shown
    assert len(shown) < 100_000, "the first part of the summary, without its figures"
    assert "whose explanations speak of it" in shown
    assert repr(study).startswith("Study own\nmodel: ")
    assert str(study.folder) not in repr(study) + shown
    latent = study.latent(7)
    assert latent.explanations.explanation.tolist() == ["it says please"]
    assert len(latent.changes) == 2 * 2, "two behaviors, two measures"
    assert set(latent.changes.n_seeds) == {2}
    assert "it says please" in latent._repr_html_()
    address, _, fragment = latent.page.partition("#")
    assert address == study.results.latent_page.as_uri()
    assert fragment == "model/7"
    assert study.results.latent_page.is_file()
    assert latent.page in latent._repr_html_()
    with pytest.raises(InputError, match=r"latent 48; allowed: 0 to 47"):
        study.latent(48)
    with pytest.raises(InputError, match=r"table 'agrement'.*did you mean 'agreement'"):
        study.tables["agrement"]


@pytest.mark.slow
def test_a_finished_study_is_opened_from_its_folder_or_its_config(study, tmp_path):
    for opened in (
        isaerft.open_study(study.folder),
        isaerft.open_study(study.folder / "study.yaml", results=study.results.root),
    ):
        assert opened.folder == study.folder
        pd.testing.assert_frame_equal(opened.verdicts, study.verdicts)
    with pytest.raises(InputError, match="no finished study in"):
        isaerft.open_study(study.folder / "study.yaml", results=tmp_path)


@pytest.mark.slow
def test_a_run_leaves_no_bar_of_its_own_or_of_a_library(study, capsys):
    import datasets
    from transformers.utils import logging as bars

    shutil.copytree(study.folder, again := study.folder.parent / "again")
    (again / "finished.json").unlink()
    run_steps(again)
    printed = capsys.readouterr()
    last = printed.err.split("\r")[-1]
    assert not last.strip(), "the study's own bar is taken away"
    assert "Loading weights" not in printed.err
    assert not [line for line in printed.err.splitlines() if "%|" in line and "step" not in line]
    assert printed.out == ""
    assert bars.is_progress_bar_enabled()
    assert not datasets.are_progress_bars_disabled()


@pytest.mark.slow
def test_a_finished_study_runs_nothing_again_and_a_changed_one_everything(study, tmp_path):
    copy = study.to_dir(tmp_path / "copy")
    with pytest.raises(InputError, match="is there already"):
        study.to_dir(copy)
    text = (copy / "study.yaml").read_text(encoding="utf-8").replace(str(study.folder), str(copy))
    (copy / "study.yaml").write_text(text, encoding="utf-8")
    agreement = copy / "results/tables/agreement.csv"
    run_steps(copy)
    first = agreement.stat().st_mtime_ns
    assert agreement.read_bytes() == (study.results.root / "tables/agreement.csv").read_bytes()
    run_steps(copy)
    assert agreement.stat().st_mtime_ns == first
    with open(copy / "study.yaml", "a", encoding="utf-8") as file:
        file.write("tracking: {trackers: [wandb]}\n")
    run_steps(copy)
    assert agreement.stat().st_mtime_ns == first
    explanations = copy / "inputs/explanations.jsonl"
    explanations.write_text(explanations.read_text(encoding="utf-8").replace("hello", "cat"), encoding="utf-8")
    run_steps(copy)
    assert agreement.stat().st_mtime_ns > first


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tokenizer": None}, "a model without a tokenizer"),
        ({"sae": 3}, "SAE 'int'; allowed: an SAE of sae_lens"),
        ({"judge": "lexicl"}, "did you mean 'lexical'"),
        ({"behaviors": {"a/b": BEHAVIORS["asking"]}}, "behavior name 'a/b'"),
        ({"behaviors": {"a": {"description": "x", "rows": []}}}, "behavior 'a': no rows"),
        ({"explanations": pd.DataFrame()}, "explanations: no rows"),
        ({"study": "mine"}, "option 'study' is made from the other arguments"),
        ({"n_seed": 3}, "n_seeds"),
    ],
)
def test_what_is_not_allowed_is_refused_before_anything_runs(given, tmp_path, changed, message):
    with pytest.raises(InputError, match=message):
        isaerft.validate(**given | {"behaviors": BEHAVIORS} | changed, folder=tmp_path / "new")
    assert not (tmp_path / "new/study.yaml").exists()


def test_a_folder_with_other_files_is_left_alone(given, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="holds other files"):
        isaerft.validate(**given, behaviors=BEHAVIORS, folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_paths_and_ids_become_options_of_the_subject(monkeypatch, tmp_path, tiny):
    monkeypatch.setattr("isaerft.notebook.run.run_steps", lambda folder: None)
    sae = tiny.write_sae(tmp_path / "sae", tiny.random_sae())
    local = {"explanations": {"kind": "local"}, "behaviors": BEHAVIORS, "corpus": ["one text", "another"]}
    study = isaerft.validate("some/model", sae=("a-release", "an-id"), **local)
    options = yaml.safe_load((study.folder / "study.yaml").read_text(encoding="utf-8"))["subjects"]["model"]
    assert options["model"] == "some/model"
    assert (options["release"], options["sae_id"]) == ("a-release", "an-id")
    assert (study.folder / "inputs/corpus.jsonl").read_text(encoding="utf-8").count("\n") == 2
    study = isaerft.validate("some/model", sae=os.path.relpath(sae), **local)
    options = yaml.safe_load((study.folder / "study.yaml").read_text(encoding="utf-8"))["subjects"]["model"]
    assert options["sae_path"] == str(sae)


def test_files_are_found_among_the_options_by_relative_names_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train").mkdir()
    (tmp_path / "rows.jsonl").write_text("{}\n", encoding="utf-8")
    options = {"path": "rows.jsonl", "split": "train", "model": str(tmp_path / "train"), "description": "a\0b", "n": 3}
    found = [str(path) for path in named_files({"behaviors": {"a": options}})]
    assert found == ["rows.jsonl", str(tmp_path / "train")]


def test_an_sae_in_training_is_written_as_it_is_used(given, monkeypatch, tiny):
    monkeypatch.setattr("isaerft.notebook.run.run_steps", lambda folder: None)

    class InTraining:
        def save_model(self, folder):
            raise AssertionError("a checkpoint")

        def save_inference_model(self, folder):
            tiny.write_sae(folder, tiny.random_sae())

    study = isaerft.validate(**given | {"sae": InTraining()}, behaviors=BEHAVIORS)
    assert (study.folder / "inputs/sae/cfg.json").is_file()
