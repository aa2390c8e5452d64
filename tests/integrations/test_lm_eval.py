"""lm-evaluation-harness sees the adapted model: as it was where an adapter changes nothing, and else what it does."""

import copy
import json
import os
import subprocess
import sys

import pytest
import torch
import yaml

import isaerft
from isaerft.adapters.base import make_adapter
from isaerft.adapters.export import peft_files
from isaerft.adapters.saved import load_model_adapter, save_adapter
from isaerft.adapters.weights import Lora
from isaerft.errors import InputError

lm_eval = pytest.importorskip("lm_eval", reason="lm_eval is not installed: pip install 'isaerft[lm-eval]'")
pytestmark = pytest.mark.slow

QUESTIONS = [
    {"question": "say hello to the", "choices": [" cat", " dog", " world"], "answer": 0},
    {"question": "please tell me about the", "choices": [" garden", " weather", " story"], "answer": 1},
    {"question": "the user asks for a", "choices": [" story", " kindly", " round"], "answer": 0},
    {"question": "hello hello world , the world is", "choices": [" round", " me", " asks"], "answer": 2},
]


def stir(parameters, size):
    with torch.no_grad():
        for number, parameter in enumerate(parameters):
            parameter.add_(size * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))


@pytest.fixture(scope="module")
def place(subject, subject_folder, tmp_path_factory):
    """A folder with a task, and with adapters: a new bias, a stirred one, and a LoRA in both formats."""
    folder = tmp_path_factory.mktemp("lm_eval")
    (folder / "tasks").mkdir()
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    task = {
        "task": "tiny_questions",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "questions.jsonl")}},
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (folder / "tasks/tiny_questions.yaml").write_text(yaml.safe_dump(task))
    for name, size in (("new", 0.0), ("trained", 1.5)):
        adapter = make_adapter("scale", subject.dictionary.d_sae, {})
        stir(adapter.parameters(), size)
        save_adapter(adapter, folder / name, subject.dictionary)
    with Lora.on(subject, {"rank": 2, "where": "above"}, 0) as lora:
        stir((part for name, part in lora.named_parameters() if "lora_" in name), 0.3)
        save_adapter(lora, folder / "lora")
    (folder / "peft").mkdir()
    for name, content in peft_files(folder / "lora", str(subject_folder / "model")).items():
        (folder / "peft" / name).write_bytes(content)
    return folder


@pytest.fixture
def evaluate(place, subject_folder):
    """Evaluate a model on the task; return each question's log-likelihoods."""

    def run(name, **arguments):
        from lm_eval.tasks import TaskManager

        given = {"pretrained": str(subject_folder / "model"), "device": "cpu", "batch_size": 2} | arguments
        if name == "isaerft":
            from isaerft.integrations.lm_eval import AdaptedModel

            name, given = AdaptedModel(**given), None
        found = lm_eval.simple_evaluate(
            model=name, model_args=given, tasks=["tiny_questions"], bootstrap_iters=0,
            task_manager=TaskManager(include_path=str(place / "tasks"), include_defaults=False),
        )  # fmt: skip
        rows = sorted(found["samples"]["tiny_questions"], key=lambda row: row["doc_id"])
        return [[float(answer[0]) for answer in row["filtered_resps"]] for row in rows]

    return run


def own_likelihoods(model, tokenizer):
    """The same, computed by hand from the model's own forward pass."""
    found = []
    for row in QUESTIONS:
        before = tokenizer(row["question"]).input_ids
        values = []
        for choice in row["choices"]:
            whole = tokenizer(row["question"] + choice).input_ids
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([whole])).logits[0].log_softmax(-1)
            values.append(sum(float(logits[at - 1, whole[at]]) for at in range(len(before), len(whole))))
        found.append(values)
    return found


def test_without_an_adapter_and_with_a_new_one_it_is_lm_evals_own_hugging_face_model(evaluate, place, subject_folder):
    plain = evaluate("hf")
    assert evaluate("isaerft") == plain
    assert evaluate("isaerft", adapter=str(place / "new"), sae=str(subject_folder / "sae")) == plain


def test_with_a_trained_adapter_it_is_the_attached_model(evaluate, place, subject, subject_folder):
    found = evaluate("isaerft", adapter=str(place / "trained"), sae=str(subject_folder / "sae"))
    model, tokenizer = copy.deepcopy(subject.model), subject.language.tokenizer
    plain = own_likelihoods(model, tokenizer)
    isaerft.attach(model, subject.dictionary, str(place / "trained"))
    expected = own_likelihoods(model, tokenizer)
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), atol=1e-4, rtol=1e-4)
    assert (torch.tensor(plain) - torch.tensor(expected)).abs().max() > 1e-2


def test_lora_of_a_study_is_evaluated_by_lm_evals_own_model(evaluate, place, subject):
    found = evaluate("hf", peft=str(place / "peft"))
    with load_model_adapter(place / "lora", subject):
        expected = own_likelihoods(subject.model, subject.language.tokenizer)
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), atol=1e-4, rtol=1e-4)
    assert found != evaluate("hf")


def test_the_command_line_writes_lm_evals_results(place, subject_folder, tmp_path):
    arguments = {"pretrained": subject_folder / "model", "sae": subject_folder / "sae", "adapter": place / "trained"}
    command = [sys.executable, "-m", "isaerft.integrations.lm_eval", "run", "--model", "isaerft", "--device", "cpu"]
    command += ["--model_args", ",".join(f"{name}={value}" for name, value in arguments.items())]
    command += ["--tasks", "tiny_questions", "--include_path", str(place / "tasks"), "--output_path", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    (written,) = tmp_path.rglob("results*.json")
    result = json.loads(written.read_text())
    assert 0 <= result["results"]["tiny_questions"]["acc,none"] <= 1
    assert result["config"]["model"] == "isaerft"


def test_an_adapter_without_its_sae_or_at_another_is_refused(place, subject_folder, tiny, tmp_path):
    from isaerft.integrations.lm_eval import AdaptedModel

    same = {"pretrained": str(subject_folder / "model"), "device": "cpu", "adapter": str(place / "trained")}
    with pytest.raises(InputError, match="add sae=FOLDER"):
        AdaptedModel(**same)
    with pytest.raises(InputError, match="does not exist"):
        AdaptedModel(**same, sae=str(tmp_path / "none"))
    other = tiny.write_sae(tmp_path / "other", tiny.random_sae(seed=9))
    with pytest.raises(InputError, match="was trained at another SAE"):
        AdaptedModel(**same, sae=str(other))
