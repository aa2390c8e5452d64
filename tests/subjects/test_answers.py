import pytest
import torch
from transformers import GenerationConfig

from isaerft.behaviors import Record
from isaerft.errors import InputError
from isaerft.subjects.answers import answers, continuations, padded_left, prompt_tokens


def test_sampling_follows_its_seed_and_leaves_the_global_stream_alone(subject):
    prompts = [prompt_tokens(Record("r", text, "x"), subject.language, 32) for text in ("say hello", "the user")]
    how = {"max_new_tokens": 8, "batch_size": 2, "temperature": 1.5}
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = answers(subject, prompts, seed=5, **how)
    assert torch.equal(torch.rand(3), expected)
    assert answers(subject, prompts, seed=5, **how) == first
    assert answers(subject, prompts, seed=6, **how) != first


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
    plain, own = answers(subject, prompts, **how), subject.model.generation_config
    try:
        subject.model.generation_config = GenerationConfig(repetition_penalty=9.0, no_repeat_ngram_size=1)
        assert answers(subject, prompts, **how) == plain
        subject.model.generation_config = GenerationConfig(eos_token_id=list(range(len(subject.language.tokenizer))))
        ended = answers(subject, prompts, **how)
    finally:
        subject.model.generation_config = own
    assert all(len(short) < len(text) for short, text in zip(ended, plain, strict=True))


def test_an_answer_ends_with_its_first_eos(subject):
    before = prompt_tokens(Record("r", "say hello", "x"), subject.language, 32)
    how = {"max_new_tokens": 20, "batch_size": 64, "temperature": 3.0, "seed": 0}
    found = continuations(subject, [before] * 64, **how)
    ends = subject.language.tokenizer.eos_token_id
    assert all(ends not in answer[:-1] for answer in found)
    assert any(answer[-1] == ends and len(answer) < 20 for answer in found)
