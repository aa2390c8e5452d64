import json
import pickle
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from isaerft.adapters.base import make_adapter
from isaerft.adapters.saved import (
    Saved,
    load_adapter,
    load_model_adapter,
    open_adapter,
    read_tensors,
    save_adapter,
)
from isaerft.adapters.weights import Lora
from isaerft.errors import InputError
from isaerft.subjects.points import HookPoint

HOOK = "blocks.1.hook_resid_post"


BLOCK = "blocks_1_hook_resid_post"


@pytest.fixture
def dictionary(subject):
    assert subject.dictionary.hook_name == HOOK
    return subject.dictionary


@pytest.fixture
def original(tmp_path):
    """Write a folder as the original code's save_pretrained does and return it."""

    def write(blocks, *, manifest=True):
        settings = {"peft_type": "ISAERFT", "depth": -1, "hidden_size": None, "target_hooks": [["release", "id"]]}
        (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
        for name, state in blocks.items():
            torch.save(state, tmp_path / f"{name}.pt")
        if manifest:
            (tmp_path / "blocks_manifest.json").write_text(json.dumps({"block_names": list(blocks)}, indent=2))
        return tmp_path

    return write


@pytest.mark.parametrize(("name", "kind"), [("sequential.0.bias", "bias"), ("scaling_factors", "scale")])
def test_an_adapter_of_the_original_code_becomes_one_of_ours(original, dictionary, name, kind):
    values = torch.randn(48, generator=torch.Generator().manual_seed(0))
    other = {name: torch.zeros(48)}
    folder = original({"blocks_0_hook_resid_post": other, BLOCK: {name: values}})
    for path in (folder, folder / f"{BLOCK}.pt"):
        adapter = open_adapter(path, dictionary)
        assert adapter.kind == kind
        assert torch.equal(adapter.latent_parameter(), values)
    dense = torch.relu(torch.randn(4, 48, generator=torch.Generator().manual_seed(1)))
    expected = dense + values if kind == "bias" else (values + 1.0) * dense
    torch.testing.assert_close(open_adapter(folder, dictionary)(dense), expected)


def test_weights_in_bfloat16_come_out_in_float32(original, dictionary):
    values = torch.randn(48).bfloat16()
    adapter = open_adapter(original({BLOCK: {"sequential.0.bias": values}}), dictionary)
    assert torch.equal(adapter.bias.detach(), values.float())


def test_our_own_folder_and_a_safetensors_block_are_read_too(tmp_path, dictionary):
    adapter = make_adapter("mlp", 48, {"width": 3}, seed=4)
    save_adapter(adapter, tmp_path / "own")
    read = open_adapter(tmp_path / "own", dictionary)
    assert (read.kind, read.options()) == ("mlp", adapter.options())
    assert torch.equal(read.hidden[0], adapter.hidden[0])
    save_file({"scaling_factors": torch.ones(48)}, tmp_path / "block.safetensors")
    assert open_adapter(tmp_path / "block.safetensors", dictionary).kind == "scale"


def test_an_adapter_of_another_hook_is_refused_with_those_that_are_there(original, dictionary):
    folder = original({"blocks_4_hook_resid_post": {"sequential.0.bias": torch.zeros(48)}})
    with pytest.raises(InputError, match=r"no block for hook blocks\.1\.hook_resid_post.*'blocks_4_hook_resid_post'"):
        open_adapter(folder, dictionary)
    named = replace(dictionary, hook_name="blocks.4.hook_resid_post")
    assert open_adapter(folder, named).kind == "bias"


@pytest.mark.parametrize("shape", [(49,), (1, 48), ()])
def test_an_adapter_for_another_dictionary_is_refused(original, dictionary, shape):
    folder = original({BLOCK: {"sequential.0.bias": torch.zeros(shape)}})
    with pytest.raises(InputError, match=r"latents; allowed: 48, as the SAE has"):
        open_adapter(folder, dictionary)


def test_other_parts_than_bias_and_scale_are_refused_by_name(original, dictionary):
    state = {"sequential.0.weight": torch.zeros(48, 48), "sequential.0.bias": torch.zeros(48)}
    with pytest.raises(InputError, match=r"0\.weight.*allowed: one of sequential\.0\.bias, scaling_factors"):
        open_adapter(original({BLOCK: state}), dictionary)


def test_numbers_that_are_not_finite_are_refused(original, dictionary):
    with pytest.raises(InputError, match="not finite"):
        open_adapter(original({BLOCK: {"scaling_factors": torch.full((48,), torch.nan)}}), dictionary)


class Harmful:
    """Its unpickling would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path, dictionary):
    touched = tmp_path / "touched"
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"scaling_factors": Harmful(touched)}))
    torch.save({"scaling_factors": Harmful(touched)}, tmp_path / "zip.pt")
    torch.save({"scaling_factors": torch.ones(48)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name, message in [("plain", "not a zip file"), ("zip", "cannot be loaded"), ("old", "not a zip file")]:
        with pytest.raises(InputError, match=message + r".*weights_only=True"):
            open_adapter(tmp_path / f"{name}.pt", dictionary)
    assert not touched.exists()


def test_what_is_broken_or_no_state_dict_is_refused(tmp_path, dictionary):
    (tmp_path / "broken.safetensors").write_bytes(b"\x05\0\0\0\0\0\0\0nothi")
    with pytest.raises(InputError, match="cannot be loaded"):
        read_tensors(tmp_path / "broken.safetensors")
    torch.save(torch.ones(48), tmp_path / "tensor.pt")
    with pytest.raises(InputError, match="hold a Tensor; allowed: a state dict"):
        read_tensors(tmp_path / "tensor.pt")
    torch.save({"a": {"b": torch.ones(2)}}, tmp_path / "nested.pt")
    with pytest.raises(InputError, match="hold a dict; allowed: a state dict"):
        read_tensors(tmp_path / "nested.pt")
    whole = tmp_path / "cut.pt"
    torch.save({"scaling_factors": torch.ones(48)}, whole)
    whole.write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"not a zip file|cannot be loaded"):
        read_tensors(whole)


def test_what_is_not_there_is_named(tmp_path, original, dictionary):
    with pytest.raises(InputError, match=r"none\.pt' does not exist"):
        open_adapter(tmp_path / "none.pt", dictionary)
    folder = original({BLOCK: {"scaling_factors": torch.ones(48)}}, manifest=False)
    with pytest.raises(InputError, match=r"has no blocks_manifest\.json"):
        open_adapter(folder, dictionary)
    (folder / "blocks_manifest.json").write_text(json.dumps({"block_names": [BLOCK]}))
    (folder / f"{BLOCK}.pt").unlink()
    with pytest.raises(InputError, match=rf"{BLOCK}\.pt' does not exist"):
        open_adapter(folder, dictionary)


def test_an_adapter_for_another_dictionary_is_refused_with_both_sizes(tmp_path):
    save_adapter(make_adapter("bias", 9, {}), tmp_path / "seed_0")
    with pytest.raises(InputError, match=r"is for 9 latents; allowed: 10"):
        load_adapter(tmp_path / "seed_0", 10)


def test_a_folder_without_an_adapter_and_a_lora_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_adapter(tmp_path / "none", 9)
    (tmp_path / "adapter_config.json").write_text('{"kind": "lora", "rank": 8}')
    with pytest.raises(InputError, match="is a lora"):
        load_adapter(tmp_path, 9)


def test_a_saved_lora_comes_back_as_it_was_and_fits_no_other_place(subject, cached, tmp_path):
    options = {"rank": 2, "where": "below"}
    with Lora.on(subject, options, 0) as adapter:
        with torch.no_grad():
            for name, parameter in adapter.named_parameters():
                if "lora_" in name:
                    parameter.add_(0.05)
        batch = cached[1].batch(torch.arange(4))
        expected = adapter.adapted(subject, batch).detach()
        save_adapter(adapter, tmp_path / "a")
    with load_model_adapter(tmp_path / "a", subject) as adapter:
        torch.testing.assert_close(adapter.adapted(subject, batch), expected, rtol=0, atol=0)
    with (
        pytest.raises(InputError, match="on this subject cannot be loaded"),
        load_model_adapter(tmp_path / "a", replace(subject, hook=HookPoint(1, 3))),
    ):
        pass
    assert not any(hasattr(part, "peft_config") for part in subject.model.modules())


def test_an_adapter_of_another_sae_of_the_same_size_is_refused_unless_it_is_meant(tmp_path, dictionary):
    save_adapter(make_adapter("bias", 48, {}), tmp_path / "own", dictionary)
    assert open_adapter(tmp_path / "own", dictionary).kind == "bias"
    permuted, moved = dictionary.permuted(1), replace(dictionary, hook_name="blocks.0.hook_resid_post")
    for other in (permuted, moved):
        with pytest.raises(InputError, match=r"was trained at another SAE .* other_sae: true"):
            open_adapter(tmp_path / "own", other)
        options = {"path": str(tmp_path / "own"), "other_sae": True}
        assert Saved.open(options, other).kind == "bias"
    save_adapter(make_adapter("bias", 48, {}), tmp_path / "silent")
    assert open_adapter(tmp_path / "silent", permuted).kind == "bias"


def test_the_release_in_an_adapter_of_the_original_code_is_compared_where_the_sae_has_one(original, dictionary):
    folder = original({BLOCK: {"scaling_factors": torch.ones(48)}})
    assert open_adapter(folder, replace(dictionary, release="release", sae_id="id")).kind == "scale"
    with pytest.raises(InputError, match=r"another SAE .*'release', 'id'.*allowed: one trained at \['release', 'x'\]"):
        open_adapter(folder, replace(dictionary, release="release", sae_id="x"))
    assert open_adapter(folder, replace(dictionary, release="release", sae_id="x"), other_sae=True).kind == "scale"


def test_two_names_of_one_sae_in_the_directory_are_the_same_to_an_adapter_of_the_original_code(original, dictionary):
    folder = original({BLOCK: {"scaling_factors": torch.ones(48)}})
    config = json.loads((folder / "adapter_config.json").read_text())
    config["target_hooks"] = [["gemma-scope-2b-pt-res", "layer_20/width_16k/average_l0_71"]]
    (folder / "adapter_config.json").write_text(json.dumps(config))
    canonical = {"release": "gemma-scope-2b-pt-res-canonical", "sae_id": "layer_20/width_16k/canonical"}
    assert open_adapter(folder, replace(dictionary, **canonical)).kind == "scale"
    with pytest.raises(InputError, match="another SAE"):
        open_adapter(folder, replace(dictionary, **canonical | {"sae_id": "layer_19/width_16k/canonical"}))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("[]", r"holds \[\]; allowed: kind and options"),
        ('{"peft_type": "LORA"}', "use kind `checkpoint` for an adapter of PEFT"),
        ('{"kind": "biass", "options": {}}', "did you mean 'bias'"),
        ('{"kind": "bias", "options": [], "d_sae": 48}', r"options are \[\]"),
    ],
)
def test_a_config_that_is_not_of_an_adapter_is_refused(tmp_path, dictionary, config, said):
    (tmp_path / "adapter_config.json").write_text(config)
    with pytest.raises(InputError, match=said):
        open_adapter(tmp_path, dictionary)


def test_weights_that_are_not_those_of_the_config_are_refused(tmp_path, dictionary):
    save_adapter(make_adapter("bias", 48, {}), tmp_path / "own", dictionary)
    save_file({"weight": torch.ones(48)}, tmp_path / "own" / "adapter_model.safetensors")
    with pytest.raises(InputError, match="weights are not those of its config"):
        open_adapter(tmp_path / "own", dictionary)
    (tmp_path / "own" / "adapter_model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match="git-lfs pointer"):
        open_adapter(tmp_path / "own", dictionary)
