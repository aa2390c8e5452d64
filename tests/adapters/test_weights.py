"""LoRA and checkpoints; and what all model adapters have in common."""

import copy
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from isaerft.adapters.model import Residual
from isaerft.adapters.weights import Checkpoint, Lora, blocks_at, load_checkpoint
from isaerft.errors import InputError
from isaerft.subjects.blocks import decoder_blocks
from isaerft.subjects.cache import completion_losses, rerun_below
from isaerft.subjects.capture import capture
from isaerft.subjects.hooks import hidden_above, unembed
from isaerft.subjects.points import HookPoint, find_hook

ROWS = torch.arange(4)


def with_model(subject, model, hook=None):
    return replace(subject, language=replace(subject.language, model=model), hook=hook or subject.hook)


def hidden(subject, batch, model):
    """The residual stream at the hook, straight from a model's own hidden states."""
    ids = batch.tokens.new_zeros(batch.mask.shape)
    ids[batch.mask] = batch.tokens
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=batch.mask.long(), output_hidden_states=True, use_cache=False)
    return found.hidden_states[subject.hook.n_below][batch.mask]


@pytest.fixture
def batch(cached):
    return cached[1].batch(ROWS)


@pytest.fixture
def checkpoint(subject, subject_folder, tmp_path):
    """A folder with the subject's model whose first block writes something else, and that model."""
    model = copy.deepcopy(subject.model)
    with torch.no_grad():
        decoder_blocks(model)[0].mlp.down_proj.weight.mul_(-1.5)
    model.save_pretrained(tmp_path / "tuned")
    return tmp_path / "tuned", model


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Residual, {"rank": 0}, "rank = 0; allowed: a whole number from 1 to 32"),
        (Residual, {"rank": 33}, "rank = 33"),
        (Residual, {"rnak": 3}, "option 'rnak'; allowed: rank, bias"),
        (Lora, {"rank": 0}, "rank = 0"),
        (Lora, {"where": "belwo"}, "did you mean 'below'"),
        (Checkpoint, {}, "allowed: path"),
        (Checkpoint, {"path": "x", "rank": 3}, "allowed: path, and nothing else"),
    ],
)
def test_an_option_without_sense_is_refused_naming_those_that_have_it(subject, kind, options, message):
    with pytest.raises(InputError, match=message), kind.on(subject, options, 0):
        pass


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("where", ["above", "below", "all"])
def test_lora_begins_as_the_identity_and_leaves_the_model_bit_for_bit_as_it_was(
    subject, model_of, batch, architecture, where
):
    model = model_of(architecture)
    used = with_model(subject, model)
    ids = torch.tensor([[1, 5, 6, 7]])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kinds = [type(module) for module in model.modules()]
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    for _ in range(2):
        with Lora.on(used, {"rank": 2, "where": where}, 0) as adapter, torch.no_grad():
            assert torch.equal(model(input_ids=ids).logits, logits), "LoRA begins as the identity"
            for name, parameter in adapter.named_parameters():
                if "lora_" in name:
                    assert parameter.requires_grad
                    parameter.add_(0.1)
                else:
                    assert not parameter.requires_grad
            assert not torch.equal(model(input_ids=ids).logits, logits)
            with adapter.idle():
                assert torch.equal(model(input_ids=ids).logits, logits)
            assert not torch.equal(model(input_ids=ids).logits, logits)
        after = model.state_dict()
        assert set(after) == set(before)
        assert all(torch.equal(after[name], value) for name, value in before.items())
        assert [type(module) for module in model.modules()] == kinds
        assert not any(hasattr(part, "peft_config") for part in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
        with torch.no_grad():
            assert torch.equal(model(input_ids=ids).logits, logits)


def test_lora_acts_on_the_blocks_asked_for(subject):
    site = HookPoint(2, 5)
    assert blocks_at(site, "above") == [2]
    assert blocks_at(site, "below") == [0, 1]
    assert blocks_at(site, "all") == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match=r"no block lies above .*; allowed: below, all"):
        blocks_at(HookPoint(3, 3), "above")
    with pytest.raises(InputError, match=r"no block lies below .*; allowed: above, all"):
        blocks_at(HookPoint(0, 3), "below")


@pytest.mark.parametrize("where", ["below", "all"])
def test_lora_below_the_hook_changes_what_the_sae_reads_as_a_full_forward_pass_does(subject, batch, where):
    torch.testing.assert_close(rerun_below(subject, batch).residual, hidden(subject, batch, subject.model))
    with Lora.on(subject, {"rank": 2, "where": where}, 0) as adapter:
        torch.testing.assert_close(adapter.adapted(subject, batch), batch.residual, atol=1e-5, rtol=1e-5)
        with torch.no_grad():
            for name, parameter in adapter.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(0))
        direct = hidden(subject, batch, subject.model)
        assert (direct - batch.residual).abs().max() > 0.1
        torch.testing.assert_close(adapter.adapted(subject, batch), direct)
        with adapter.idle():
            torch.testing.assert_close(adapter.adapted(subject, batch), direct)


