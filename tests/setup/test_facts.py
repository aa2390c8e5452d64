"""What the small files of models and SAEs say, compared with the models themselves."""

import json
import time

import pytest

from isaerft.config import Subject
from isaerft.errors import InputError
from isaerft.setup import facts
from isaerft.setup.facts import model_facts, sae_facts, within


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2", "gemma3", "qwen2", "mistral", "phi", "gptj"])
def test_sizes_are_those_of_the_model(tmp_path, model_of, tokenizer, family):
    model = model_of(family)
    model.config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = model_facts(Subject(model=str(tmp_path)))
    config = model.config.get_text_config()
    assert (found.n_blocks, found.d_model, found.vocabulary) == (
        config.num_hidden_layers,
        config.hidden_size,
        config.vocab_size,
    )
    of_blocks = [part for name, part in model.named_parameters() if any(digit in name for digit in "012")]
    blocks = sum(part.numel() for part in of_blocks if part.dim() > 1)
    assert found.n_blocks * found.block_parameters == pytest.approx(blocks, rel=0.15)
    assert found.positions == 64
    assert found.has_bos is True
    assert found.is_chat is False


def test_a_tokenizer_without_bos_and_one_with_a_template_are_told(tmp_path, model_of):
    model_of("qwen2").config.save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": None, "chat_template": "{{ x }}"}))
    found = model_facts(Subject(model=str(tmp_path)))
    assert (found.has_bos, found.is_chat) == (False, True)


def test_a_config_without_sizes_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(InputError, match="lacks the sizes of a language model"):
        model_facts(Subject(model=str(tmp_path)))


def test_a_model_that_is_not_within_reach_is_unknown_and_no_error():
    assert model_facts(Subject(model="nobody/has-this-model")) is None


def test_a_fetch_that_does_not_end_is_given_up(monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: time.sleep(60))
    monkeypatch.setattr(facts, "FETCH_SECONDS", 0.2)
    start = time.monotonic()
    assert model_facts(Subject(model="somebody/slow")) is None
    assert time.monotonic() - start < 5
    assert within(5, lambda: 3) == 3


@pytest.mark.parametrize(
    ("release", "sae_id", "d_sae", "n_below", "l0"),
    [
        ("gemma-scope-2b-pt-res-canonical", "layer_20/width_16k/canonical", 16384, 21, 71),
        ("gpt2-small-res-jb", "blocks.8.hook_resid_pre", None, 8, None),
        ("gemma-scope-2b-pt-res", "layer_5/width_1m/average_l0_9", 2**20, 6, 9),
    ],
)
def test_names_of_pretrained_saes_tell_layer_width_and_sparsity(release, sae_id, d_sae, n_below, l0):
    found = sae_facts(Subject(model="m", release=release, sae_id=sae_id))
    assert (found.d_sae, found.n_below, found.l0) == (d_sae, n_below, l0)


def test_the_folder_of_an_sae_tells_what_its_card_says(tmp_path, tiny):
    tiny.write_sae(tmp_path / "sae", tiny.random_sae(), hook_name="blocks.1.hook_resid_post")
    found = sae_facts(Subject(model="m", sae_path=str(tmp_path / "sae")))
    assert (found.d_sae, found.d_in, found.n_below) == (48, 32, 2)
