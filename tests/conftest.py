"""Tiny random models and SAEs of real classes for all tests that need torch; nothing is downloaded."""

import copy
import json
import os
import runpy
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")


def pytest_runtest_setup(item):
    """Skip the tests that need a CUDA device where there is none."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


D_MODEL, N_LAYERS, D_SAE = 32, 3, 48
SENTENCES = [
    "say hello to the cat",
    "say hello to the dog , kindly",
    "the user asks for a story and the assistant tells it",
    "please tell me about the garden and the weather",
    "hello hello world , the world is round",
]
ARCHITECTURES = ("llama", "gpt2", "gpt_neox", "gemma2", "gemma3", "qwen2", "qwen3", "mistral")
CHAT = "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
CHAT += "{% if add_generation_prompt %}<assistant>{% endif %}"


def make_tokenizer():
    """Return a byte-level BPE with a few merges, whose tokens can straddle the border of prompt and completion."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<pad>", "<bos>", "<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", model_max_length=64
    )


@pytest.fixture(scope="session")
def tokenizer():
    """The tokenizer of `make_tokenizer`, the same for the whole session."""
    return make_tokenizer()


def make_model(architecture, vocab_size, *, n_layers=N_LAYERS, seed=0):
    """Return a random model of a real Hugging Face class, with weights large enough for every block to matter."""
    import torch
    import transformers

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    sizes = {
        "vocab_size": vocab_size,
        "hidden_size": D_MODEL,
        "intermediate_size": 48,
        "num_hidden_layers": n_layers,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "initializer_range": 0.25,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    grouped = {"num_key_value_heads": 2}
    narrow = grouped | {"head_dim": 8, "sliding_window": 4}
    configs = {
        "llama": ("Llama", grouped),
        "gpt2": ("GPT2", {}),
        "gpt_neox": ("GPTNeoX", {}),
        "gemma2": ("Gemma2", narrow | {"final_logit_softcapping": 2.0, "query_pre_attn_scalar": 8}),
        "gemma3": ("Gemma3", narrow | {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}),
        "qwen2": ("Qwen2", grouped),
        "qwen3": ("Qwen3", grouped | {"head_dim": 8}),
        "mistral": ("Mistral", narrow),
        "gpt_neox_sequential": ("GPTNeoX", {"use_parallel_residual": False}),
        "gpt_neo": ("GPTNeo", {"attention_types": [[["global", "local", "global"], 1]], "window_size": 4}),
        "gptj": ("GPTJ", {"rotary_dim": 4}),
        "gemma": ("Gemma", grouped | {"head_dim": 8}),
        "olmo2": ("Olmo2", grouped),
        "phi": ("Phi", grouped),
        "phi3": ("Phi3", grouped),
        "stablelm": ("StableLm", grouped),
        "stablelm_parallel": ("StableLm", grouped | {"use_parallel_residual": True}),
        "cohere": ("Cohere", grouped | {"logit_scale": 0.25}),
        "llama_wide": ("Llama", grouped | {"head_dim": 12, "attention_bias": True}),
        "gemma2_wide": ("Gemma2", narrow | {"head_dim": 12, "query_pre_attn_scalar": 12}),
        "granite": ("Granite", grouped | {"logits_scaling": 4.0, "residual_multiplier": 0.5}),
    }
    name, extra = configs[architecture]
    text = "Text" if name == "Gemma3" else ""
    config = getattr(transformers, f"{name}{text}Config")(**sizes, **extra)
    config._attn_implementation = "eager" if name in ("Gemma2", "GPTJ", "GPTNeo") else "sdpa"
    model = getattr(transformers, f"{name}LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM")(config)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def model_of(tokenizer):
    """Return the model of an architecture, the same for the whole session; tests must not change it."""
    return cache(lambda architecture: make_model(architecture, len(tokenizer)))


def write_sae(folder, weights, *, hook_name="blocks.1.hook_resid_post", architecture="standard", **cfg):
    """Write an SAE in SAELens' format without sae_lens."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    d_sae, d_in = weights["W_dec"].shape
    values = {"d_in": d_in, "d_sae": d_sae, "architecture": architecture, "normalize_activations": "none"}
    values |= {"apply_b_dec_to_input": True, "metadata": {"hook_name": hook_name, "sae_lens_version": "6.54.12"}} | cfg
    (folder / "cfg.json").write_text(json.dumps(values))
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "sae_weights.safetensors")
    return folder


def random_sae(d_in=D_MODEL, d_sae=D_SAE, seed=0):
    """Return weights with which about a third of the latents fire on a token, and latent 0 never."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    bias = torch.full((d_sae,), -1.5)
    bias[0] = -1000
    return {
        "W_enc": torch.randn(d_in, d_sae, generator=generator) / d_in**0.5,
        "b_enc": bias,
        "W_dec": torch.randn(d_sae, d_in, generator=generator) / d_in**0.5,
        "b_dec": 0.1 * torch.randn(d_in, generator=generator),
    }


def place(folder, model, tokenizer, hook_name, *, skip=False, latents=None, **cfg):
    """Return a subject on `model` whose random dictionary reads at `hook_name`: an SAE, or the MLP's transcoder."""
    from isaerft.subjects.dictionary import load_dictionary
    from isaerft.subjects.load import LoadedModel, LoadedSubject, placed

    hook_z = hook_name.endswith("hook_z")
    heads = model.config.num_attention_heads * getattr(model.config, "head_dim", D_MODEL // 4) if hook_z else D_MODEL
    weights = latents or random_sae(heads)
    if hook_name.endswith(("hook_in", "hook_normalized")):
        block = hook_name.split(".")[1]
        metadata = {"hook_name_out": f"blocks.{block}.hook_mlp_out", "sae_lens_version": "6.54.12"}
        cfg |= {"apply_b_dec_to_input": False, "metadata": metadata | {"hook_name": hook_name}}
        cfg["architecture"] = "skip_transcoder" if skip else "transcoder"
        if skip:
            import torch

            weights["W_skip"] = torch.randn(D_MODEL, D_MODEL, generator=torch.Generator().manual_seed(5)) / D_MODEL
    dictionary = load_dictionary(write_sae(folder, weights, hook_name=hook_name, **cfg))
    dictionary, hook = placed(dictionary, model)
    return LoadedSubject(LoadedModel(model, tokenizer, True), dictionary, hook)


def perfect_sae(d_in=D_MODEL):
    """Return weights that reconstruct the activation exactly: a latent for each sign of each dimension."""
    import torch

    eye = torch.eye(d_in)
    zeros = {"b_enc": torch.zeros(2 * d_in), "b_dec": torch.zeros(d_in)}
    return {"W_enc": torch.cat([eye, -eye], 1), "W_dec": torch.cat([eye, -eye]), **zeros}


@pytest.fixture(scope="session")
def tiny():
    """The functions and sizes of this module."""
    return SimpleNamespace(
        make_model=make_model,
        write_sae=write_sae,
        random_sae=random_sae,
        perfect_sae=perfect_sae,
        place=place,
        architectures=ARCHITECTURES,
        chat_template=CHAT,
        d_model=D_MODEL,
        d_sae=D_SAE,
        n_layers=N_LAYERS,
    )


@pytest.fixture(scope="session")
def subject_folder(tmp_path_factory, tokenizer, model_of):
    """A subject's folder: model/ (Llama) and sae/ (random) after its second block."""
    folder = tmp_path_factory.mktemp("subject")
    model_of("llama").save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    write_sae(folder / "sae", random_sae())
    return folder


@pytest.fixture(scope="session")
def subject(subject_folder):
    """The subject of `subject_folder`, loaded; tests must not change it."""
    from isaerft import config
    from isaerft.subjects.load import load_subject

    options = config.Subject(model=str(subject_folder / "model"), sae_path="sae")
    return load_subject(options, subject_folder, "cpu")


@pytest.fixture
def chat(subject, tokenizer, tiny):
    """The subject's model, with a tokenizer that has a chat template."""
    template = copy.deepcopy(tokenizer)
    template.chat_template = tiny.chat_template
    return replace(subject.language, tokenizer=template)


@pytest.fixture(scope="session")
def records():
    """Sixteen SFT records with prompts and completions of different lengths."""
    from isaerft.behaviors import Record

    starts = ("say hello", "tell me about the garden", "the user asks", "please tell the dog , kindly")
    ends = (" to the cat", " and the weather", " world", " for a story and the world is round")
    return [Record(f"r{i}", starts[i % 4], ends[(i + i // 4) % 4]) for i in range(16)]


@pytest.fixture(scope="session")
def cached(subject, records):
    """The captured records: twelve to train on, four held out."""
    from isaerft.subjects.capture import capture

    return capture(subject, records[:12], 32, 5), capture(subject, records[12:], 32, 5)


@pytest.fixture
def openai_server():
    """An OpenAI-compatible server on loopback; tests set its answers and read its requests."""
    started = runpy.run_path(str(Path(__file__).parent / "servers" / "openai_server.py"))["OpenAIServer"]()
    yield started
    started.close()


@pytest.fixture
def hub(monkeypatch):
    """A server on loopback that stands for the Hugging Face hub, and a token for it in the environment."""
    from huggingface_hub import constants

    from tests.servers.hub import TOKEN, Hub

    with Hub() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield running
