"""`isaerft new` writes a config that is checked, says what it understood, and never overwrites."""

import contextlib
import json

import pytest
import yaml

from isaerft.cli.app import run_here
from isaerft.config import CONTROLS, load_plan
from isaerft.errors import InputError
from isaerft.setup.new import write_config
from isaerft.setup.wanted import Wanted

PAIRS = [{"question": f"Who is number {i}?", "answer": f"Number {i} is a kind person."} for i in range(60)]
RHYMES = [{"prompt": f"Rhyme on {i}.", "completion": f"{i} is nice, {i} is ice."} for i in range(30)]


@pytest.fixture
def folder(tmp_path, tiny, tokenizer, model_of):
    """A folder with a tiny model, an SAE and data, in which the test runs."""
    model_of("llama").save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    tiny.write_sae(tmp_path / "sae", tiny.random_sae())
    (tmp_path / "kind.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    (tmp_path / "rhymes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in RHYMES))
    long = [{"prompt": f"Tell {i}.", "completion": "A long story. " * 99} for i in range(24)]
    (tmp_path / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in long))
    with contextlib.chdir(tmp_path):
        yield tmp_path


def wanted(**changes):
    values = {"name": "mine", "model": "model", "sae_path": "sae"}
    values["behaviors"] = {"kindness": "kind.jsonl", "rhymes": "rhymes.jsonl"}
    return Wanted(**values | changes)


def test_the_config_is_the_study_that_was_asked_for_with_the_controls_of_the_design(folder):
    described = {"kindness": "The assistant is kind: it says good things of people."}
    written = write_config(wanted(descriptions=described))
    study = load_plan(folder / "config/mine.yaml").study
    assert written.plan.study == study
    assert study.study == "mine"
    assert study.behaviors["kindness"].description == described["kindness"]
    assert study.behaviors["kindness"].columns == {"prompt": "question", "completion": "answer"}
    assert set(study.controls) == set(CONTROLS)
    assert study.placebos.n == 9
    assert {"mean_difference", "logit_lens", "lora"} < set(study.adapters)
    subject = study.subjects["model"]
    assert (subject.model, subject.sae_path, subject.corpus.sample) == ("model", "sae", True)
    assert max(study.max_length, subject.corpus.context_size) <= 64, "the model's positions"
    assert study.primary.source == "local_input"


def test_what_was_understood_and_what_is_missing_is_said(folder):
    said = "\n".join(write_config(wanted()).said)
    assert "kindness: kind.jsonl: prompt is `question`, reply is `answer`; 60 of the 60 rows can be used" in said
    assert "behavior kindness: no --describe" in said
    assert "explanations: none of another maker" in said
    text = (folder / "config/mine.yaml").read_text(encoding="utf-8")
    assert "# Say in a sentence or two what the replies do" in text


def test_an_existing_config_is_never_overwritten(folder):
    write_config(wanted())
    before = (folder / "config/mine.yaml").read_bytes()
    with pytest.raises(InputError, match=r"mine\.yaml exists"):
        write_config(wanted(size="quick"))
    assert (folder / "config/mine.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "../mine"}, "study name"),
        ({"behaviors": {}}, "a study without a behavior"),
        ({"behaviors": {"kindness": "kimd.jsonl"}}, "'kimd.jsonl' does not exist"),
        ({"descriptions": {"kindnes": "x"}}, "unknown behavior in --describe 'kindnes'.*did you mean 'kindness'"),
        ({"sae_path": "sea"}, "sae_path 'sea' does not exist"),
        ({"sae_path": None}, "names 0 SAEs"),
        ({"sae_path": None, "release": "gpt2-small-res-jb", "sae_id": "blocks.88"}, "unknown sae_id"),
        ({"sae_path": None, "release": "gpt2-small-res-jp", "sae_id": "x"}, "did you mean 'gpt2-small-res-jb'"),
        ({"explanations": "none.csv"}, "'none.csv' do not exist"),
        ({"explanations": "neuronpedia"}, "no source at Neuronpedia is known"),
        ({"corpus": "no.txt"}, "corpus 'no.txt' does not exist"),
        ({"device": "gpu"}, "device"),
        ({"behaviors": {"long": "long.jsonl"}}, "24 replies are too long for 64 tokens"),
        ({"model": "no.gguf"}, "GGUF file 'no.gguf' does not exist"),
    ],
)
def test_what_cannot_be_a_study_is_refused_and_nothing_is_written(folder, changes, message):
    with pytest.raises(InputError, match=message):
        write_config(wanted(**changes))
    assert not list(folder.glob("config/*")), "no config"


