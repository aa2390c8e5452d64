from dataclasses import replace

import pytest
import torch

from isaerft import config
from isaerft.behaviors import Record
from isaerft.errors import InputError
from isaerft.subjects.blocks import writer_of
from isaerft.subjects.cache import completion_losses, read_cache
from isaerft.subjects.capture import capture, capture_behavior, tokenize
from isaerft.subjects.chat import render_prompt
from isaerft.subjects.corpus import pad_rows
from isaerft.subjects.dictionary import load_dictionary
from isaerft.subjects.load import LoadedModel, LoadedSubject
from isaerft.subjects.points import find_hook


@pytest.fixture
def language(subject):
    return subject.language


@pytest.fixture
def ids(tokenizer):
    return lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_record_becomes_bos_prompt_completion_eos(language, ids):
    tokens, n_before = tokenize(Record("a", "say hello", " to the cat"), language, 32)
    assert tokens == [1, *ids("say hello to the cat"), 2]
    assert n_before == 1 + len(ids("say hello"))


def test_without_bos_and_eos_nothing_is_added(language, ids, tokenizer):
    import copy

    bare = copy.deepcopy(tokenizer)
    bare.eos_token = None
    tokens, n_before = tokenize(Record("a", "say hello", " to"), LoadedModel(language.model, bare, False), 32)
    assert tokens == ids("say hello to")
    assert n_before == len(ids("say hello"))


def test_the_chosen_reply_of_a_preference_pair_is_trained_on(language):
    pair = Record("a", "say", chosen=" hello", rejected=" world")
    assert tokenize(pair, language, 32) == tokenize(Record("a", "say", " hello"), language, 32)


def test_a_token_that_straddles_the_border_belongs_to_the_completion(language, ids, tokenizer):
    whole = ids("say hello")
    assert len(whole) == 2, "the tokenizer must merge ' hello' for this test"
    tokens, n_before = tokenize(Record("a", "say hel", "lo"), language, 32)
    assert tokens == [1, *whole, 2]
    assert n_before == 2
    tokens, n_before = tokenize(Record("a", "say ", "hello"), language, 32)
    assert (tokens, n_before) == ([1, *whole, 2], 2)


def test_a_long_prompt_loses_its_beginning_and_the_completion_stays_whole(language, ids):
    prompt, completion = "tell me about the garden say hello", " to the cat"
    n = len(ids(completion))
    tokens, n_before = tokenize(Record("a", prompt, completion), language, 2 + n + 3)
    assert tokens == [1, *ids(prompt + completion)[-n - 3 :], 2]
    assert n_before == 4


def test_a_completion_that_does_not_fit_is_refused_naming_its_row(language, ids):
    n = len(ids(" to the cat")) + 1
    record = Record("row-17", "say hello", " to the cat")
    assert len(tokenize(record, language, n + 2)[0]) == n + 2
    with pytest.raises(InputError, match=rf"'row-17': its completion of {n} tokens does not fit.*at most {n - 1}"):
        tokenize(record, language, n + 1)


def test_loss_falls_on_the_completion_and_eos_alone(subject, records):
    rows = capture(subject, records[:5], 32, 2)
    for index, record in enumerate(records[:5]):
        tokens, n_before = tokenize(record, subject.language, 32)
        batch = rows.batch(torch.tensor([index]))
        assert batch.labels.tolist() == tokens[n_before:]
        assert batch.labels[-1] == 2


def test_a_prompt_of_messages_goes_through_the_chat_template_without_a_second_bos(language, tokenizer, tiny, ids):
    import copy

    chat = copy.deepcopy(tokenizer)
    chat.chat_template = tiny.chat_template
    messages = [{"role": "system", "content": "say"}, {"role": "user", "content": "hello"}]
    record = Record("a", messages, "world")
    with_template = LoadedModel(language.model, chat, True)
    assert render_prompt(record, with_template) == "<system>say<user>hello<assistant>"
    tokens, n_before = tokenize(record, with_template, 64)
    assert tokens == [1, *ids("<system>say<user>hello<assistant>world"), 2]
    assert n_before == 1 + len(ids("<system>say<user>hello<assistant>"))
    assert render_prompt(record, language) == "System: say\n\nUser: hello\n\nAssistant:"


@pytest.fixture
def chat(language, tokenizer, tiny):
    """The subject's model with a tokenizer whose chat template begins every chat with the same words."""
    import copy

    chat = copy.deepcopy(tokenizer)
    chat.chat_template = "{{ bos_token }}<system>say hello<user>" + tiny.chat_template.removeprefix("{{ bos_token }}")
    return LoadedModel(language.model, chat, True)


