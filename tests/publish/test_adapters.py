"""Adapters of a study are published with what is known of them, and load to what they were."""

import copy
import html
import json
from dataclasses import replace

import pytest
import torch
import yaml

import isaerft
from isaerft.adapters.base import make_adapter
from isaerft.adapters.export import peft_files
from isaerft.adapters.saved import load_model_adapter, save_adapter
from isaerft.adapters.weights import Lora
from isaerft.cli.app import run_here
from isaerft.config import load_plan
from isaerft.io import write_json
from isaerft.layout import Results
from isaerft.publish import adapter_folder
from tests.servers.hub import TOKEN

HOSTILE = 'shows <script>alert(1)</script> | [a](http://evil) "q"\n---\nlicense: mit'
IDS = torch.tensor([[1, 5, 6, 7, 20, 31]])


def logits_of(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


def stirred(subject, kind="bias"):
    adapter = make_adapter(kind, subject.dictionary.d_sae, {})
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return adapter


@pytest.fixture
def study(subject, subject_folder, tmp_path):
    """Write a config, a trained bias and LoRA, and what their training came to; return the options for verbs."""
    values = {
        "study": "small",
        "subjects": {
            "toy": {
                "model": str(subject_folder / "model"),
                "sae_path": str(subject_folder / "sae"),
                "corpus": {"sample": True},
            }
        },
        "behaviors": {name: {"description": name, "rule": True} for name in ("a", "b")},
        "adapters": {"bias": {}, "lora": {"optimizer": "adam", "options": {"rank": 2}}, "residual": {}},
        "reference": "lora",
        "sources": {"local": {}},
        "judges": {"lexical": {}},
        "primary": {"adapter": "bias", "measure": "attribution", "source": "local", "judge": "lexical"},
    }
    config, results = tmp_path / "study.yaml", Results(tmp_path / "results")
    config.write_text(yaml.safe_dump(values))
    save_adapter(stirred(subject), results.adapter("toy", "a", "bias") / "seed_1", subject.dictionary)
    with Lora.on(subject, {"rank": 2, "where": "above"}, 0) as lora:
        for name, parameter in lora.named_parameters():
            if "lora_" in name:
                with torch.no_grad():
                    parameter.add_(0.1)
        save_adapter(lora, results.adapter("toy", "a", "lora") / "seed_1")
    run = {"n_parameters": 48, "objective": "sft", "heldout_loss_base": 2.5, "heldout_loss_adapted": 1.25}
    for name in ("bias", "lora"):
        write_json(
            results.training("toy", "a", name), [run | {"seed": 0, "heldout_loss_adapted": 9.0}, run | {"seed": 1}]
        )
    card = {"behavior": "a", "description": HOSTILE, "source": str(tmp_path / "study.yaml"), "revision": None}
    write_json(results.behavior("a").card, card | {"licence": "CC-BY-4.0", "train": 12, "heldout": 4})
    return [
        "--study",
        str(config),
        "--results",
        str(results.root),
        "--subject",
        "toy",
        "--behavior",
        "a",
        "--seed",
        "1",
    ]


def publish(study, adapter, *more):
    return run_here(["publish", "adapter", *study, "--adapter", adapter, *map(str, more)])


def test_a_published_adapter_attaches_to_what_it_was_in_the_study(study, subject, tmp_path):
    assert publish(study, "bias", "--out", tmp_path / "out") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
    found, wanted = copy.deepcopy(subject.model), copy.deepcopy(subject.model)
    isaerft.attach(found, subject.dictionary, str(tmp_path / "out"))
    isaerft.attach(wanted, subject.dictionary, stirred(subject))
    assert torch.equal(logits_of(found), logits_of(wanted))
    assert not torch.equal(logits_of(found), logits_of(subject.model))


def test_its_card_says_what_is_known_and_what_is_not_claimed_and_nothing_from_outside_is_markup(study, tmp_path):
    publish(study, "bias", "--out", tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    head, body = card.split("---\n", 2)[1:]
    header = yaml.safe_load(head)
    assert header["library_name"] == "isaerft"
    assert not {"license", "base_model", "datasets"} & set(header)  # a local model has no id, nobody said a license
    assert "| Held-out loss | 2.5000 before, 1.2500 after (nats per completion token, 4 rows" in body
    assert "| License of the data | CC-BY-4.0 |" in body
    assert "| Training data | study.yaml, 12 rows |" in body
    assert "seed 1 |" in body
    assert "## Not claimed" in body
    assert "<script" not in card
    assert "[a]" not in card
    assert "\n---\nlicense" not in card
    assert str(tmp_path) not in card  # no folder of this machine
    from huggingface_hub import ModelCard

    assert ModelCard.load(tmp_path / "out/README.md").data.tags[0] == "isaerft"


def test_a_model_and_data_of_the_hub_are_named_where_the_hub_looks_for_them(study, tmp_path):
    plan = load_plan(study[1])
    sae = {"sae_path": None, "release": "gpt2-small-res-jb", "sae_id": "blocks.8.hook_resid_pre"}
    model = {"model": "someone/model", "revision": "abc", "center_writing_weights": True}
    told = replace(plan.study.subjects["toy"], **model, **sae)
    behavior = replace(plan.study.behaviors["a"], rule=False, dataset="some/data", revision="def")
    hub = replace(plan, study=replace(plan.study, subjects={"toy": told}, behaviors={"a": behavior, "b": behavior}))
    folder = adapter_folder(hub, Results(study[3]), "toy", "a", "bias", 1, repo_id="me/mine")
    card = folder.files["README.md"].decode()
    header = yaml.safe_load(card.split("---\n")[1])
    assert header["base_model"] == "someone/model"
    assert header["datasets"] == ["some/data"]
    code = card.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert "SAE.from_pretrained('gpt2-small-res-jb', 'blocks.8.hook_resid_pre')" in code
    assert "snapshot_download('me/mine'), center_writing_weights=True)" in code


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "gemma3"])
@pytest.mark.parametrize("where", ["above", "all"])
def test_lora_in_pefts_format_is_the_lora_of_the_study_also_merged(subject, model_of, architecture, where, tmp_path):
    from peft import PeftModel

    model = copy.deepcopy(model_of(architecture))
    model.save_pretrained(tmp_path / "model")
    used = replace(subject, language=replace(subject.language, model=model))
    with Lora.on(used, {"rank": 2, "where": where}, 0) as lora, torch.no_grad():
        for name, parameter in lora.named_parameters():
            if "lora_" in name:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
        save_adapter(lora, tmp_path / "lora")
    with load_model_adapter(tmp_path / "lora", used):
        wanted = logits_of(model)
    plain = logits_of(model)
    (tmp_path / "out").mkdir()
    for name, content in peft_files(tmp_path / "lora", str(tmp_path / "model")).items():
        (tmp_path / "out" / name).write_bytes(content)
    found = PeftModel.from_pretrained(copy.deepcopy(model), tmp_path / "out").eval()
    torch.testing.assert_close(logits_of(found), wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits_of(found.merge_and_unload()), wanted, atol=1e-5, rtol=1e-5)
    assert (wanted - plain).abs().max() > 1e-2


