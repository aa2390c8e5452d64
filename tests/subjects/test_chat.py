"""Chats as templates of model families write them, and templates that cannot be used."""

import copy
import datetime
import re
from dataclasses import replace

import pytest
import torch

from isaerft.behaviors import Record
from isaerft.behaviors.elicited import Request
from isaerft.config import Elicit
from isaerft.errors import InputError
from isaerft.subjects import elicit
from isaerft.subjects.capture import capture_behavior, count_tokens, tokenize
from isaerft.subjects.chat import render_chat, render_prompt, rendered
from isaerft.subjects.generate import generate

BEGIN, END, EOS = "<turn>", "<end>", "<eos>"
TURNS = "{{ bos_token }}{% for m in messages %}<turn>{{ m.role }}\n{{ m.content REPLY}}<end>\n{% endfor %}"
ASKED = "{% if add_generation_prompt %}<turn>assistant\nOPENING{% endif %}"
GEMMA = TURNS.replace("REPLY", "| trim ") + ASKED.replace("OPENING", "")
CHATML = TURNS.replace("REPLY", "") + ASKED.replace("OPENING", "")
SPACED = "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[{{ m.content }}]{% else %} {{ m.content }}"
SPACED += "{{ eos_token }}{% endif %}{% endfor %}"
THOUGHT = "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
THINKING = CHATML.replace("\n{{ m.content }}", "\n" + THOUGHT + "{{ m.content }}")
WITHOUT_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
HI = [{"role": "user", "content": "say hello"}]
PROMPT = f"{BEGIN}user\nsay hello{END}\n{BEGIN}assistant\n"


@pytest.fixture
def model_with(subject, tokenizer):
    """Return the subject's model with a chat template, and with tokens for the beginning and the end of a turn."""

    def make(template, **options):
        used = copy.deepcopy(tokenizer)
        used.add_special_tokens({"additional_special_tokens": [BEGIN, END]})
        used.chat_template = template
        return replace(subject.language, tokenizer=used, **options)

    return make


def trained_on(record, language):
    tokens, n_prompt = tokenize(record, language, 200)
    return language.decode(tokens[n_prompt:])


def given(record, language):
    tokens, n_prompt = tokenize(record, language, 200)
    return language.decode(tokens[len(language.bos) : n_prompt])


def test_a_reply_ends_with_the_turns_own_end_and_not_with_eos(model_with):
    language = model_with(GEMMA)
    record = Record("a", HI, " to the cat\n")
    assert given(record, language) == PROMPT
    assert trained_on(record, language) == f"to the cat{END}"
    assert trained_on(replace(record, truncated=("completion",)), language) == "to the cat"


def test_where_eos_ends_a_turn_the_tokens_are_those_of_prompt_reply_and_eos(model_with):
    language = model_with(CHATML)
    language.tokenizer.eos_token = END
    ids = lambda text: language.tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    for reply in ("to the cat", " to the cat", "to the cat\n", "hello\n\nworld "):
        for prompt in ("say hello", HI, [{"role": "system", "content": "say"}, *HI]):
            record = Record("a", prompt, reply)
            text = render_prompt(record, language)
            expected = [*language.bos, *ids(text + reply), language.tokenizer.eos_token_id]
            assert tokenize(record, language, 200).tokens == expected


def test_where_the_template_writes_no_end_eos_ends_the_reply(chat):
    assert trained_on(Record("a", HI, "to the cat"), chat) == f"to the cat{EOS}"


def test_an_end_in_plain_words_is_kept_before_eos(model_with):
    language = model_with(CHATML.replace(END, "[over]"))
    assert trained_on(Record("a", HI, "hello"), language) == f"hello[over]\n{EOS}"


def test_what_follows_the_end_of_the_turn_is_not_trained_on(model_with):
    language = model_with(CHATML + "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}")
    assert trained_on(Record("a", HI, "hello"), language) == f"hello{END}"


def test_a_space_that_the_template_puts_before_a_reply_belongs_to_it(model_with):
    language, record = model_with(SPACED), Record("a", HI, "hello")
    assert render_prompt(record, language) == "[say hello]"
    assert trained_on(record, language) == f" hello{EOS}"


@pytest.mark.parametrize("opening", ["", "<think>\n"], ids=["no opening", "opened thought"])
def test_a_thought_before_every_finished_reply_belongs_to_the_prompt(model_with, opening):
    template = THINKING.replace(ASKED.replace("OPENING", ""), ASKED.replace("OPENING", opening))
    language, record = model_with(template), Record("a", HI, "think")
    assert given(record, language) == render_prompt(record, language) == f"{PROMPT}<think>\n\n</think>\n\n"
    assert trained_on(record, language) == f"think{END}"