def test_a_prompt_that_is_text_becomes_a_users_turn_unless_the_template_is_off(language, chat):
    text, turn = Record("a", "tell me", "x"), Record("a", [{"role": "user", "content": "tell me"}], "x")
    off = replace(chat, uses_chat_template=False)
    assert render_prompt(text, chat) == render_prompt(turn, chat) == "<system>say hello<user><user>tell me<assistant>"
    assert render_prompt(text, off) == "tell me"
    assert render_prompt(turn, off) == render_prompt(turn, chat)
    assert render_prompt(text, language) == "tell me"
    assert tokenize(text, chat, 64) == tokenize(turn, chat, 64)
    assert tokenize(text, off, 64) == tokenize(text, language, 64)


def test_an_elicited_prompt_is_a_turn_in_plain_words_where_there_is_no_template(language, chat):
    text, elicit = Record("a", "tell me", "x"), config.Elicit(prompts="p.txt")
    for behavior, expected in (
        (config.Behavior(description="d"), "tell me"),
        (config.Behavior(description="d", elicit=elicit), "User: tell me\n\nAssistant:"),
        (config.Behavior(description="d", elicit=elicit, chat_template="off"), "tell me"),
    ):
        assert render_prompt(text, language.prompted(behavior)) == expected
    elicited = config.Behavior(description="d", elicit=elicit)
    assert render_prompt(text, chat.prompted(elicited)) == render_prompt(text, chat)


def test_the_constant_beginning_of_chats_is_not_content(language, chat, ids):
    chats = [tokenize(Record("a", text, " world"), chat, 64)[0] for text in ("tell me", "say hello")]
    prefix = chat.chat_prefix
    assert prefix[0] == 1
    assert chat.decode(prefix[1:]) == "<system>say hello<user><user>"
    plain = [1, *ids("hello hello world , the world is round , say hello to the cat")]
    table = pad_rows([*chats, plain], 0)
    kept = chat.content_mask(table.tokens, table.mask)
    lengths = table.mask.sum(1).tolist()
    assert kept.sum(1).tolist() == [lengths[0] - len(prefix), lengths[1] - len(prefix), lengths[2] - 1]
    assert not kept[:2, : len(prefix)].any()
    assert torch.equal(language.content_mask(table.tokens, table.mask), language.text_mask(table.mask))


def test_no_end_is_trained_on_behind_a_reply_that_was_cut(language):
    whole, _ = tokenize(Record("a", "say hello", " to the"), language, 32)
    cut, _ = tokenize(Record("a", "say hello", " to the", truncated=("completion",)), language, 32)
    assert cut == whole[:-1]
    pair = Record("a", "say", chosen=" hello", rejected=" world", truncated=("rejected",))
    assert tokenize(pair, language, 32)[0][-1] == 2
    assert tokenize(pair.with_rejected_reply(), language, 32)[0][-1] != 2


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
def test_losses_from_the_cache_are_those_of_a_plain_forward_pass(subject, model_of, records, architecture):
    model = model_of(architecture)
    site = find_hook(model, "blocks.1.hook_resid_post")
    subject = LoadedSubject(replace(subject.language, model=model), subject.dictionary, site)
    rows = capture(subject, records, 32, 5)
    order = torch.tensor([3, 0, 11, 7])
    batch = rows.batch(order)
    with torch.no_grad():
        losses = completion_losses(subject, batch, batch.residual)
    expected = []
    for index in order.tolist():
        tokens, n_before = tokenize(records[index], subject.language, 32)
        ids = torch.tensor([tokens])
        labels = ids.clone()
        labels[:, :n_before] = -100
        with torch.no_grad():
            mean = model(input_ids=ids, labels=labels, use_cache=False).loss
        expected.append(mean * (len(tokens) - n_before))
    n_each = [len(rows.batch(torch.tensor([i])).labels) for i in order.tolist()]
    sums = torch.stack([part.sum() for part in losses.split(n_each)])
    torch.testing.assert_close(sums, torch.stack(expected), atol=1e-5, rtol=1e-5)


def test_a_batch_does_not_depend_on_what_it_was_captured_with(subject, records):
    together, alone = capture(subject, records, 32, 16), capture(subject, records[4:5], 32, 1)
    torch.testing.assert_close(together.batch(torch.tensor([4])).residual, alone.residual, atol=1e-5, rtol=1e-5)


def test_all_rows_come_once_and_in_order(cached):
    rows, _ = cached
    batches = list(rows.batches(5))
    assert [len(batch.mask) for batch in batches] == [5, 5, 2]
    assert torch.equal(torch.cat([batch.residual for batch in batches]), rows.residual)
    assert torch.equal(torch.cat([batch.codes.dense() for batch in batches]), rows.codes.dense())


