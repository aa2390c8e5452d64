import pytest
import torch
from transformers import GenerationConfig

from isaerft.behaviors import Record
from isaerft.errors import InputError
from isaerft.subjects.generate import generate, padded_left, prompt_tokens, sample_chats


def replies(subject, prompts, **how):
    return [reply.text for reply in generate(subject.language, prompts, **how)]


def prompts_of(subject):
    return [prompt_tokens(Record("r", text, "x"), subject.language, 32) for text in ("say hello", "the user")]


def test_sampling_follows_its_seed_and_leaves_the_global_stream_alone(subject):
    prompts, how = prompts_of(subject), {"max_new_tokens": 8, "batch_size": 2, "temperature": 1.5}
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = replies(subject, prompts, seed=5, **how)
    assert torch.equal(torch.rand(3), expected)
    assert replies(subject, prompts, seed=5, **how) == first
    assert replies(subject, prompts, seed=6, **how) != first


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


def test_the_models_own_settings_do_not_bend_the_replies_but_say_where_they_end(subject):
    prompts, how = prompts_of(subject), {"max_new_tokens": 12, "batch_size": 2}
    plain, own = replies(subject, prompts, **how), subject.model.generation_config
    try:
        subject.model.generation_config = GenerationConfig(repetition_penalty=9.0, no_repeat_ngram_size=1)
        assert replies(subject, prompts, **how) == plain
        subject.model.generation_config = GenerationConfig(eos_token_id=list(range(len(subject.language.tokenizer))))
        ended = replies(subject, prompts, **how)
    finally:
        subject.model.generation_config = own
    assert all(len(short) < len(text) for short, text in zip(ended, plain, strict=True))


def test_a_reply_ends_with_its_first_eos_and_is_truncated_without_one(subject):
    before = prompt_tokens(Record("r", "say hello", "x"), subject.language, 32)
    how = {"max_new_tokens": 20, "batch_size": 64, "temperature": 3.0, "seed": 0}
    found = generate(subject.language, [before] * 64, **how)
    ends = subject.language.tokenizer.eos_token_id
    assert all(ends not in reply.tokens[:-1] for reply in found)
    assert all(reply.truncated == (reply.tokens[-1] != ends) for reply in found)
    assert all(len(reply.tokens) == 20 for reply in found if reply.truncated)
    assert any(not reply.truncated and len(reply.tokens) < 20 for reply in found)
    assert any(reply.truncated for reply in found)


def test_a_reply_has_no_special_tokens_nor_the_padding_behind_its_end(subject, tokenizer, monkeypatch):
    prompts = [[1, 5, 6], [1, 7]]
    given = torch.tensor([[1, 5, 6], [0, 1, 7]])
    drawn = torch.tensor([[9, 2, 9], [9, 9, 9]])
    monkeypatch.setattr(subject.language.model, "generate", lambda **options: torch.cat([given, drawn], 1))
    found = generate(subject.language, prompts, max_new_tokens=3, batch_size=2)
    assert [reply.truncated for reply in found] == [False, True]
    assert found[0].text == tokenizer.decode([9])
    assert [reply.tokens for reply in found] == [[9, 2], [9, 9, 9]]


def test_a_corpus_of_chats_has_every_prompt_as_a_turn_with_a_reply_again_and_again(chat):
    how = {"n_tokens": 400, "context_size": 24, "batch_size": 3}
    rows = sample_chats(chat, ["say hello", "the user asks"], seed=0, **how)
    texts = [chat.decode(row[mask.bool()].tolist()) for row, mask in zip(rows.tokens, rows.mask, strict=True)]
    assert int(rows.mask.sum()) >= 400
    assert rows.tokens.shape[1] <= 24
    for number, text in enumerate(texts):
        begin = f"<bos><user>{('say hello', 'the user asks')[number % 2]}<assistant>"
        assert text.startswith(begin)
        assert len(text) > len(begin)
    assert len(set(texts)) > 2
    again = sample_chats(chat, ["say hello", "the user asks"], seed=0, **how)
    assert again.tokens.tolist() == rows.tokens.tolist()
    with pytest.raises(InputError, match="fewer than context_size"):
        sample_chats(chat, ["say hello to the cat and the dog"], seed=0, n_tokens=9, context_size=8, batch_size=1)