def test_an_opening_that_finished_replies_do_not_have_is_refused_naming_the_record(model_with):
    language = model_with(CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif"))
    with pytest.raises(InputError, match=r"record 'r7': .*<think>.*in the wrong place") as caught:
        render_chat(Record("r7", HI, "hello"), language)
    assert "chat_template: off" in str(caught.value)
    assert render_prompt(Record("r7", HI), language).endswith("<think>\n"), "the model may be asked as it wants to be"
    raw = Record("r7", "say hello", " world")
    assert trained_on(raw, replace(language, uses_chat_template=False)) == f" world{EOS}"


def test_a_reply_that_the_template_changes_is_refused(model_with):
    language = model_with(CHATML.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}"))
    assert trained_on(Record("a", HI, "hello"), language) == f"hello{END}"
    with pytest.raises(InputError, match="record 'b': the chat template changes its reply '<think>hm</think>hello'"):
        render_chat(Record("b", HI, "<think>hm</think>hello"), language)
    nothing = model_with("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}")
    with pytest.raises(InputError, match="does not write the reply"):
        render_chat(Record("b", HI, "hello"), nothing)


@pytest.mark.parametrize(
    ("template", "messages", "says", "remedy"),
    [
        (WITHOUT_SYSTEM + CHATML, [{"role": "system", "content": "x"}, *HI], "System role not supported", "merge"),
        ("{{ raise_exception('roles must alternate') }}", HI * 2, "roles must alternate", "change the record's"),
        ("{{ messages[0].tools.first }}", HI, "UndefinedError", "chat_template.jinja"),
        ("{% if %}", HI, "TemplateSyntaxError", "chat_template.jinja"),
        ("{{ messages[0].content + 1 }}", HI, "TypeError", "chat_template.jinja"),
        ({"tool_use": CHATML, "rag": CHATML}, HI, "multiple chat templates", "name one of them default"),
    ],
)
def test_what_a_template_raises_is_one_line_with_the_record_and_a_remedy(model_with, template, messages, says, remedy):
    language = model_with(template)
    for attempt in (render_chat, render_prompt):
        with pytest.raises(InputError, match=rf"record 'r7': the model's chat template refuses it.*{says}") as caught:
            attempt(Record("r7", messages, "hello"), language)
        assert remedy in str(caught.value)


def test_a_template_that_refuses_chats_is_no_obstacle_where_none_is_used(model_with, caplog):
    language = model_with("{{ raise_exception('never') }}", uses_chat_template=False)
    assert language.chat_prefix == language.bos
    assert "never" in caplog.text
    assert trained_on(Record("a", "say hello", " world"), language) == f" world{EOS}"


def test_the_date_that_a_template_writes_is_the_same_every_day(model_with, monkeypatch):
    language = model_with("  {{ strftime_now('%d %b %Y, %A %-m/%y %H:%M') }}\n" + CHATML)
    plain = model_with("  26 Jul 2024, Friday 7/24 00:00\n" + CHATML)
    for messages in (HI, [*HI, {"role": "assistant", "content": "hello"}]):
        texts = [rendered(each.tokenizer, messages, "x", opens_reply=False) for each in (language, plain)]
        assert texts[0] == texts[1]
    assert datetime.date(2024, 7, 26).strftime("%A %j") == "Friday 208"
    assert rendered(model_with("{{ strftime_now is defined }}").tokenizer, HI, "x") == "True"
    assert tokenize(Record("a", HI, "hello"), language, 200) == tokenize(Record("a", HI, "hello"), plain, 200)


def test_generation_stops_at_the_end_of_a_turn(model_with, monkeypatch):
    language = model_with(GEMMA)
    end = language.tokenizer.convert_tokens_to_ids(END)
    asked = {}

    def spy(input_ids, attention_mask):
        asked["ends"] = language.model.generation_config.eos_token_id
        return torch.cat([input_ids, input_ids[:, :1]], 1)

    monkeypatch.setattr(language.model, "generate", spy)
    for uses, expected in ((True, [2, end]), (False, [2])):
        generate(replace(language, uses_chat_template=uses), [[1, 5]], max_new_tokens=1, batch_size=1)
        assert asked["ends"] == expected


def test_replies_that_could_not_be_trained_on_are_not_even_sampled(model_with, tmp_path, monkeypatch):
    language = model_with(CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif"))
    monkeypatch.setattr(elicit, "generate", lambda *_, **__: pytest.fail("sampled"))
    asked, options = [Request("r7", "say hello", "say hello, kindly")], {"behavior": "b", "seed": 0, "batch_size": 2}
    with pytest.raises(InputError, match=r"record 'r7': .*in the wrong place"):
        elicit.write_elicited(
            language, asked, Elicit(prompts="p.txt"), tmp_path / "replies.jsonl", max_length=48, **options
        )


def test_rows_and_tokens_are_counted_as_they_are_captured(subject, records):
    rows = [tokenize(record, subject.language, 32) for record in records]
    lengths = [len(row.tokens) for row in rows]
    assert count_tokens(records, subject.language, 32, "train") == {
        "rows": 16,
        "tokens": sum(lengths),
        "longest": max(lengths),
        "cut_prompts": 0,
    }


def test_prompts_that_lose_their_beginning_are_counted_in_a_warning(subject, records, tmp_path, caplog):
    long = [replace(record, prompt="tell me about the garden " * 4) for record in records[:3]]
    splits = {"train": records[:4], "train_instructed": [*long, records[3]]}
    caplog.set_level("WARNING")
    capture_behavior(subject, splits, tmp_path / "cache.safetensors", max_length=32, batch_size=4)
    warnings = [record.getMessage() for record in caplog.records if record.name.startswith("isaerft")]
    assert len(warnings) == 1
    assert re.match(r"train_instructed: 3 of 4 prompts lose their beginning.*max_length 32", warnings[0])