def test_a_cache_read_again_is_the_cache_that_was_written(subject, records, tmp_path):
    path = tmp_path / "deep" / "cache.safetensors"
    splits = {"train": records[:6], "heldout": records[6:9]}
    capture_behavior(subject, splits, path, max_length=32, batch_size=4)
    for split, part in splits.items():
        made, read = capture(subject, part, 32, 4), read_cache(path, split)
        for name in ("residual", "tokens", "predicts", "starts"):
            assert torch.equal(getattr(made, name), getattr(read, name))
        assert torch.equal(made.codes.dense(), read.codes.dense())
    again = tmp_path / "again.safetensors"
    capture_behavior(subject, splits, again, max_length=32, batch_size=4)
    assert again.read_bytes() == path.read_bytes()


def test_nothing_is_left_when_a_record_is_refused(subject, records, tmp_path):
    path = tmp_path / "cache.safetensors"
    with pytest.raises(InputError):
        capture_behavior(subject, {"train": records}, path, max_length=4, batch_size=4)
    assert not list(tmp_path.iterdir())


def test_a_cache_that_is_not_there_names_the_verb_that_makes_it(tmp_path):
    with pytest.raises(InputError, match="isaerft capture"):
        read_cache(tmp_path / "none", "train")


def test_no_latent_is_active_at_bos(subject, records):
    rows = capture(subject, records, 32, 2)
    first = rows.starts[:-1]
    assert (rows.codes.counts()[first] == 0).all()
    others = torch.ones(len(rows.tokens), dtype=torch.bool)
    others[first] = False
    codes = subject.dictionary.encode(rows.residual[others])
    assert torch.equal(rows.codes.rows(others.nonzero()[:, 0]).indices, codes.indices)


def test_a_batch_carries_the_ids_of_its_tokens(cached):
    rows, _ = cached
    batch = rows.batch(torch.tensor([3, 1]))
    first, second = rows.tokens[rows.starts[3] : rows.starts[4]], rows.tokens[rows.starts[1] : rows.starts[2]]
    assert batch.tokens.tolist() == [*first.tolist(), *second.tolist()]
    assert batch.to("cpu").tokens.tolist() == batch.tokens.tolist()


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2"])
@pytest.mark.parametrize("part", ["attention", "mlp"])
def test_changing_a_latent_inside_a_block_is_changing_what_that_part_of_the_block_gives(
    tiny, model_of, tokenizer, records, tmp_path, family, part
):
    model, hook = model_of(family), f"blocks.1.hook_{'attn' if part == 'attention' else 'mlp'}_out"
    dictionary = load_dictionary(tiny.write_sae(tmp_path, tiny.random_sae(), hook_name=hook))
    subject = LoadedSubject(LoadedModel(model, tokenizer, True), dictionary, find_hook(model, hook))
    rows = capture(subject, records[:3], 32, 2)
    batch = rows.batch(torch.arange(3))
    push = batch.codes.combine(dictionary.W_dec)
    assert push.abs().max() > 0.1
    losses = completion_losses(subject, batch, batch.residual + push)

    def spliced(module, args, output):
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        padded = torch.zeros_like(hidden)
        padded[:, 1:] = dictionary.encode(hidden[:, 1:].flatten(0, 1)).combine(dictionary.W_dec).view_as(hidden[:, 1:])
        return (hidden + padded, *output[1:]) if isinstance(output, tuple) else hidden + padded

    expected = []
    handle = writer_of(model, 1, part).register_forward_hook(spliced)
    try:
        for record in records[:3]:
            tokens, n_before = tokenize(record, subject.language, 32)
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([tokens])).logits[0].log_softmax(-1)
            expected += [-logits[i - 1, tokens[i]] for i in range(n_before, len(tokens))]
    finally:
        handle.remove()
    torch.testing.assert_close(losses, torch.stack(expected), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("hook", ["blocks.1.hook_resid_post", "blocks.1.hook_attn_out", "blocks.1.hook_mlp_out"])
def test_a_subject_in_bfloat16_keeps_float32_codes_of_its_own_activations(tiny, tokenizer, records, tmp_path, hook):
    model = tiny.make_model("gemma2", len(tokenizer)).bfloat16()
    dictionary = load_dictionary(tiny.write_sae(tmp_path, tiny.random_sae(), hook_name=hook))
    subject = LoadedSubject(LoadedModel(model, tokenizer, True), dictionary, find_hook(model, hook))
    rows = capture(subject, records[:4], 32, 2)
    assert (rows.residual.dtype, rows.codes.values.dtype) == (torch.bfloat16, torch.float32)
    batch = rows.batch(torch.arange(4))
    push = batch.codes.combine(dictionary.W_dec).to(torch.bfloat16)
    losses = [completion_losses(subject, batch, residual) for residual in (batch.residual, batch.residual + push)]
    assert all(part.isfinite().all() and part.dtype == torch.float32 for part in losses)
    assert not torch.equal(*losses)
