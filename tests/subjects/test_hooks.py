import copy
from itertools import pairwise

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from isaerft.errors import InputError
from isaerft.subjects.blocks import BLOCK_PARTS, decoder_blocks, mlp_of, writer_of
from isaerft.subjects.hooks import direct_path, final_norm, hidden_above, residual_stream, run_below, unembed
from isaerft.subjects.points import HookPoint, find_hook

LENGTHS = (9, 6, 1)
SEQUENTIAL = ["llama", "gpt2", "gemma2", "gemma3", "qwen2", "qwen3", "mistral"]
SEQUENTIAL += ["gemma", "gpt_neo", "gpt_neox_sequential", "olmo2", "phi3", "stablelm"]
PARALLEL = ["gpt_neox", "gptj", "phi", "cohere", "stablelm_parallel"]
HOOKS = [f"blocks.{block}.hook_{at}" for block in (0, 1, 2) for at in ("attn_out", "mlp_out", "resid_mid")]


@pytest.fixture(params=["llama", "gpt2", "gpt_neox", "gemma2", "gemma3", "qwen2", "qwen3", "mistral"])
def model(request, model_of):
    return model_of(request.param)


@pytest.fixture
def rows():
    tokens = torch.randint(3, 250, (3, 9), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(9) < torch.tensor(LENGTHS)[:, None]).long()
    return tokens * mask, mask


def full(model, tokens, mask):
    with torch.no_grad():
        return model(input_ids=tokens, attention_mask=mask, use_cache=False, output_hidden_states=True)


