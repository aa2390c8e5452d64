from dataclasses import replace

import pytest
import torch

from isaerft import config
from isaerft.adapters.base import adapted, make_adapter
from isaerft.registry import OBJECTIVES
from isaerft.subjects.hooks import decoder_blocks, find_hook
from isaerft.training.loop import add_gradients, frozen_part


@pytest.fixture
def adapter(subject):
    adapter = make_adapter("affine", subject.dictionary.d_sae, {})
    with torch.no_grad():
        adapter.bias[2] = 0.5
    return adapter


def at(subject, model, hook_name="blocks.0.hook_resid_post"):
    language = replace(subject.language, model=model)
    return replace(subject, language=language, hook=find_hook(model, hook_name))


def gradients(subject, rows, adapter, **options):
    """Return the loss of a step and its gradients, run as the options say."""
    adapter.zero_grad()
    parts = [rows.batch(torch.arange(len(rows)))]

    def adapt(batch):
        return adapted(subject.dictionary, adapter, batch)

    with frozen_part(subject, adapt, config.Adapter(**options)) as precise:
        loss = add_gradients(subject, OBJECTIVES["sft"], precise, parts)
    return loss, torch.cat([parameter.grad for parameter in adapter.parameters()])


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "gemma2"])
def test_checkpointing_runs_every_block_above_again_and_gives_the_same_gradients(
    subject, model_of, cached, adapter, architecture
):
    used = at(subject, model_of(architecture))
    # The first pass through a model also finds out what its blocks return.
    gradients(used, cached[0], adapter)
    calls = []
    blocks = decoder_blocks(used.model)
    handles = [block.mlp.register_forward_pre_hook(lambda *_: calls.append(1)) for block in blocks]
    try:
        loss, expected = gradients(used, cached[0], adapter)
        n_plain = len(calls)
        again, found = gradients(used, cached[0], adapter, gradient_checkpointing=True)
    finally:
        for handle in handles:
            handle.remove()
    assert (n_plain, len(calls) - n_plain) == (2, 4)
    assert again == loss
    assert torch.equal(found, expected)
    assert not any("forward" in vars(block) for block in blocks)


def test_a_forward_that_was_put_on_a_block_comes_back_after_checkpointing(subject, cached, adapter):
    block = decoder_blocks(subject.model)[2]

    def own(*args, **kwargs):
        return type(block).forward(block, *args, **kwargs)

    block.forward = own
    try:
        gradients(at(subject, subject.model), cached[0], adapter, gradient_checkpointing=True)
        assert block.forward is own
    finally:
        del block.forward


def test_autocast_computes_the_blocks_in_bfloat16_and_the_adapter_in_float32(subject, cached, adapter):
    used, seen = at(subject, subject.model), []
    handle = decoder_blocks(used.model)[2].mlp.register_forward_hook(lambda *a: seen.append(a[-1].dtype))
    try:
        exact, expected = gradients(used, cached[0], adapter)
        loss, found = gradients(used, cached[0], adapter, precision="bfloat16")
    finally:
        handle.remove()
    assert seen == [torch.float32, torch.bfloat16]
    assert loss != exact
    assert loss == pytest.approx(exact, rel=0.02)
    assert torch.nn.functional.cosine_similarity(found, expected, dim=0) > 0.99
    assert not torch.is_autocast_enabled("cpu")


def test_what_the_adapter_adds_is_not_rounded_to_bfloat16_by_autocast(subject, cached, adapter):
    batch = cached[0].batch(torch.arange(3))
    expected = adapted(subject.dictionary, adapter, batch)
    with frozen_part(
        subject, lambda batch: adapted(subject.dictionary, adapter, batch), config.Adapter(precision="bfloat16")
    ) as precise:
        assert torch.equal(precise(batch), expected)


def test_float32_widens_a_bfloat16_model_for_the_training_only(subject, tiny, tokenizer, cached, adapter):
    model = tiny.make_model("llama", len(tokenizer)).bfloat16()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    used = at(subject, model)
    rows = replace(cached[0], residual=cached[0].residual.bfloat16())
    wide, found = gradients(used, rows, adapter, precision="float32")
    narrow, _ = gradients(used, rows, adapter)
    reference = at(subject, tiny.make_model("llama", len(tokenizer)).bfloat16().float())
    exact, expected = gradients(reference, replace(rows, residual=rows.residual.float()), adapter)
    assert wide == exact
    assert wide != narrow
    torch.testing.assert_close(found, expected)
    assert model.dtype == torch.bfloat16
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
