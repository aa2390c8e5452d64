import copy

import pytest
import torch
import transformers

from isaerft.errors import InputError
from isaerft.subjects import hooks as blocks
from isaerft.subjects.hooks import find_hook
from isaerft.subjects.load import verify_hook

HOOKS = [f"blocks.1.hook_{at}" for at in ("resid_pre", "resid_post", "attn_out", "mlp_out")]


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2", "gemma3", "cohere", "olmo2"])
def test_a_known_model_passes(model_of, family, hook):
    verify_hook(model_of(family), find_hook(model_of(family), hook))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("hook", HOOKS)
def test_a_model_in_half_precision_passes(tiny, hook, dtype):
    model = tiny.make_model("gemma2", 300).to(dtype)
    verify_hook(model, find_hook(model, hook))


def test_granites_scaled_logits_are_known(model_of):
    verify_hook(model_of("granite"), find_hook(model_of("granite"), "blocks.1.hook_resid_post"))


def test_an_unknown_step_after_the_unembedding_is_refused(model_of):
    class Doubled(type(model_of("llama"))):
        def forward(self, **inputs):
            output = super().forward(**inputs)
            output.logits = output.logits * 1.5
            return output

    model = copy.deepcopy(model_of("llama"))
    model.__class__ = Doubled
    with pytest.raises(InputError, match=r"Doubled.*model's own logits.*differ by"):
        verify_hook(model, find_hook(model, "blocks.1.hook_resid_post"))


@pytest.mark.parametrize("hook", ["blocks.1.hook_attn_out", "blocks.1.hook_mlp_out"])
def test_a_block_that_scales_what_its_parts_give_is_refused_where_the_sae_reads_a_part(model_of, monkeypatch, hook):
    model = model_of("granite")
    monkeypatch.setitem(blocks.BLOCK_PARTS, "granite", blocks.BLOCK_PARTS["llama"])
    with pytest.raises(InputError, match=r"Granite.*float32"):
        verify_hook(model, find_hook(model, hook))


def test_a_parallel_block_taken_for_a_sequential_one_is_refused(model_of, monkeypatch):
    model = model_of("phi")
    monkeypatch.setitem(blocks.BLOCK_PARTS, "phi", blocks.BLOCK_PARTS["llama"])
    with pytest.raises(InputError, match="differ by"):
        verify_hook(model, find_hook(model, "blocks.1.hook_attn_out"))


def test_logits_that_are_not_finite_are_refused_with_another_number_format(model_of):
    model = copy.deepcopy(model_of("llama"))
    model.lm_head.weight.data[5] = torch.inf
    with pytest.raises(InputError, match=r"not finite.*bfloat16"):
        verify_hook(model, find_hook(model, "blocks.1.hook_resid_post"))


SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.25,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GROUPED = {"num_key_value_heads": 2}
EXPERTS = GROUPED | {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8}
OTHERS = {
    "Bloom": {"n_head": 4, "n_layer": 3},
    "Cohere2": GROUPED | {"sliding_window": 4},
    "Exaone4": GROUPED | {"sliding_window": 4, "sliding_window_pattern": 2},
    "Falcon": {},
    "Glm4": GROUPED | {"head_dim": 8},
    "GptOss": EXPERTS,
    "Mixtral": EXPERTS,
    "Mpt": {"d_model": 32, "n_heads": 4, "n_layers": 3},
    "Nemotron": GROUPED,
    "OPT": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "Olmo3": GROUPED | {"sliding_window": 4},
    "Qwen3Moe": EXPERTS | {"moe_intermediate_size": 16},
    "SmolLM3": GROUPED,
    "Starcoder2": GROUPED,
}


def other_model(name, extra):
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**(SIZES | extra))
    return transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)


@pytest.mark.parametrize("name", OTHERS)
def test_the_residual_stream_of_families_that_nothing_here_names_serves_as_well(name):
    model = other_model(name, OTHERS[name])
    for hook in ("blocks.0.hook_resid_pre", "blocks.1.hook_resid_post", "blocks.2.hook_resid_post"):
        verify_hook(model, find_hook(model, hook))


def test_a_model_that_scales_its_input_outside_the_blocks_is_refused():
    model = other_model("CTRL", {"n_embd": 32, "n_head": 4, "n_layer": 3, "dff": 48, "n_positions": 64})
    with pytest.raises(InputError, match="CTRL"):
        verify_hook(model, find_hook(model, "blocks.1.hook_resid_post"))


@pytest.mark.parametrize("hook", HOOKS)
def test_the_text_half_of_a_model_that_also_reads_images_serves(hook):
    text = SIZES | GROUPED | {"head_dim": 8, "sliding_window": 4}
    sight = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = transformers.Gemma3Config(
        text_config=text, vision_config=sight | {"image_size": 28, "patch_size": 14}, mm_tokens_per_image=4
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    assert type(model).__name__ == "Gemma3ForConditionalGeneration"
    verify_hook(model, find_hook(model, hook))