@pytest.mark.parametrize("n_below", range(4))
def test_running_below_and_then_above_a_site_equals_the_full_forward_pass(model, rows, n_below):
    tokens, mask = rows
    hook = HookPoint(n_below, 3)
    real = mask.bool()
    with torch.no_grad():
        hidden = hidden_above(model, hook, residual_stream(model, hook, tokens, mask), mask)
        logits = unembed(model, hidden[real])
        whole = model.base_model(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
    torch.testing.assert_close(hidden[real], whole[real], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(logits, full(model, tokens, mask).logits[real], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("n_below", range(3))
def test_the_residual_stream_is_the_hidden_state_that_transformers_reports(model, rows, n_below):
    tokens, mask = rows
    expected = full(model, tokens, mask).hidden_states[n_below]
    real = mask.bool()
    residual = residual_stream(model, HookPoint(n_below, 3), tokens, mask)
    torch.testing.assert_close(residual[real], expected[real], atol=1e-6, rtol=1e-6)


def test_every_block_below_the_injection_point_matters(model, rows):
    tokens, mask = rows
    streams = [residual_stream(model, HookPoint(n, 3), tokens, mask) for n in range(4)]
    assert all((a - b).abs().max() > 1e-2 for a, b in pairwise(streams))


def test_a_row_does_not_depend_on_its_padding(model, rows):
    tokens, mask = rows
    alone = residual_stream(model, HookPoint(2, 3), tokens[1:2, :6], mask[1:2, :6])
    together = residual_stream(model, HookPoint(2, 3), tokens, mask)[1:2, :6]
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    above = hidden_above(model, HookPoint(2, 3), alone, mask[1:2, :6])
    padded = torch.cat([alone, torch.full_like(alone, 7.0)], 1)
    longer = torch.cat([mask[1:2, :6], torch.zeros_like(mask[1:2, :6])], 1)
    torch.testing.assert_close(hidden_above(model, HookPoint(2, 3), padded, longer)[:, :6], above, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("n_below", range(4))
def test_gradients_flow_back_to_the_given_residual_stream(model, rows, n_below):
    tokens, mask = rows
    hook = HookPoint(n_below, 3)
    residual = residual_stream(model, hook, tokens, mask).requires_grad_(True)
    hidden_above(model, hook, residual, mask)[mask.bool()].square().sum().backward()
    assert residual.grad[mask.bool()].abs().max() > 0
    assert not residual.grad[~mask.bool()].any()


@pytest.mark.parametrize("family", [*SEQUENTIAL, *PARALLEL])
@pytest.mark.parametrize("hook", [HookPoint(0, 3), HookPoint(2, 3), HookPoint(2, 3, inside=True)])
def test_where_little_is_wanted_mlps_read_no_more_and_nothing_else_changes(model_of, rows, family, hook):
    model, (_, mask) = model_of(family), rows
    wanted = mask.bool() & (torch.arange(9) % 3 == 0)
    drawn = torch.randn(*mask.shape, model.config.hidden_size, generator=torch.Generator().manual_seed(2))
    hidden_above(model, hook, drawn, mask)  # the first time, the model is run once more to see what its blocks return
    found, n_read, handles = [], [], []
    for mlp in (mlp_of(model, number) for number in range(3)):
        inner = next(module for module in mlp.modules() if isinstance(module, nn.Linear | Conv1D))
        handles.append(inner.register_forward_hook(lambda _, args, output: n_read.append(args[0][..., 0].numel())))
    for given in (None, wanted):
        residual = drawn.clone().requires_grad_(True)
        hidden = hidden_above(model, hook, residual, mask, wanted=given)[wanted]
        hidden.square().sum().backward()
        found.append((hidden.detach(), residual.grad))
    for handle in handles:
        handle.remove()
    for whole, part in zip(*found, strict=True):
        torch.testing.assert_close(part, whole, atol=1e-5, rtol=1e-5)
    n_above = 3 - hook.n_below
    assert n_read == [mask.numel()] * n_above + [int(mask.sum())] * (n_above - 1) + [int(wanted.sum())]
    assert not [mlp for mlp in (mlp_of(model, number) for number in range(3)) if "forward" in vars(mlp)]


@pytest.mark.parametrize("n_below", range(4))
def test_the_model_is_the_same_again_afterwards_also_after_an_exception(model, rows, n_below):
    tokens, mask = rows
    hook = HookPoint(n_below, 3)
    before = full(model, tokens, mask).logits
    # transformers leaves hooks of its own on the blocks.
    hooks = [(dict(block._forward_hooks), dict(block._forward_pre_hooks)) for block in decoder_blocks(model)]
    residual_stream(model, hook, tokens, mask)
    with pytest.raises(RuntimeError):
        hidden_above(model, hook, torch.ones(1, 2, 5), mask[:1, :2])
    with pytest.raises(IndexError):
        residual_stream(model, hook, torch.full((1, 2), 10**6), mask[:1, :2])
    assert torch.equal(full(model, tokens, mask).logits, before)
    assert not [block for block in decoder_blocks(model) if "forward" in vars(block)]
    assert hooks == [(dict(block._forward_hooks), dict(block._forward_pre_hooks)) for block in decoder_blocks(model)]


def test_the_input_of_a_block_is_the_output_of_the_one_before(model, rows):
    before, after = find_hook(model, "blocks.2.hook_resid_pre"), find_hook(model, "blocks.1.hook_resid_post")
    assert before == after == HookPoint(2, 3)
    assert find_hook(model, "blocks.0.hook_resid_pre") == HookPoint(0, 3)
    assert find_hook(model, "blocks.2.hook_resid_post") == HookPoint(3, 3)


def test_gemmas_soft_cap_bounds_the_logits(model_of, rows):
    model = model_of("gemma2")
    hidden = 100 * torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    assert model.lm_head(hidden).abs().max() > 2
    assert unembed(model, hidden).abs().max() <= 2


@pytest.mark.parametrize("name", ["blocks.3.hook_resid_post", "blocks.7.hook_resid_pre"])
def test_a_block_that_the_model_does_not_have_is_refused_with_those_it_has(model_of, name):
    with pytest.raises(InputError, match=r"has 3 blocks; allowed: L from 0 to 2"):
        find_hook(model_of("llama"), name)


@pytest.mark.parametrize("name", ["", "blocks.x.hook_resid_post", "hook_embed", "blocks.1.ln2.hook_normalized"])
def test_a_hook_that_cannot_be_used_is_refused_with_those_that_can(model_of, name):
    with pytest.raises(InputError, match=r"hook_resid_pre.*hook_resid_post.*hook_attn_out.*hook_mlp_out"):
        find_hook(model_of("llama"), name)


def test_every_family_in_the_table_is_tested(model_of):
    assert {model_of(name).config.model_type for name in SEQUENTIAL + PARALLEL} == set(BLOCK_PARTS)


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("family", SEQUENTIAL + PARALLEL)
def test_running_only_what_lies_above_a_hook_inside_a_block_gives_the_same_bits(model_of, rows, family, hook):
    model, (tokens, mask) = model_of(family), rows
    if family in PARALLEL and "resid_mid" in hook:
        with pytest.raises(InputError, match="read the same residual stream"):
            find_hook(model, hook)
        return
    hook = find_hook(model, hook)
    below = run_below(model, hook, tokens, mask)
    with torch.no_grad():
        hidden = hidden_above(model, hook, below.residual, mask)
        whole = model.base_model(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
    real = mask.bool()
    assert torch.equal(hidden[real], whole[real])
    logits = full(model, tokens, mask).logits
    assert torch.equal(unembed(model, hidden)[real], logits[real])


@pytest.mark.parametrize("block", [0, 1, 2])
@pytest.mark.parametrize("family", SEQUENTIAL + PARALLEL)
def test_what_attention_and_mlp_add_is_the_difference_between_the_blocks_input_and_output(
    model_of, rows, family, block
):
    model, (tokens, mask) = model_of(family), rows
    at = {
        name: run_below(model, find_hook(model, f"blocks.{block}.hook_{name}"), tokens, mask)
        for name in ("resid_pre", "attn_out", "mlp_out", "resid_post")
    }
    before, attention, mlp, after = (part.activation for part in at.values())
    torch.testing.assert_close(before + attention + mlp, after, atol=1e-5, rtol=1e-5)
    assert attention.abs().max() > 1e-3
    assert mlp.abs().max() > 1e-3
    assert torch.equal(at["mlp_out"].residual, after)
    expected = after if family in PARALLEL else before + attention
    assert torch.equal(at["attn_out"].residual, expected)
    assert torch.equal(at["resid_pre"].residual, before)


@pytest.mark.parametrize("part", ["attention", "mlp"])
@pytest.mark.parametrize("family", SEQUENTIAL + PARALLEL)
def test_adding_to_the_residual_stream_at_the_injection_point_is_adding_to_the_hooks_activation(
    model_of, rows, family, part
):
    model, (tokens, mask) = model_of(family), rows
    hook = find_hook(model, f"blocks.1.hook_{'attn' if part == 'attention' else 'mlp'}_out")
    below = run_below(model, hook, tokens, mask)
    push = 0.3 * torch.randn(below.residual.shape, generator=torch.Generator().manual_seed(2))

    def pushed(module, args, output):
        return (output[0] + push, *output[1:]) if isinstance(output, tuple) else output + push

    handle = writer_of(model, 1, part).register_forward_hook(pushed)
    try:
        expected = full(model, tokens, mask).logits
    finally:
        handle.remove()
    with torch.no_grad():
        logits = unembed(model, hidden_above(model, hook, below.residual + push, mask))
    real = mask.bool()
    assert (expected - full(model, tokens, mask).logits)[real].abs().max() > 1e-2
    torch.testing.assert_close(logits[real], expected[real], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("hook", ["blocks.0.hook_attn_out", "blocks.1.hook_mlp_out", "blocks.1.hook_resid_mid"])
def test_the_model_is_the_same_again_after_a_hook_inside_a_block(model_of, rows, hook):
    model, (tokens, mask) = model_of("gemma2"), rows
    before, hook = full(model, tokens, mask).logits, find_hook(model, hook)
    below = run_below(model, hook, tokens, mask)
    residual = below.residual.clone().requires_grad_(True)
    hidden_above(model, hook, residual, mask)[mask.bool()].square().sum().backward()
    assert residual.grad[mask.bool()].abs().min() > 0
    with pytest.raises(RuntimeError):
        hidden_above(model, hook, torch.ones(1, 2, 5), mask[:1, :2])
    assert torch.equal(full(model, tokens, mask).logits, before)
    assert not [module for module in model.modules() if "forward" in vars(module)]


def test_a_family_whose_blocks_are_unknown_serves_on_the_residual_stream_alone(model_of, rows):
    model, (tokens, mask) = model_of("granite"), rows
    with pytest.raises(InputError, match=r"'granite'.*gpt_neox.*hook_resid_post"):
        find_hook(model, "blocks.1.hook_mlp_out")
    hook = find_hook(model, "blocks.1.hook_resid_post")
    with torch.no_grad():
        logits = unembed(model, hidden_above(model, hook, residual_stream(model, hook, tokens, mask), mask))
    assert torch.equal(logits[mask.bool()], full(model, tokens, mask).logits[mask.bool()])


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_neox"])
@pytest.mark.parametrize("hook", ["blocks.1.hook_resid_post", "blocks.1.hook_attn_out", "blocks.1.hook_mlp_out"])
def test_a_model_in_bfloat16_runs_from_its_own_residual_stream(tiny, tokenizer, rows, family, hook):
    model, (tokens, mask) = tiny.make_model(family, len(tokenizer)).bfloat16(), rows
    hook = find_hook(model, hook)
    below = run_below(model, hook, tokens, mask)
    assert below.residual.dtype == below.activation.dtype == torch.bfloat16
    with torch.no_grad():
        logits = unembed(model, hidden_above(model, hook, below.residual, mask))
    assert torch.equal(logits[mask.bool()], full(model, tokens, mask).logits[mask.bool()])


@pytest.mark.parametrize("hook", ["resid_post", "resid_mid", "attn_out", "mlp_out"])
def test_gradients_flow_below_a_hook_only_where_they_are_asked_for(tiny, tokenizer, rows, hook):
    model, (tokens, mask) = tiny.make_model("gemma2", len(tokenizer)), rows
    model.requires_grad_(True)
    hook = find_hook(model, f"blocks.1.hook_{hook}")
    assert not run_below(model, hook, tokens, mask).activation.requires_grad
    run_below(model, hook, tokens, mask, gradient=True).activation[mask.bool()].square().sum().backward()
    weights = [block.self_attn.v_proj.weight for block in decoder_blocks(model)]
    assert weights[0].grad.abs().max() > 0
    assert weights[1].grad.abs().max() > 0
    assert weights[2].grad is None


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "gemma2", "olmo2"])
def test_what_an_sae_reads_is_what_transformerlens_calls_by_that_name(model_of, tokenizer, tmp_path, family):
    bridges = pytest.importorskip("transformer_lens.model_bridge")
    model = model_of(family)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    bridge = bridges.TransformerBridge.boot_transformers(str(tmp_path), device="cpu")
    tokens = torch.arange(5, 15)[None]
    with torch.no_grad():
        _, cache = bridge.run_with_cache(tokens)
    for at in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post"):
        hook = f"blocks.1.hook_{at}"
        if (family, at) != ("gpt_neox", "resid_mid"):
            found = run_below(model, find_hook(model, hook), tokens, torch.ones_like(tokens)).activation
            torch.testing.assert_close(found, cache[hook], atol=1e-5, rtol=1e-5)


LAYER_NORM = {"gpt2", "gpt_neox", "gptj", "gpt_neo", "phi", "cohere", "stablelm"}


@pytest.mark.parametrize("architecture", [*SEQUENTIAL, *PARALLEL])
def test_the_direct_path_is_what_the_final_norm_and_the_unembedding_do_at_a_fixed_size(model_of, architecture):
    model = copy.deepcopy(model_of(architecture))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in final_norm(model).parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
    family = model.config.model_type
    n, d = model.get_output_embeddings().weight.shape
    weights = torch.randn(n, dtype=torch.float64, generator=generator)
    found = direct_path(model, weights)
    assert found.dtype == torch.float32
    x = torch.randn(50, d, generator=generator) + 0.5
    size = x.std(1, correction=0) if family in LAYER_NORM else x.square().mean(1).sqrt()
    norm, head = final_norm(model), model.get_output_embeddings().weight
    # The norm's bias is the same at x and -x, and no direction of the residual stream.
    logits = (norm(x) - norm(-x)).detach() / 2 @ head.T
    expected = (logits.double() @ weights).float() * size
    torch.testing.assert_close(x @ found, expected, rtol=1e-4, atol=1e-3)


def test_a_constant_in_all_unembeddings_cancels_where_the_weights_sum_to_nothing(model_of):
    model = copy.deepcopy(model_of("llama"))
    weights = torch.randn(model.config.vocab_size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights -= weights.mean()
    before = direct_path(model, weights)
    with torch.no_grad():
        model.get_output_embeddings().weight.add_(torch.randn(model.config.hidden_size))
    torch.testing.assert_close(direct_path(model, weights), before, rtol=1e-3, atol=1e-4)


def test_a_model_without_a_final_norm_has_no_direct_path(model_of):
    model = copy.deepcopy(model_of("llama"))
    del model.model.norm
    with pytest.raises(InputError, match="no final normalization; allowed: norm, ln_f"):
        direct_path(model, torch.ones(model.config.vocab_size, dtype=torch.float64))
