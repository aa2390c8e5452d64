from itertools import pairwise

import pytest
import torch

from isaerft.errors import InputError
from isaerft.subjects.site import Site, decoder_blocks, find_site, hidden_above, residual_stream, unembed

LENGTHS = (9, 6, 1)


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
    site = Site(n_below, 3)
    real = mask.bool()
    with torch.no_grad():
        hidden = hidden_above(model, site, residual_stream(model, site, tokens, mask), mask)
        logits = unembed(model, hidden[real])
        whole = model.base_model(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
    torch.testing.assert_close(hidden[real], whole[real], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(logits, full(model, tokens, mask).logits[real], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("n_below", range(3))
def test_the_residual_stream_is_the_hidden_state_that_transformers_reports(model, rows, n_below):
    tokens, mask = rows
    expected = full(model, tokens, mask).hidden_states[n_below]
    real = mask.bool()
    residual = residual_stream(model, Site(n_below, 3), tokens, mask)
    torch.testing.assert_close(residual[real], expected[real], atol=1e-6, rtol=1e-6)


def test_every_block_below_the_site_matters(model, rows):
    tokens, mask = rows
    streams = [residual_stream(model, Site(n, 3), tokens, mask) for n in range(4)]
    assert all((a - b).abs().max() > 1e-2 for a, b in pairwise(streams))


def test_a_row_does_not_depend_on_its_padding(model, rows):
    tokens, mask = rows
    alone = residual_stream(model, Site(2, 3), tokens[1:2, :6], mask[1:2, :6])
    together = residual_stream(model, Site(2, 3), tokens, mask)[1:2, :6]
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    above = hidden_above(model, Site(2, 3), alone, mask[1:2, :6])
    padded = torch.cat([alone, torch.full_like(alone, 7.0)], 1)
    longer = torch.cat([mask[1:2, :6], torch.zeros_like(mask[1:2, :6])], 1)
    torch.testing.assert_close(hidden_above(model, Site(2, 3), padded, longer)[:, :6], above, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("n_below", range(4))
def test_gradients_flow_back_to_the_given_residual_stream(model, rows, n_below):
    tokens, mask = rows
    site = Site(n_below, 3)
    residual = residual_stream(model, site, tokens, mask).requires_grad_(True)
    hidden_above(model, site, residual, mask)[mask.bool()].square().sum().backward()
    assert residual.grad[mask.bool()].abs().max() > 0
    assert not residual.grad[~mask.bool()].any()


@pytest.mark.parametrize("n_below", range(4))
def test_the_model_is_the_same_again_afterwards_also_after_an_exception(model, rows, n_below):
    tokens, mask = rows
    site = Site(n_below, 3)
    before = full(model, tokens, mask).logits
    # transformers leaves hooks of its own on the blocks.
    hooks = [(dict(block._forward_hooks), dict(block._forward_pre_hooks)) for block in decoder_blocks(model)]
    residual_stream(model, site, tokens, mask)
    with pytest.raises(RuntimeError):
        hidden_above(model, site, torch.ones(1, 2, 5), mask[:1, :2])
    with pytest.raises(IndexError):
        residual_stream(model, site, torch.full((1, 2), 10**6), mask[:1, :2])
    assert torch.equal(full(model, tokens, mask).logits, before)
    assert not [block for block in decoder_blocks(model) if "forward" in vars(block)]
    assert hooks == [(dict(block._forward_hooks), dict(block._forward_pre_hooks)) for block in decoder_blocks(model)]


def test_the_input_of_a_block_is_the_output_of_the_one_before(model, rows):
    before, after = find_site(model, "blocks.2.hook_resid_pre"), find_site(model, "blocks.1.hook_resid_post")
    assert before == after == Site(2, 3)
    assert find_site(model, "blocks.0.hook_resid_pre") == Site(0, 3)
    assert find_site(model, "blocks.2.hook_resid_post") == Site(3, 3)


def test_gemmas_soft_cap_bounds_the_logits(model_of, rows):
    model = model_of("gemma2")
    hidden = 100 * torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    assert model.lm_head(hidden).abs().max() > 2
    assert unembed(model, hidden).abs().max() <= 2


@pytest.mark.parametrize("name", ["blocks.3.hook_resid_post", "blocks.7.hook_resid_pre"])
def test_a_block_that_the_model_does_not_have_is_refused_with_those_it_has(model_of, name):
    with pytest.raises(InputError, match=r"has 3 blocks; allowed: L from 0 to 2"):
        find_site(model_of("llama"), name)


@pytest.mark.parametrize("name", ["", "blocks.1.hook_mlp_out", "blocks.x.hook_resid_post", "hook_embed"])
def test_a_hook_outside_the_residual_stream_is_refused(model_of, name):
    with pytest.raises(InputError, match=r"hook_resid_pre, blocks\.L\.hook_resid_post"):
        find_site(model_of("llama"), name)
