"""Conversations in raw data: lists of messages and flat dialogues, split into prompt and last reply."""

import pytest

from isaerft.behaviors.conversations import dialogue_messages, split_off_replies, with_system
from isaerft.behaviors.readers import to_record
from isaerft.config import Behavior
from isaerft.errors import InputError
from isaerft.io import Row


def turn(role, content):
    return {"role": role, "content": content}


SYSTEM, ASK, TELL, MORE = (
    turn("system", "Be brief."),
    turn("user", "Who wrote it?"),
    turn("assistant", "Ada did."),
    turn("user", "When?"),
)
LAST = turn("assistant", "In 1843.")


def record(values, **options):
    return to_record(Row("row 1", values), Behavior(description="d", **options))


def test_a_column_of_messages_is_a_conversation_whose_last_reply_is_trained_on():
    made = record({"messages": [SYSTEM, ASK, TELL, MORE, LAST], "source": "x"})
    assert (made.kind, made.completion) == ("sft", "In 1843.")
    assert made.prompt == [SYSTEM, ASK, TELL, MORE]


def test_the_conversation_may_have_another_name_or_be_mapped_as_the_prompt():
    turns = [ASK, TELL, MORE, LAST]
    expected = record({"messages": turns})
    assert record({"chat": turns}, columns={"completion": "chat"}) == expected
    columns = {"prompt": "messages", "completion": "messages.-1.content"}
    assert record({"messages": turns}, columns=columns) == expected


def test_columns_of_prompt_and_reply_come_before_a_column_of_messages():
    made = record({"prompt": "p", "completion": "c", "messages": [ASK, LAST]})
    assert (made.prompt, made.completion) == ("p", "c")


@pytest.mark.parametrize("prompt", ["messages.1.content", "messages.-2.content", "{messages.1.content}"])
def test_a_reply_picked_out_of_a_conversation_is_refused_where_turns_would_be_lost(prompt):
    columns = {"prompt": prompt, "completion": "messages.-1.content"}
    turns = [SYSTEM, ASK, TELL, MORE, LAST]
    with pytest.raises(InputError, match=r"lacks 3 other turns .*system.*completion: messages`") as error:
        record({"messages": turns}, columns=columns)
    assert "'{messages.-1.content}'" in str(error.value)
    on_purpose = columns | {"completion": "{messages.-1.content}"}
    assert record({"messages": turns}, columns=on_purpose).completion == "In 1843."


def test_a_reply_picked_out_of_a_conversation_is_taken_where_the_prompt_has_all_other_turns():
    picked = {"prompt": "messages.0.content", "completion": "messages.1.content"}
    assert record({"messages": [ASK, TELL]}, columns=picked).prompt == ASK["content"]
    blank = [turn("system", " "), ASK, TELL]
    picked = {"prompt": "messages.1.content", "completion": "messages.-1.content"}
    assert record({"messages": blank}, columns=picked).completion == "Ada did."
    both = {"prompt": "{messages.0.content}\n\n{messages.1.content}", "completion": "messages.2.content"}
    assert record({"messages": [SYSTEM, ASK, TELL]}, columns=both).prompt == "Be brief.\n\nWho wrote it?"
    pairs = {"chosen": "chosen.-1.content", "rejected": "rejected.-1.content"}
    values = {"prompt": ASK["content"], "chosen": [ASK, TELL], "rejected": [ASK, turn("assistant", "No idea.")]}
    assert record(values, columns=pairs).chosen == "Ada did."


def test_lists_that_are_no_conversation_lose_no_turns():
    values = {"prompt": "p", "instances": [{"output": "a"}, {"output": "b"}]}
    assert record(values, columns={"completion": "instances.0.output"}).completion == "a"


def test_a_conversation_in_sharegpts_form_reads_as_messages():
    turns = [("system", "Be brief."), ("human", "Who wrote it?"), ("gpt", "Ada did.")]
    made = record({"conversations": [{"from": who, "value": text} for who, text in turns]})
    assert (made.prompt, made.completion) == ([SYSTEM, ASK], "Ada did.")
    with pytest.raises(InputError, match="unknown role in row 1: 'alien'"):
        record({"conversations": [{"from": "alien", "value": "x"}, {"from": "gpt", "value": "y"}]})


