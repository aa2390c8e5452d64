import pytest
import torch
from transformers import GenerationConfig

from isaerft.adapters.base import adapted, make_adapter
from isaerft.behaviors import Record
from isaerft.changes.generate import acting, answers, padded_left, prompt_tokens
from isaerft.errors import InputError
from isaerft.subjects.dictionary import load_dictionary
from isaerft.subjects.hooks import find_hook, hidden_above, unembed
from isaerft.subjects.load import LoadedModel, LoadedSubject

HOOKS = ["blocks.1.hook_resid_post", "blocks.0.hook_resid_pre", "blocks.2.hook_resid_post"]
INSIDE = ["blocks.1.hook_mlp_out", "blocks.1.hook_attn_out", "blocks.1.hook_resid_mid"]


def subject_at(tiny, tmp_path, model, tokenizer, hook_name):
    # Without a threshold latents fire at embeddings too, which are short.
    sae = tiny.random_sae() | {"b_enc": torch.zeros(tiny.d_sae), "b_dec": torch.zeros(tiny.d_model)}
    folder = tiny.write_sae(tmp_path / "sae", sae, hook_name=hook_name)
    return LoadedSubject(
        LoadedModel(model, tokenizer, True), load_dictionary(folder, center=False), find_hook(model, hook_name)
    )


def stirred(subject, kind="scale"):
    adapter = make_adapter(kind, subject.dictionary.d_sae, {})
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(0.7 * torch.randn(parameter.shape, generator=generator))
    return adapter.requires_grad_(False)


@pytest.mark.parametrize("kind", ["bias", "scale"])
@pytest.mark.parametrize("hook_name", [*HOOKS, *INSIDE])
def test_the_adapter_acts_as_on_the_cached_path_it_was_trained_on(
    tiny, tmp_path, model_of, tokenizer, records, hook_name, kind
):
    from isaerft.subjects.capture import capture

    subject = subject_at(tiny, tmp_path, model_of("llama"), tokenizer, hook_name)
    adapter = stirred(subject, kind)
    batch = capture(subject, records[:5], 32, 5).batch(torch.arange(5))
    moved = adapted(subject.dictionary, adapter, batch)
    padded = moved.new_zeros(*batch.mask.shape, moved.shape[-1]).index_put(batch.mask.nonzero(as_tuple=True), moved)
    with torch.no_grad():
        expected = unembed(subject.model, hidden_above(subject.model, subject.hook, padded, batch.mask.long()))
    tokens = torch.zeros_like(batch.mask, dtype=torch.int64)
    tokens[batch.mask] = batch.tokens
    with torch.no_grad(), acting(subject, adapter):
        logits = subject.model(input_ids=tokens, attention_mask=batch.mask.long()).logits
    plain = subject.model(input_ids=tokens, attention_mask=batch.mask.long()).logits
    torch.testing.assert_close(logits[batch.mask], expected[batch.mask], atol=1e-4, rtol=1e-4)
    assert (logits - plain)[batch.mask].abs().max() > 1e-3


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "gemma2", "gemma3", "qwen3", "mistral"])
def test_an_answer_does_not_depend_on_the_longer_prompts_beside_it(tiny, tmp_path, model_of, tokenizer, architecture):
    subject = subject_at(tiny, tmp_path, model_of(architecture), tokenizer, HOOKS[0])
    adapter = stirred(subject)
    texts = ["say", "please tell the dog , kindly", "the user asks"]
    prompts = [prompt_tokens(Record("r", text, "x"), subject.language, 32) for text in texts]
    for used in (None, adapter):
        together = answers(subject, prompts, used, max_new_tokens=6, batch_size=3)
        assert together == answers(subject, prompts, used, max_new_tokens=6, batch_size=1)


def test_an_adapter_that_forces_a_token_makes_the_model_say_it(tiny, tmp_path, model_of, tokenizer):
    subject = subject_at(tiny, tmp_path, model_of("llama"), tokenizer, "blocks.2.hook_resid_post")
    token = tokenizer.convert_tokens_to_ids("w")
    direction = subject.model.get_output_embeddings().weight[token]
    adapter = make_adapter("bias", subject.dictionary.d_sae, {})
    with torch.no_grad():  # the change of latents that comes nearest to this direction in the residual stream
        adapter.bias.copy_(torch.linalg.lstsq(subject.dictionary.W_dec.T, 100 * direction).solution)
    prompts = [prompt_tokens(Record("r", "say hello", "x"), subject.language, 32)]
    assert answers(subject, prompts, adapter, max_new_tokens=5, batch_size=1) == ["wwwww"]
    assert answers(subject, prompts, None, max_new_tokens=5, batch_size=1) != ["wwwww"]


def test_sampling_follows_its_seed_and_leaves_the_global_stream_alone(subject):
    prompts = [prompt_tokens(Record("r", text, "x"), subject.language, 32) for text in ("say hello", "the user")]
    how = {"max_new_tokens": 8, "batch_size": 2, "temperature": 1.5}
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = answers(subject, prompts, None, seed=5, **how)
    assert torch.equal(torch.rand(3), expected)
    assert answers(subject, prompts, None, seed=5, **how) == first
    assert answers(subject, prompts, None, seed=6, **how) != first


def test_a_prompt_that_is_too_long_loses_its_beginning_but_not_bos(subject):
    record = Record("r", "please tell the dog , kindly", "x")
    whole, cut = (prompt_tokens(record, subject.language, n) for n in (32, 5))
    assert cut == [*subject.language.bos, *whole[-4:]]
    with pytest.raises(InputError, match="no token of its prompt fits"):
        prompt_tokens(record, subject.language, 1)


def test_rows_are_padded_on_the_left():
    tokens, mask = padded_left([[5, 6, 7], [8]], 0)
    assert tokens.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_the_models_own_settings_do_not_bend_the_answers_but_say_where_they_end(subject):
    prompts = [prompt_tokens(Record("r", text, "x"), subject.language, 32) for text in ("say hello", "the user")]
    how = {"max_new_tokens": 12, "batch_size": 2}
    plain, own = answers(subject, prompts, None, **how), subject.model.generation_config
    try:
        subject.model.generation_config = GenerationConfig(repetition_penalty=9.0, no_repeat_ngram_size=1)
        assert answers(subject, prompts, None, **how) == plain
        subject.model.generation_config = GenerationConfig(eos_token_id=list(range(len(subject.language.tokenizer))))
        ended = answers(subject, prompts, None, **how)
    finally:
        subject.model.generation_config = own
    assert all(len(short) < len(text) for short, text in zip(ended, plain, strict=True))
