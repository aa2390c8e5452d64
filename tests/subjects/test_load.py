import copy
import json
import shutil
from dataclasses import replace

import pytest
import torch
import transformers

from isaerft import config
from isaerft.errors import InputError
from isaerft.layout import SubjectFolder
from isaerft.subjects import blocks
from isaerft.subjects.capture import capture
from isaerft.subjects.load import check_fit, check_positions, load_model, load_subject, verify_hook
from isaerft.subjects.points import HookPoint, find_hook
from isaerft.subjects.sae import fetch_sae

HOOKS = [f"blocks.1.hook_{at}" for at in ("resid_pre", "resid_post", "attn_out", "mlp_out")]
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


def test_a_loaded_subject_is_frozen_and_knows_its_place(subject):
    assert subject.hook.n_below == 2
    assert subject.language.bos == [1]
    assert subject.language.d_model == 32
    assert not subject.model.training
    assert not any(parameter.requires_grad for parameter in subject.model.parameters())


def test_a_model_that_is_not_there_is_named_in_one_line(tmp_path):
    missing = config.Subject(model=str(tmp_path / "none"), sae_path="sae")
    with pytest.raises(InputError, match="cannot be loaded") as caught:
        load_subject(missing, tmp_path, "cpu")
    assert "\n" not in str(caught.value)


def test_a_model_without_bos_must_say_so(tmp_path, subject_folder, tokenizer):
    bare = copy.deepcopy(tokenizer)
    bare.bos_token = None
    (tmp_path / "model").mkdir()
    for path in (subject_folder / "model").iterdir():
        (tmp_path / "model" / path.name).write_bytes(path.read_bytes())
    bare.save_pretrained(tmp_path / "model")
    options = config.Subject(model=str(tmp_path / "model"), sae_path="sae")
    with pytest.raises(InputError, match="prepend_bos: false"):
        load_model(options, SubjectFolder(tmp_path), "cpu")
    assert load_model(replace(options, prepend_bos=False), SubjectFolder(tmp_path), "cpu").bos == []


def cut(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:20_000])


def of_git_lfs(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def of_other_tokenizers(folder):
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["merges"] = [[["x"]]]
    path.write_text(json.dumps(tokenizer))


def of_no_size(folder):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_size": "wide"}))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (cut, r"model\.safetensors is cut: it has 20000 of \d+ bytes\); download or copy the file again"),
        (of_git_lfs, "is a git-lfs pointer, not the file itself.*git lfs pull"),
        (of_other_tokenizers, "untagged enum.*tokenizer.json is of another release"),
        (of_no_size, "cannot be loaded.*check that the folder is complete"),
    ],
)
def test_a_damaged_model_is_refused_with_its_cause_and_what_mends_it(subject_folder, tmp_path, spoil, said):
    shutil.copytree(subject_folder / "model", tmp_path / "model")
    spoil(tmp_path / "model")
    options = config.Subject(model=str(tmp_path / "model"), sae_path="sae")
    with pytest.raises(InputError, match=said) as caught:
        load_model(options, SubjectFolder(tmp_path), "cpu")
    assert "network" not in str(caught.value)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neo", "gptj"])
def test_rows_beyond_a_table_of_positions_are_refused_with_what_is_allowed(model_of, family):
    model = model_of(family)
    check_positions(model, {"corpus.context_size": 64, "max_length": 64})
    with pytest.raises(InputError, match=r"max_length 65, but .* has 64 positions; allowed: max_length up to 64"):
        check_positions(model, {"corpus.context_size": 64, "max_length": 65})
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, 65), 5))


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gemma2"])
def test_rows_beyond_what_a_rotary_model_was_trained_on_are_warned_of(model_of, family, caplog):
    check_positions(model_of(family), {"max_length": 64})
    assert not caplog.text
    check_positions(model_of(family), {"max_length": 65})
    assert "max_length 65: the model was trained on at most 64 tokens" in caplog.text


def test_a_table_with_spare_rows_is_known_and_a_model_without_a_limit_has_none():
    with pytest.raises(InputError, match="has 64 positions"):
        check_positions(other_model("OPT", OTHERS["OPT"]), {"max_length": 65})
    check_positions(other_model("Bloom", OTHERS["Bloom"]), {"max_length": 10_000})


def test_the_corpus_and_the_behaviors_are_compared_when_the_model_is_loaded(model_of, tokenizer, tmp_path):
    for part in (model_of("gpt2"), tokenizer):
        part.save_pretrained(tmp_path / "model")
    options = config.Subject(model=str(tmp_path / "model"), sae_path="sae", corpus=config.Corpus(context_size=65))
    with pytest.raises(InputError, match=r"corpus\.context_size 65, max_length 66, but"):
        load_model(options, SubjectFolder(tmp_path), "cpu", max_length=66)
    short = replace(options, corpus=config.Corpus(context_size=64))
    assert load_model(short, SubjectFolder(tmp_path), "cpu", max_length=64).d_model == 32


