r"""Conversations in raw data: split into the prompt and the assistant's last reply.

A conversation is a list of messages in place of a reply, as in OpenAI's fine-tuning files and in TRL:

>>> turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
>>> split_off_replies({"completion": turns}, "row 1")
{'completion': 'Hello!', 'prompt': [{'role': 'user', 'content': 'Hi'}]}

With `format: hh` it is a flat dialogue, as in Anthropic's HH data (Bai et al. 2022, "Training a Helpful and Harmless
Assistant with Reinforcement Learning from Human Feedback"):

>>> dialogue_messages("\n\nHuman: Hi\n\nAssistant: Hello!", "completion", "row 1") == turns
True
"""

from __future__ import annotations

import re
from typing import Any, Literal, NamedTuple

from isaerft.behaviors.records import REPLIES, Message, checked_message, checked_text, prompt_messages
from isaerft.errors import InputError, shown

_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_SHAREGPT_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


def as_messages(value: Any) -> Any:
    """Return a conversation in ShareGPT's form as messages, and any other value unchanged.

    >>> as_messages([{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]) == [
    ...     {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}
    ... ]
    True
    """
    if not isinstance(value, list) or not value:
        return value
    if not all(isinstance(turn, dict) and turn.keys() == {"from", "value"} for turn in value):
        return value
    return [{"role": _SHAREGPT_ROLES.get(str(turn["from"]), turn["from"]), "content": turn["value"]} for turn in value]


def lost_turns(conversation: object, reply: int, prompt: Any) -> list[str]:
    """Return the roles of the turns that are neither the reply, given by its position, nor part of the prompt."""
    if not isinstance(conversation, list) or not all(_is_turn(turn) for turn in conversation):
        return []
    told = [prompt] if isinstance(prompt, str) else [turn.get("content") for turn in prompt or [] if _is_turn(turn)]
    others = [turn for turn in conversation if turn is not conversation[reply]]
    texts = [(str(turn["role"]), str(turn["content"] or "").strip()) for turn in others]
    return [role for role, text in texts if text and not any(text in str(part) for part in told)]


def _is_turn(value: object) -> bool:
    return isinstance(value, dict) and "role" in value and "content" in value


def split_off_replies(values: dict[str, Any], location: str) -> dict[str, Any]:
    """Return the fields of a row with its replies as text, and with the turns before them as its prompt.

    Parameters
    ----------
    values : dict
        Fields of a record. Where a reply is a list of messages, the last of them is the reply; those before it follow
        the prompt, or replace it if they begin with it. A prompt that is a list may end with the reply.
    location : str
        Where the row comes from, for errors.

    Raises
    ------
    InputError
        A last message is not a reply, a message is not valid, or conversations differ before their last message.
    """
    prompt = values.get("prompt")
    if isinstance(prompt, list):
        prompt = without_blank_system(prompt)
        reply = values.get("completion")
        if prompt and prompt[-1] == {"role": "assistant", "content": reply}:
            prompt = prompt[:-1]
        values = values | {"prompt": prompt}
    split = {field: _split(values[field], field, location) for field in REPLIES if isinstance(values.get(field), list)}
    if not split:
        return values
    before, *others = [conversation.before for conversation in split.values()]
    if any(other != before for other in others):
        raise InputError(f"{location}: the conversations differ before the last reply")
    if prompt is None and not before:
        raise InputError(f"{location}: the turn before the last reply is missing")
    values = values | {field: conversation.reply for field, conversation in split.items()}
    if not before:
        return values
    given = [] if prompt is None else _given(prompt, location)
    follows = before[: len(given)] != given
    return values | {"prompt": given + before if follows else before}


def _given(prompt: object, location: str) -> list[Message]:
    """Return the checked messages of a prompt beside which replies are conversations."""
    if isinstance(prompt, list):
        return [checked_message(message, location) for message in prompt]
    return prompt_messages(checked_text(prompt, "prompt", location))


class _Conversation(NamedTuple):
    before: list[Message]
    reply: object


def _split(messages: list[object], field: str, location: str) -> _Conversation:
    """Return the checked messages before the last reply, and that reply."""
    *before, last = without_blank_system(messages) or [None]
    if not isinstance(last, dict) or last.get("role") != "assistant" or not last.get("content"):
        raise InputError(
            f"{location}: the last reply of {field} is blank or missing",
            allowed="a conversation that ends with the assistant's message",
        )
    return _Conversation(
        [checked_message(message, location) for message in before], checked_message(last, location)["content"]
    )


def without_blank_system(messages: list[Any]) -> list[Any]:
    """Return messages without system messages that say nothing."""
    return [message for message in messages if not (_is_system(message) and not str(message["content"] or "").strip())]


def with_system(prompt: Any, system: Literal["keep", "merge", "drop"]) -> Any:
    r"""Return a prompt whose system messages are kept, merged with the user's message that follows, or dropped.

    >>> with_system([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}], "merge")
    [{'role': 'user', 'content': 'Be kind.\n\nHi'}]
    """
    if system == "keep" or not isinstance(prompt, list):
        return prompt
    kept: list[Any] = []
    for message in prompt:
        is_merged = bool(kept) and _is_system(kept[-1]) and isinstance(message, dict) and message.get("role") == "user"
        if is_merged:
            kept[-1] = {"role": "user", "content": f"{kept[-1]['content']}\n\n{message.get('content')}"}
        elif not (system == "drop" and _is_system(message)):
            kept.append(message)
    return kept


def _is_system(message: object) -> bool:
    return isinstance(message, dict) and message.get("role") == "system" and "content" in message


def dialogue_messages(dialogue: object, field: str, location: str) -> list[Message]:
    """Return the messages of a flat dialogue; consecutive turns of one speaker become one message.

    Raises
    ------
    InputError
        The dialogue is not text, or does not begin with a speaker.
    """
    if not isinstance(dialogue, str):
        raise InputError(f"{location}: {field} is {shown(dialogue)}", allowed="a dialogue as text (format: hh)")
    before, *parts = _TURN.split(dialogue.strip())
    if before.strip() or not parts:
        raise InputError(
            f"{location}: {field} does not begin with 'Human:' or 'Assistant:'",
            remedy="check that `format: hh` is right, and that chosen and rejected are mapped to whole dialogues",
        )
    messages: list[Message] = []
    for speaker, text in zip(parts[::2], parts[1::2], strict=True):
        role, content = _ROLES[speaker], text.strip()
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] = f"{messages[-1]['content']}\n\n{content}".strip()
        else:
            messages.append({"role": role, "content": content})
    return messages
