import copy

import pytest
import torch

from isaerft.errors import InputError
from isaerft.subjects import blocks
from isaerft.subjects.site import find_site
from isaerft.subjects.verify import verify_site

HOOKS = [f"blocks.1.hook_{at}" for at in ("resid_pre", "resid_post", "attn_out", "mlp_out")]


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2", "gemma3", "cohere", "olmo2"])
def test_a_known_model_passes(model_of, family, hook):
    verify_site(model_of(family), find_site(model_of(family), hook))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("hook", HOOKS)
def test_a_model_in_half_precision_passes(tiny, hook, dtype):
    model = tiny.make_model("gemma2", 300).to(dtype)
    verify_site(model, find_site(model, hook))


def test_granites_scaled_logits_are_known(model_of):
    verify_site(model_of("granite"), find_site(model_of("granite"), "blocks.1.hook_resid_post"))


def test_an_unknown_step_after_the_unembedding_is_refused(model_of):
    class Doubled(type(model_of("llama"))):
        def forward(self, **inputs):
            output = super().forward(**inputs)
            output.logits = output.logits * 1.5
            return output

    model = copy.deepcopy(model_of("llama"))
    model.__class__ = Doubled
    with pytest.raises(InputError, match=r"Doubled.*model's own logits.*differ by"):
        verify_site(model, find_site(model, "blocks.1.hook_resid_post"))


@pytest.mark.parametrize("hook", ["blocks.1.hook_attn_out", "blocks.1.hook_mlp_out"])
def test_a_block_that_scales_what_its_parts_give_is_refused_where_the_sae_reads_a_part(model_of, monkeypatch, hook):
    model = model_of("granite")
    monkeypatch.setitem(blocks.LAYOUTS, "granite", blocks.LAYOUTS["llama"])
    with pytest.raises(InputError, match=r"Granite.*float32"):
        verify_site(model, find_site(model, hook))


def test_a_parallel_block_taken_for_a_sequential_one_is_refused(model_of, monkeypatch):
    model = model_of("phi")
    monkeypatch.setitem(blocks.LAYOUTS, "phi", blocks.LAYOUTS["llama"])
    with pytest.raises(InputError, match="differ by"):
        verify_site(model, find_site(model, "blocks.1.hook_attn_out"))


def test_logits_that_are_not_finite_are_refused_with_another_number_format(model_of):
    model = copy.deepcopy(model_of("llama"))
    model.lm_head.weight.data[5] = torch.inf
    with pytest.raises(InputError, match=r"not finite.*bfloat16"):
        verify_site(model, find_site(model, "blocks.1.hook_resid_post"))