def test_a_studys_lora_is_published_for_peft(study, tmp_path):
    assert publish(study, "lora", "--out", tmp_path / "out") == 0
    saved = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert saved["peft_type"] == "LORA"
    assert (saved["r"], saved["lora_alpha"], saved["task_type"]) == (2, 4, "CAUSAL_LM")
    card = (tmp_path / "out/README.md").read_text()
    assert "library_name: peft" in card
    assert "PeftModel.from_pretrained" in card


def test_nothing_is_sent_unless_asked_and_then_it_is_private(study, hub, tmp_path, capsys):
    assert publish(study, "bias", "--repo", "me/mine") == 0
    told = capsys.readouterr().out
    assert "adapter_model.safetensors: " in told
    assert "Dry run: nothing was sent, and no credential was found. --send uploads 3 files" in told
    assert "to the model me/mine; a new repository is private" in told
    assert hub.seen == []
    assert publish(study, "bias", "--repo", "me/mine", "--send") == 0
    assert f"to {hub.url}/me/mine" in capsys.readouterr().out
    private, files = hub.repos["models/me/mine"]
    assert private
    publish(study, "bias", "--out", tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {name: files[name] for name in names - {"README.md"}} == {
        name: (tmp_path / "out" / name).read_bytes() for name in names - {"README.md"}
    }
    assert b"snapshot_download('me/mine')" in files["README.md"]
    assert publish(study, "bias", "--repo", "me/open", "--public", "--send") == 0
    assert hub.repos["models/me/open"][0] is False


def test_a_key_in_what_the_card_quotes_stops_even_the_dry_run(study, hub, capsys, tmp_path):
    results = Results(study[3])
    card = json.loads(results.behavior("a").card.read_text())
    write_json(results.behavior("a").card, card | {"description": f"says {TOKEN}"})
    assert publish(study, "bias", "--repo", "me/mine") == 2
    told = capsys.readouterr().err
    assert "'README.md' holds the value of HF_TOKEN, a Hugging Face token: nothing was sent" in told
    assert TOKEN not in told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--adapter", "residual"], "adapter 'residual' is a residual; allowed: adapters on latents, and lora"),
        (["--adapter", "bias", "--seed", "7"], "allowed: seed 1"),
        (["--adapter", "scales"], "unknown adapter 'scales'"),
        ([], "publish adapter without --behavior and --adapter"),
        (["--adapter", "bias", "--repo", "mine"], "allowed: OWNER/NAME"),
        (["--adapter", "bias", "--send"], "publish adapter with --send"),
        (["--adapter", "bias", "--public"], "publish adapter with --public"),
        (["--adapter", "bias", "--repo", "a/b", "--out", "x"], "publish adapter with --out and --repo"),
    ],
)
def test_what_cannot_be_published_says_why(study, options, message, capsys):
    assert run_here(["publish", "adapter", *study, *options]) == 2
    assert message in capsys.readouterr().err


def test_attached_adapters_are_pushed_with_a_card(subject, hub, tmp_path):
    model = copy.deepcopy(subject.model)
    attached = isaerft.attach(model, subject.dictionary, stirred(subject), name="refusal")
    url = attached.push_to_hub("me/mine", card={"Behavior": "refuses | says sorry", "Seed": 3})
    assert url == f"{hub.url}/me/mine"
    private, files = hub.repos["models/me/mine"]
    assert private
    card = files["README.md"].decode()
    assert "| Behavior | refuses &#124; says sorry |" in card
    assert "| Training data | not stated |" in card
    assert "refusal (bias) at blocks.1.hook_resid_post" in html.unescape(card)
    compile(card.split("```python\n")[1].split("```")[0], "card", "exec")
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    other = copy.deepcopy(subject.model)
    isaerft.attach(other, subject.dictionary, str(tmp_path / "refusal/blocks.1.hook_resid_post"))
    assert torch.equal(logits_of(other), logits_of(model))
    attached.push_to_hub("me/open", private=False, token=TOKEN)
    assert hub.repos["models/me/open"][0] is False
