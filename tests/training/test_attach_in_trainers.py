"""Attached adapters inside transformers' Trainer and TRL's trainers."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import DataCollatorForTokenClassification, Trainer, TrainingArguments

import isaerft
from isaerft.adapters.base import make_adapter
from isaerft.adapters.saved import load_adapter
from isaerft.subjects.capture import tokenize
from isaerft.subjects.dictionary import load_dictionary

SETTINGS = {
    "max_steps": 4,
    "learning_rate": 0.1,
    "per_device_train_batch_size": 4,
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
    "bf16": False,
    "seed": 3,
}
KEY = "isaerft.hooks.blocks-1-hook_resid_post.adapters.default.bias"


@pytest.fixture
def model(model_of):
    return deepcopy(model_of("llama"))


@pytest.fixture
def attached(model, subject_folder):
    return isaerft.attach(model, subject_folder / "sae", "bias")


@pytest.fixture
def rows(subject, records):
    """Tokenized rows whose labels are the completions."""
    pairs = [tokenize(record, subject.language, 32) for record in records]
    return [{"input_ids": tokens, "labels": [-100] * n + tokens[n:]} for tokens, n in pairs]


@pytest.fixture
def trainer(tokenizer, rows, tmp_path):
    def make(model, **options):
        arguments = TrainingArguments(str(tmp_path / "out"), **SETTINGS | options)
        collator = DataCollatorForTokenClassification(tokenizer)
        return Trainer(model, arguments, train_dataset=rows, eval_dataset=rows, data_collator=collator)

    return make


def base_of(model):
    return {name: value.clone() for name, value in model.state_dict().items() if not name.startswith("isaerft.")}


def test_the_trainer_trains_the_adapter_and_nothing_else(model, attached, trainer):
    before = base_of(model)
    run = trainer(model)
    start = run.evaluate()["eval_loss"]
    run.train()
    assert run.evaluate()["eval_loss"] < start - 0.05
    assert attached.adapter().bias.abs().max() > 0.05
    after = base_of(model)
    assert set(after) == set(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    with attached.disabled():
        assert run.evaluate()["eval_loss"] == pytest.approx(start, abs=1e-6)


def test_a_checkpoint_holds_the_adapter_alone_in_the_pipelines_files(model, attached, trainer, tmp_path):
    from safetensors.torch import load_file

    trainer(model, save_steps=4).train()
    checkpoint = tmp_path / "out" / "checkpoint-4"
    weights = load_file(checkpoint / "model.safetensors")
    assert set(weights) == {KEY}
    assert not (checkpoint / "config.json").exists(), "nobody must take this for a whole model"
    read = load_adapter(checkpoint / "default" / "blocks.1.hook_resid_post", 48)
    assert torch.equal(read.bias, attached.adapter().bias)
    assert torch.equal(weights[KEY], attached.adapter().bias)


def test_training_resumed_from_a_checkpoint_ends_where_an_unbroken_one_does(
    model_of, subject_folder, trainer, tmp_path, caplog
):
    ends = []
    for resume in (None, str(tmp_path / "out" / "checkpoint-2")):
        model = deepcopy(model_of("llama"))
        attached = isaerft.attach(model, subject_folder / "sae", "bias")
        trainer(model, save_steps=2).train(resume_from_checkpoint=resume)
        ends.append(attached.adapter().bias.detach().clone())
    assert torch.equal(ends[0], ends[1])
    assert ends[0].any()
    assert "missing keys" not in caplog.text


def test_the_best_checkpoint_is_loaded_at_the_end(model, attached, trainer):
    seen = []

    class Noting(Trainer):
        def evaluate(self, *args, **kwargs):
            result = super().evaluate(*args, **kwargs)
            seen.append((result["eval_loss"], attached.adapter().bias.detach().clone()))
            return result

    made = trainer(
        model,
        eval_strategy="steps",
        eval_steps=1,
        save_steps=1,
        load_best_model_at_end=True,
        greater_is_better=True,  # so that the best step is not the last one
    )
    made.__class__ = Noting
    made.train()
    best = max(seen, key=lambda pair: pair[0])
    assert not torch.equal(best[1], seen[-1][1])
    assert torch.equal(attached.adapter().bias, best[1])


@pytest.mark.slow
def test_sft_trainer_takes_the_same_steps_as_the_trainer(model_of, subject_folder, trainer, rows, tokenizer, tmp_path):
    trl = pytest.importorskip("trl")
    ends = []
    whole = {"per_device_train_batch_size": 16}  # the two draw their batches in different orders
    for name in ("transformers", "trl"):
        model = deepcopy(model_of("llama"))
        attached = isaerft.attach(model, subject_folder / "sae", "scale")
        if name == "transformers":
            trainer(model, **whole).train()
        else:
            table = [
                {"input_ids": row["input_ids"], "completion_mask": [int(label != -100) for label in row["labels"]]}
                for row in rows
            ]
            arguments = trl.SFTConfig(str(tmp_path / "trl"), completion_only_loss=True, **SETTINGS | whole)
            trl.SFTTrainer(model, arguments, train_dataset=Dataset.from_list(table), processing_class=tokenizer).train()
        ends.append(attached.adapter().scale.detach().clone())
    assert ends[0].abs().max() > 0.05
    torch.testing.assert_close(ends[0], ends[1], atol=1e-4, rtol=1e-3)


def test_dpo_trainer_trains_against_the_same_model_with_its_adapter_disabled(
    model, model_of, subject_folder, tokenizer, tmp_path
):
    trl = pytest.importorskip("trl")
    sae = load_dictionary(subject_folder / "sae")
    started = make_adapter("bias", 48, {})
    with torch.no_grad():
        started.bias.normal_(generator=torch.Generator().manual_seed(0))
    attached, begun = isaerft.attach(model, sae, started), started.bias.detach().clone()
    pairs = [
        {"prompt": f"<bos>say {word}", "chosen": " hello to the cat", "rejected": " world"}
        for word in ("hello", "it", "please", "kindly")
    ]
    before = base_of(model)
    arguments = trl.DPOConfig(str(tmp_path / "out"), save_steps=4, **SETTINGS)
    trainer = trl.DPOTrainer(
        model,
        ref_model=attached.ref_model(),
        args=arguments,
        train_dataset=Dataset.from_list(pairs),
        processing_class=tokenizer,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    found = torch.cat(trainer.compute_ref_log_probs(trainer.ref_model, batch))
    plain = model_of("llama")
    with torch.no_grad():
        logits = plain(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1].log_softmax(-1)
    picked = logits.gather(-1, batch["input_ids"][:, 1:, None])[..., 0]
    expected = (picked * batch["completion_mask"][:, 1:]).sum(1)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)
    trainer.train()
    assert (attached.adapter().bias.detach() - begun).abs().max() > 0.05
    assert all(torch.equal(base_of(model)[name], value) for name, value in before.items())
    assert (Path(arguments.output_dir) / "checkpoint-4" / "default").is_dir()
    again = torch.cat(trainer.compute_ref_log_probs(trainer.ref_model, batch))
    torch.testing.assert_close(again, found, atol=1e-5, rtol=1e-5)
    assert attached.active == {"default"}
