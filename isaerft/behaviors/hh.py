r"""Flat dialogues of Anthropic's HH data, split into prompt messages and last replies.

>>> split_replies({"completion": "\n\nHuman: Hi\n\nAssistant: Hello!"}, "row 1")
{'completion': 'Hello!', 'prompt': [{'role': 'user', 'content': 'Hi'}]}

The data is described in Bai et al. 2022, "Training a Helpful and Harmless Assistant with Reinforcement Learning from
Human Feedback". It holds a few rows whose dialogues part before the last reply, or whose last reply is blank; nobody
can mend a published data set, so these raise `UnusableDialogue` and `prepare_behavior` counts them.
"""

from __future__ import annotations

import re
from typing import Any

from isaerft.errors import InputError, shown

_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


class UnusableDialogue(Exception):
    """A row of dialogues that cannot become a record; the message says why, in words that can be counted."""


def split_replies(values: dict[str, Any], place: str) -> dict[str, Any]:
    """Replace the dialogues in `values` by their last replies, and add the prompt that they share.

    Parameters
    ----------
    values : dict
        `completion`, or `chosen` and `rejected`, as flat dialogues; an `id` is kept.
    place : str
        Where the row stands, for errors.

    Raises
    ------
    UnusableDialogue
        The text is no dialogue, its last turn is not a reply, or the two dialogues differ before their last replies.
    InputError
        A dialogue is not text.
    """
    result = {key: value for key, value in values.items() if key in ("id",)}
    prompts = []
    for field in ("completion", "chosen", "rejected"):
        if field not in values:
            continue
        if not isinstance(values[field], str):
            raise InputError(f"{place}: {field} is {shown(values[field])}", allowed="a dialogue as text (format: hh)")
        prompt, result[field] = _split(values[field])
        prompts.append(prompt)
    if any(prompt != prompts[0] for prompt in prompts):
        raise UnusableDialogue("the dialogues differ before their last replies")
    if len(prompts) == 2 and result["chosen"] == result["rejected"]:
        raise UnusableDialogue("chosen and rejected are the same")
    return result | {"prompt": prompts[0]}


def _split(dialogue: str) -> tuple[list[dict[str, str]], str]:
    """Return a dialogue's prompt messages and its last reply; turns of one speaker in a row become one message."""
    before, *parts = _TURN.split(dialogue.strip())
    if before.strip() or not parts:
        raise UnusableDialogue("the text does not begin with 'Human:' or 'Assistant:'")
    messages: list[dict[str, str]] = []
    for speaker, text in zip(parts[::2], parts[1::2], strict=True):
        role, content = _ROLES[speaker], text.strip()
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] = f"{messages[-1]['content']}\n\n{content}".strip()
        else:
            messages.append({"role": role, "content": content})
    *prompt, last = messages
    if last["role"] != "assistant" or not last["content"]:
        raise UnusableDialogue("the last reply is blank or missing")
    if not prompt or any(not message["content"] for message in prompt):
        raise UnusableDialogue("a turn before the last reply is blank or missing")
    return prompt, last["content"]