def test_every_weight_of_lora_below_the_hook_gets_a_gradient(subject, batch):
    with Lora.on(subject, {"rank": 2, "where": "below"}, 0) as adapter:
        completion_losses(subject, batch, adapter.adapted(subject, batch)).mean().backward()
        grads = {name: p.grad for name, p in adapter.named_parameters() if p.requires_grad}
        assert len(grads) == 2 * 2 * 7, "A and B of seven linear maps in two blocks"
        assert all(grad is not None for grad in grads.values())
        assert all(grad.any() for name, grad in grads.items() if "lora_B" in name)


def test_a_checkpoint_is_the_fine_tuned_model_below_the_hook(subject, batch, checkpoint):
    folder, model = checkpoint
    with Checkpoint.on(subject, {"path": str(folder)}, 0) as adapter:
        direct = hidden(subject, batch, model)
        assert (direct - batch.residual).abs().max() > 0.1
        torch.testing.assert_close(adapter.adapted(subject, batch), direct)
        assert adapter.n_changed(subject.model) == decoder_blocks(model)[0].mlp.down_proj.weight.numel()
        assert not any(parameter.requires_grad for parameter in adapter.parameters())


def test_a_peft_folder_is_a_checkpoint_with_its_weights_merged(subject, batch, tmp_path):
    from peft import LoraConfig, get_peft_model

    tuned = get_peft_model(copy.deepcopy(subject.model), LoraConfig(r=2, target_modules=["down_proj"]))
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(0))
    tuned.save_pretrained(tmp_path / "peft")
    before = {name: value.clone() for name, value in subject.model.state_dict().items()}
    with Checkpoint.on(subject, {"path": str(tmp_path / "peft")}, 0) as adapter:
        direct = hidden(subject, batch, tuned)
        torch.testing.assert_close(adapter.adapted(subject, batch), direct, atol=1e-4, rtol=1e-4)
        assert (direct - batch.residual).abs().max() > 0.1
        assert adapter.n_changed(subject.model) == 3 * subject.model.model.layers[0].mlp.down_proj.weight.numel()
    after = subject.model.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_checkpoint_of_another_model_is_refused(subject, model_of, checkpoint, tiny, tmp_path, tokenizer):
    folder, _ = checkpoint
    model_of("gpt2").save_pretrained(tmp_path / "gpt2")
    with pytest.raises(InputError, match="model_type gpt2; allowed: llama"):
        load_checkpoint(subject, str(tmp_path / "gpt2"))
    tiny.make_model("llama", len(tokenizer), n_layers=2).save_pretrained(tmp_path / "short")
    with pytest.raises(InputError, match="num_hidden_layers 2; allowed: 3"):
        load_checkpoint(subject, str(tmp_path / "short"))
    with pytest.raises(InputError, match=r"is not a model; allowed: a local folder with config.json"):
        load_checkpoint(subject, str(tmp_path / "nowhere"))
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.layers.0.mlp.down_proj.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks weights of the model: .*layers.0.mlp.down_proj"):
        load_checkpoint(subject, str(folder))


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return (open, (str(self.place), "w"))


def test_a_checkpoint_is_read_without_running_what_is_pickled_in_it(subject, checkpoint, tmp_path):
    folder, _ = checkpoint
    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Trap(tmp_path / "sprung")}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_checkpoint(subject, str(folder))
    assert not (tmp_path / "sprung").exists()


RESIDUAL = (Residual, {"rank": 2, "bias": True})


@pytest.mark.parametrize(
    ("kind", "options", "hook_name"),
    [
        *((*RESIDUAL, f"blocks.{hook}") for hook in ("0.hook_resid_pre", "1.hook_resid_mid", "2.hook_resid_post")),
        *((*RESIDUAL, f"blocks.{hook}") for hook in ("1.hook_mlp_out", "1.hook_attn_out")),
        *((Lora, {"rank": 2, "where": where}, "blocks.1.hook_resid_post") for where in ("above", "below", "all")),
        (Checkpoint, {}, "blocks.1.hook_resid_post"),
    ],
)
def test_in_the_models_own_pass_an_adapter_acts_as_where_it_was_trained(
    subject, records, checkpoint, kind, options, hook_name
):
    subject = replace(subject, hook=find_hook(subject.model, hook_name))
    batch = capture(subject, records[:4], 32, 4).batch(ROWS)
    ids = batch.tokens.new_zeros(batch.mask.shape)
    ids[batch.mask] = batch.tokens
    mask = batch.mask.long()
    plain = subject.model(input_ids=ids, attention_mask=mask).logits.detach()
    options = options or {"path": str(checkpoint[0])}
    with torch.no_grad(), kind.on(subject, options, 0) as adapter:
        generator = torch.Generator().manual_seed(2)
        for parameter in adapter.parameters() if kind is Residual else adapter.weights().values():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        above = adapter.subject_of(subject) if kind is Checkpoint else subject
        moved = adapter.adapted(subject, batch)
        padded = moved.new_zeros(*mask.shape, moved.shape[-1]).index_put(batch.mask.nonzero(as_tuple=True), moved)
        expected = unembed(above.model, hidden_above(above.model, above.hook, padded, mask))
        with adapter.in_model(subject) as changed:
            logits = changed.model(input_ids=ids, attention_mask=mask).logits
    torch.testing.assert_close(logits[batch.mask], expected[batch.mask], atol=1e-4, rtol=1e-4)
    assert (logits - plain)[batch.mask].abs().max() > 1e-3
    assert torch.equal(subject.model(input_ids=ids, attention_mask=mask).logits, plain)