def test_replies_that_would_not_fit_are_left_out_and_counted(folder):
    rows = [*PAIRS, {"question": "And now?", "answer": "A long story. " * 200}]
    (folder / "kind.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    written = write_config(wanted())
    assert written.plan.study.behaviors["kindness"].max_completion_characters < 2800
    assert any("1 replies of 2,800 characters or more" in line for line in written.said)


def test_texts_of_hostile_users_stay_text(folder):
    hostile = 'x"\n# y\nstudy: other\n{{ z }} \x1b[31m: - [a'
    written = write_config(wanted(descriptions={"kindness": hostile}))
    assert written.plan.study.behaviors["kindness"].description == hostile
    assert yaml.safe_load((folder / "config/mine.yaml").read_text())["study"] == "mine"


def test_a_pretrained_sae_of_gpt2_has_its_explanations_and_its_centered_weights(folder):
    written = write_config(
        wanted(
            model="openai-community/gpt2", sae_path=None, release="gpt2-small-res-jb", sae_id="blocks.8.hook_resid_pre"
        )
    )
    study = written.plan.study
    assert study.subjects["gpt2"].center_writing_weights is True
    assert study.primary.source == "neuronpedia"
    assert study.subjects["gpt2"].corpus.dataset == "NeelNanda/pile-10k"


def test_an_sae_that_is_trained_a_language_model_and_a_file_of_explanations_are_options(folder):
    (folder / "said.csv").write_text("latent_index,explanation\n0,a\n")
    written = write_config(
        wanted(
            size="quick",
            sae_path=None,
            train_sae="blocks.1.hook_resid_post",
            explanations="said.csv",
            llm="m",
            llm_url="http://x/v1",
        )
    )
    study = written.plan.study
    assert study.subjects["model"].train_sae.d_sae == 8 * 32
    assert (study.primary.source, study.primary.judge) == ("labels", "llm")
    assert study.llms["judge"].base_url == "http://x/v1"
    assert study.subjects["model"].amplified_rows == 2, "a first look"
    assert study.sources["local_input"].judges, "the language model reads the primary source alone"


def test_one_behavior_leaves_out_the_controls_that_need_others_and_says_so(folder):
    written = write_config(wanted(behaviors={"kindness": "kind.jsonl"}))
    assert "mismatched_behavior" not in written.plan.study.controls
    assert "random_dictionary" in written.plan.study.controls
    assert any("one behavior" in line for line in written.said)


def test_the_command_names_a_behavior_after_its_file_and_says_the_cost(folder, capsys):
    arguments = ["new", "mine", "--model", "model", "--sae-path", "sae", "--behavior", "kind.jsonl"]
    more = ["--behavior", "rhymes=rhymes.jsonl", "--describe", "rhymes=It rhymes.", "--size", "quick"]
    assert run_here([*arguments, *more]) == 0
    out = capsys.readouterr().out
    assert "cost, time: " in out
    assert "cost, disk: " in out
    assert "warning  design: 2 behaviors" in out
    study = load_plan("config/mine.yaml").study
    assert set(study.behaviors) == {"kind", "rhymes"}
    assert study.behaviors["rhymes"].description == "It rhymes."
    assert run_here([*arguments, "--columns", "kind"]) == 2
    assert "--columns 'kind'; allowed: BEHAVIOR:KEY=VALUE" in capsys.readouterr().err
