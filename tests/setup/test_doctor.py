"""`isaerft doctor` finds what is wrong, says what to do, and tells no secret."""

import contextlib
import json
import time

import pytest
import yaml

from isaerft.cli.app import run_here
from isaerft.setup import doctor, machine
from isaerft.setup.machine import Finding, Torch

CPU = Torch(["cpu"], "PyTorch 2: no GPU", True, None)
STUDY = yaml.safe_load("""
study: mine
subjects: {m: {model: model, sae_path: sae, corpus: {sample: true, context_size: 32}}}
behaviors:
  kind: {description: It is kind., path: kind.jsonl}
adapters: {bias: {}}
sources: {local: {}}
judges: {lexical: {}}
primary: {adapter: bias, measure: contribution, source: local, judge: lexical}
controls: [shuffled_explanations]
max_length: 64
""")


@pytest.fixture
def folder(tmp_path, tiny, tokenizer, model_of, monkeypatch):
    model_of("gpt2").config.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    tiny.write_sae(tmp_path / "sae", tiny.random_sae())
    rows = [{"prompt": f"p{i}", "completion": f"c{i}"} for i in range(30)]
    (tmp_path / "kind.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(machine, "torch_here", lambda: CPU)
    with contextlib.chdir(tmp_path):
        yield tmp_path


def findings(**changes):
    values = STUDY | changes
    with open("mine.yaml", "w", encoding="utf-8") as stream:
        yaml.safe_dump(values, stream)
    return list(doctor.examine("mine.yaml"))


def faults(found):
    return [(one.what, one.text) for one in found if one.level == "fault"]


def with_subject(**changes):
    return {"subjects": {"m": STUDY["subjects"]["m"] | changes}}


def test_a_study_that_can_run_has_no_fault_and_every_other_line_says_what_to_do(folder):
    found = findings()
    assert faults(found) == []
    assert all(one.remedy for one in found if one.level != "OK")
    assert {"config", "packages", "device", "hub", "HF_TOKEN", "subject m", "disk", "worker", "SLURM"} <= {
        one.what for one in found
    }


@pytest.mark.parametrize(
    ("changes", "what", "text"),
    [
        ({"max_lenght": 3}, "config", "max_length"),
        ({"max_length": 128}, "subject m", "64 positions, but max_length 128"),
        ({"device": "cuda"}, "device", "the study wants 'cuda'"),
        (with_subject(model="nobody/none"), "hub", "the study needs nobody/none"),
        (with_subject(sae_path=None, release="gpt2-small-res-jb", sae_id="blocks.8"), "subject m", "unknown sae_id"),
        ({"behaviors": {"kind": {"description": "d", "path": "kind.jsonl", "columns": {"completion": "reply"}}}},
         "behavior kind", "unknown column"),
    ],
)  # fmt: skip
def test_what_would_stop_a_study_is_a_fault(folder, changes, what, text):
    found = faults(findings(**changes))
    assert [(name, text in said) for name, said in found if name == what] == [(what, True)]


def test_an_sae_of_another_model_is_a_fault(folder, tiny):
    tiny.write_sae(folder / "wide", tiny.random_sae(d_in=40))
    tiny.write_sae(folder / "high", tiny.random_sae(), hook_name="blocks.7.hook_resid_post")
    assert "reads 40 dimensions, the model has 32" in faults(findings(**with_subject(sae_path="wide")))[0][1]
    assert "the model has 3 blocks" in faults(findings(**with_subject(sae_path="high")))[0][1]


def test_a_tokenizer_without_bos_is_a_fault_unless_texts_begin_without(folder):
    (folder / "model/tokenizer_config.json").write_text('{"bos_token": null}')
    assert "no BOS token" in faults(findings())[0][1]
    assert faults(findings(**with_subject(prepend_bos=False))) == []


def test_too_little_disk_or_memory_is_said(folder, monkeypatch):
    usage = machine.shutil.disk_usage(".")
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    monkeypatch.setattr(machine, "free_memory", lambda: 1000)
    found = dict(faults(findings()))
    assert "1 kB free" in found["disk"]
    assert "of memory are free" in found["subject m"]


def test_tokens_are_present_or_not_and_never_shown(folder, monkeypatch):
    secrets = {"HF_TOKEN": "hf_verysecret", "NEURONPEDIA_API_KEY": "np-verysecret", "MY_KEY": "sk-verysecret"}
    llms = {"llms": {"big": {"model": "x", "api_key_env": "MY_KEY"}}}
    monkeypatch.delenv("MY_KEY", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    before = {one.what: one for one in findings(**llms)}
    assert before["MY_KEY"].level == "warning"
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    after = findings(**llms, sources={"local": {}, "neuronpedia": {"neuronpedia": {"source_id": "m/l"}}})
    assert {one.what: one.text[:7] for one in after if one.what in secrets} == dict.fromkeys(secrets, "present")
    assert "verysecret" not in "\n".join(map(str, after))


def test_a_hub_that_does_not_answer_is_given_up_and_is_a_fault_only_where_it_is_needed(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setattr(machine, "HUB_SECONDS", 0.3)
    monkeypatch.setattr("httpx2.head", lambda *_, **__: time.sleep(60))
    start = time.monotonic()
    assert machine.hub(needed=[]).level == "warning"
    assert machine.hub(needed=["a/b"]).level == "fault"
    assert time.monotonic() - start < 5


def test_packages_are_compared_with_bounds_and_lock(tmp_path, monkeypatch):
    (tmp_path / "requirements.lock").write_text("numpy==0.0.1 \\\n    --hash=sha256:x\n")
    (found,) = machine.packages(tmp_path)
    assert (found.level, "numpy" in found.text) == ("warning", True)
    needed = ["numpy>=99", "no-such-package>=1", "pandas>=1", 'other>=1; extra == "docs"']
    monkeypatch.setattr(machine.importlib.metadata, "requires", lambda _: needed)
    (found,) = machine.packages(tmp_path)
    assert found.level == "fault"
    assert "missing: no-such-package>=1" in found.text
    assert "numpy" in found.text
    assert "other" not in found.text


def test_torch_that_cannot_be_loaded_or_hangs_is_one_line(monkeypatch):
    monkeypatch.setattr(machine, "PROBE", "raise ImportError('libcudart is missing')")
    found = machine.torch_here()
    assert found.level == "fault"
    assert "libcudart is missing" in found.text
    monkeypatch.setattr(machine, "PROBE", "import time; time.sleep(60)")
    monkeypatch.setattr(machine, "PROBE_SECONDS", 0.5)
    assert machine.torch_here().level == "warning"


@pytest.mark.slow
def test_what_torch_sees_here_is_told():
    found = machine.torch_here()
    assert isinstance(found, Torch)
    assert found.devices[0] == "cpu"


def test_the_exit_status_is_that_of_the_worst(folder, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "examine", lambda _: iter([Finding("warning", "a", "b", "c")]))
    assert run_here(["doctor"]) == 0
    monkeypatch.setattr(doctor, "examine", lambda _: iter([Finding("fault", "a", "b", "c")]))
    assert run_here(["doctor"]) == 1
    assert "fault    a: b; c" in capsys.readouterr().out