def test_two_subjects_of_one_study_sit_at_two_hooks_of_one_model(subject_folder, tiny, tmp_path, records):
    hooks = {"early": "blocks.0.hook_mlp_out", "late": "blocks.2.hook_resid_pre"}
    cfg = {"dtype": "float32", "device": "cpu", "reshape_activations": "none"}
    for name, hook in hooks.items():
        tiny.write_sae(tmp_path / "given" / name, tiny.random_sae(), hook_name=hook, **cfg)
    plan = config.plan_from_dict(
        {
            "study": "two",
            "subjects": {
                name: {
                    "model": str(subject_folder / "model"),
                    "sae_path": str(tmp_path / "given" / name),
                    "corpus": {"sample": True},
                }
                for name in hooks
            },
            "behaviors": {n: {"description": n, "rule": True} for n in ("a", "b")},
            "adapters": {"bias": {}},
            "sources": {"local": {}},
            "judges": {"lexical": {}},
            "primary": {"adapter": "bias", "measure": "attribution", "source": "local", "judge": "lexical"},
        }
    )
    loaded = {}
    for name, options in plan.study.subjects.items():
        paths = SubjectFolder(tmp_path / name)
        fetch_sae(options, load_model(options, paths, "cpu"), paths.sae)
        loaded[name] = load_subject(options, paths.path, "cpu")
    assert loaded["early"].hook == HookPoint(1, 3, "mlp")
    assert loaded["late"].hook == HookPoint(2, 3)
    early, late = (capture(part, records[:2], 32, 2) for part in loaded.values())
    assert torch.equal(early.tokens, late.tokens)
    assert not torch.equal(early.residual, late.residual)
    assert set(plan.permuted_subjects) == {"early-permuted", "late-permuted"}


def test_a_tokenizer_that_does_not_tell_where_its_tokens_lie_is_refused(subject_folder, tmp_path):
    from transformers import AutoConfig, ByT5Tokenizer

    AutoConfig.from_pretrained(subject_folder / "model").save_pretrained(tmp_path / "model")
    weights = subject_folder / "model" / "model.safetensors"
    (tmp_path / "model" / weights.name).write_bytes(weights.read_bytes())
    ByT5Tokenizer(bos_token="<s>").save_pretrained(tmp_path / "model")
    options = config.Subject(model=str(tmp_path / "model"), sae_path="sae")
    with pytest.raises(InputError, match="character offsets"):
        load_model(options, SubjectFolder(tmp_path), "cpu")


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_a_random_model_has_the_architecture_and_tokenizer_of_its_own_model_and_none_of_its_weights(
    model_of, tokenizer, tmp_path, family
):
    model_of(family).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    options = config.Subject(model=str(tmp_path), corpus=config.Corpus(context_size=32))
    paths = SubjectFolder(tmp_path)
    given, *drawn = (load_model(options, paths, "cpu", seed=seed) for seed in (None, 3, 3, 4))
    for name, own in given.model.named_parameters():
        same, again, other = (model.model.get_parameter(name) for model in drawn)
        assert torch.equal(same, again)
        # Biases that are zero and norms that are one everywhere have no spread to draw from.
        if own.std() > 0:
            assert not (same == own).any()
            assert not torch.equal(same, other)
        torch.testing.assert_close(same.mean(), own.mean(), atol=6 * float(own.std()) / own.numel() ** 0.5, rtol=0)
        torch.testing.assert_close(same.std(), own.std(), rtol=0.6, atol=0)
    assert drawn[0].tokenizer.get_vocab() == given.tokenizer.get_vocab()
    assert drawn[0].model.config.to_dict() == given.model.config.to_dict()
    tied = given.model.get_input_embeddings().weight is given.model.get_output_embeddings().weight
    of_drawn = drawn[0].model.get_input_embeddings().weight is drawn[0].model.get_output_embeddings().weight
    assert tied == of_drawn
    verify_hook(drawn[0].model, find_hook(drawn[0].model, "blocks.1.hook_resid_post"))


def test_widths_that_do_not_match_are_refused_with_both(tiny, subject, subject_folder, tmp_path):
    with pytest.raises(InputError, match=r"reads 16 dimensions.*have 32"):
        check_fit(subject.model, subject.hook, 16, 16, "blocks.1.hook_resid_post")
    check_fit(subject.model, subject.hook, 32, 32, "blocks.1.hook_resid_post")
    tiny.write_sae(tmp_path / "sae", tiny.random_sae(d_in=16))
    options = config.Subject(model=str(subject_folder / "model"), sae_path="sae")
    with pytest.raises(InputError, match=r"reads 16 dimensions.*have 32"):
        load_subject(options, tmp_path, "cpu")


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