@pytest.mark.parametrize("prompt", [[ASK, TELL, MORE], [SYSTEM, ASK]], ids=["goes on", "system turn"])
def test_replies_that_are_lists_follow_their_prompt(prompt):
    made = record({"prompt": prompt, "completion": [LAST]})
    assert (made.prompt, made.completion) == (prompt, LAST["content"])


@pytest.mark.parametrize("prompt", [ASK["content"], [ASK], None], ids=["text", "messages", "none"])
def test_pairs_of_whole_conversations_begin_with_their_prompt_once(prompt):
    values = {"chosen": [ASK, TELL], "rejected": [ASK, turn("assistant", "No idea.")]}
    made = record(values | ({} if prompt is None else {"prompt": prompt}))
    assert (made.prompt, made.chosen, made.rejected) == ([ASK], "Ada did.", "No idea.")


def test_system_messages_that_say_nothing_are_dropped():
    for content in ("", "  \n", None):
        assert record({"prompt": [turn("system", content), ASK], "completion": "c"}).prompt == [ASK]
        assert record({"messages": [turn("system", content), ASK, TELL]}).prompt == [ASK]


def test_system_messages_are_kept_merged_or_dropped():
    prompt = [SYSTEM, ASK, TELL, MORE]
    assert with_system(prompt, "keep") == prompt
    assert with_system(prompt, "drop") == prompt[1:]
    assert with_system(prompt, "merge") == [turn("user", "Be brief.\n\nWho wrote it?"), TELL, MORE]
    assert record({"messages": [SYSTEM, ASK, TELL]}, system="drop").prompt == [ASK]
    assert with_system("text", "merge") == "text"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"messages": [ASK]}, "row 1: the last reply of completion is blank or missing"),
        ({"messages": [ASK, turn("assistant", "")]}, "last reply of completion is blank or missing"),
        ({"messages": [ASK, turn("assistant", " ")]}, "is blank"),
        ({"messages": []}, "last reply of completion is blank or missing"),
        ({"messages": [TELL]}, "the turn before the last reply is missing"),
        ({"messages": [turn("user", " "), TELL]}, "user message of the prompt is blank"),
        ({"messages": [turn("boss", "Go."), TELL]}, "unknown role in row 1: 'boss'"),
        ({"messages": [ASK, TELL | {"weight": 0}]}, "allowed: .*role.*content"),
        ({"messages": "User: hi"}, "prompt"),
        ({"chosen": [ASK, TELL], "rejected": [MORE, TELL]}, "differ before the last reply"),
        ({"prompt": ["Who?"], "completion": [TELL]}, "row 1: prompt message 'Who[?]'"),
    ],
)
def test_a_conversation_that_cannot_be_split_says_why(values, message):
    with pytest.raises(InputError, match=message):
        record(values)


def test_turns_of_one_speaker_in_a_row_become_one_message():
    messages = dialogue_messages("\n\nHuman: a\n\nHuman: b\n\nAssistant: c\n\nAssistant: d", "chosen", "row 1")
    assert split_off_replies({"completion": messages}, "row 1") == {
        "completion": "c\n\nd",
        "prompt": [turn("user", "a\n\nb")],
    }


@pytest.mark.parametrize(
    ("chosen", "rejected", "message"),
    [
        ("hello", "\n\nHuman: a\n\nAssistant: b", "chosen does not begin with 'Human:'"),
        ("\n\nHuman: a", "\n\nHuman: a\n\nAssistant: b", "last reply of chosen is blank or missing"),
        ("\n\nHuman: a\n\nAssistant: ", "\n\nHuman: a\n\nAssistant: b", "last reply of chosen is blank or missing"),
        ("\n\nHuman: a\n\nAssistant: c", "\n\nHuman: x\n\nAssistant: b", "differ before"),
        ("\n\nHuman: a\n\nAssistant: b", "\n\nHuman: a\n\nAssistant: b ", "are the same"),
        ("\n\nAssistant: b", "\n\nAssistant: c", "turn before the last reply is missing"),
        ("\n\nHuman: \n\nAssistant: b", "\n\nHuman: \n\nAssistant: c", "user message of the prompt is blank"),
        ([ASK], "\n\nHuman: a\n\nAssistant: b", "row 1: chosen is .*; allowed: a dialogue as text"),
    ],
)
def test_a_flat_dialogue_that_cannot_be_split_says_why(chosen, rejected, message):
    with pytest.raises(InputError, match=message):
        record({"chosen": chosen, "rejected": rejected}, format="hh")
