r"""Chats as a model's template writes them: the prompt, the reply, and what ends the assistant's turn.

Prompt and reply are rendered together, and their difference is trained on. So a reply ends as the template ends a turn
(`<end_of_turn>` in Gemma's chats, where EOS never occurs), and does not lie inside a thought that the template opens.

>>> render_chat(Record("a", "Hi", "Hello!"), gemma)   # doctest: +SKIP
Chat(prompt='<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n', reply='Hello!', end='<end_of_turn>\n')

The clock is no input of a study: a template that writes the date gets one and the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from isaerft.behaviors import Record, prompt_messages, prompt_text
from isaerft.errors import InputError, shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from isaerft.behaviors.records import Message

DATE = "26 July 2024"
"""What templates take for today."""
_CLOCK = "strftime_now"
_DIRECTIVES = {
    **{"%Y": "2024", "%y": "24", "%m": "07", "%-m": "7", "%d": "26", "%-d": "26", "%e": "26", "%j": "208"},
    **{"%B": "July", "%b": "Jul", "%h": "Jul", "%A": "Friday", "%a": "Fri", "%u": "5", "%w": "5"},
    **{"%F": "2024-07-26", "%D": "07/26/24", "%x": "07/26/24", "%c": "Fri Jul 26 00:00:00 2024"},
    **{"%H": "00", "%I": "12", "%M": "00", "%S": "00", "%f": "000000", "%p": "AM"},
    **{"%T": "00:00:00", "%X": "00:00:00", "%R": "00:00", "%z": "+0000", "%Z": "UTC"},
}
_REPLACED = "".join(f".replace('{directive}', '{text}')" for directive, text in _DIRECTIVES.items())
# A macro of that name goes before the function that transformers offers. Templates lose one newline after a block.
_FIXED_CLOCK = f"{{% macro {_CLOCK}(format) %}}{{{{ format{_REPLACED} }}}}{{% endmacro %}}\n"
# Stands for a reply, to find where the template puts it and what it writes around it.
_PLACE = "THE-REPLY-OF-THE-ASSISTANT"
_OWN_TEMPLATE = "give a local copy of the model's folder another chat_template.jinja, and name that folder as `model`"


class Reader(Protocol):
    """How a model reads prompts; see `isaerft.subjects.load.LoadedModel`, which is one."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its chat template, if it has one, writes the turns."""

    @property
    def uses_chat_template(self) -> bool:
        """Whether a prompt that is text becomes a user's turn."""

    @property
    def writes_turns(self) -> bool:
        """Whether it does so in plain words where there is no template."""


class Chat(NamedTuple):
    """A prompt and its reply as text, as the model reads them.

    Attributes
    ----------
    prompt : str
        Up to where the reply begins, without BOS.
    reply : str
        As the template writes it: some remove white space at its ends, or put a space in front of it.
    end : str
        What the template writes after the reply; "" where there is no template, or only white space.
    """

    prompt: str
    reply: str
    end: str


def render_chat(record: Record, language: Reader) -> Chat:
    """Return a record's prompt and reply as the model reads them.

    Raises
    ------
    InputError
        The chat template refuses the record, changes its reply, or begins replies otherwise than it writes them.
    """
    if not is_templated(record, language):
        return Chat(render_prompt(record, language), record.reply, "")
    label, messages = f"record {shown(record.id)}", prompt_messages(record.prompt)
    opened, before, after = _around_reply(messages, language.tokenizer, label)
    if not before.startswith(opened):
        raise InputError(
            f"{label}: the chat template opens the reply with {_tail(opened, before)!r}, but writes a finished one"
            f" after {_tail(before, opened)!r}, so it would be trained on in the wrong place",
            remedy=f"{_OWN_TEMPLATE}; or use prompts that are text, and `chat_template: off`",
        )
    whole = rendered(language.tokenizer, [*messages, _assistant(record.reply)], label, opens_reply=False)
    written = whole[len(before) : len(whole) - len(after)]
    if whole != before + written + after or written.strip() != record.reply.strip():
        raise InputError(
            f"{label}: the chat template changes its reply {shown(record.reply)}",
            remedy=f"take out what the template removes, such as thoughts or its own marks; or {_OWN_TEMPLATE}",
        )
    prompt = _completed(opened, before)
    return Chat(prompt, whole[len(prompt) : len(whole) - len(after)], after if after.strip() else "")


def render_prompt(record: Record, language: Reader) -> str:
    """Return the prompt as the model reads it: through the tokenizer's chat template, if it has one.

    Without a template text stays as it is unless `language.writes_turns`; with one, too, if
    `language.uses_chat_template` is false. What the template writes in front of every finished reply, such as an empty
    thought, belongs to the prompt.

    Raises
    ------
    InputError
        The chat template refuses the prompt.
    """
    if is_templated(record, language):
        messages = prompt_messages(record.prompt)
        opened, before, _ = _around_reply(messages, language.tokenizer, f"record {shown(record.id)}")
        return _completed(opened, before)
    is_turn = language.writes_turns and language.uses_chat_template
    return prompt_text(prompt_messages(record.prompt) if is_turn else record.prompt)


def is_templated(record: Record, language: Reader) -> bool:
    """Tell whether a record goes through the tokenizer's chat template."""
    is_chat = language.uses_chat_template or not isinstance(record.prompt, str)
    return is_chat and bool(language.tokenizer.chat_template)


def rendered(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], label: str, *, opens_reply: bool = True
) -> str:
    """Return messages as the chat template writes them, without BOS.

    Parameters
    ----------
    label : str
        Whose messages they are, for errors.
    opens_reply : bool
        Up to where the assistant's reply begins; otherwise the messages end the chat.

    Raises
    ------
    InputError
        The template refuses the messages.
    """
    try:
        template = tokenizer.get_chat_template()
        if _CLOCK in template:
            template = _FIXED_CLOCK + template
        text = tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=opens_reply
        )
    except Exception as error:  # a template is a program of others; it raises what it likes
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise InputError(
            f"{label}: the model's chat template refuses it ({reason})", remedy=_remedy(messages, reason)
        ) from None
    return str(text).removeprefix(tokenizer.bos_token or "")


def writes_date(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether the chat template asks for the date, and gets `DATE`."""
    return _CLOCK in str(tokenizer.chat_template)


def _around_reply(messages: list[Message], tokenizer: PreTrainedTokenizerBase, label: str) -> tuple[str, str, str]:
    """Return the text with which a reply is opened, and what a finished reply has before and after it."""
    opened = rendered(tokenizer, messages, label)
    before, place, after = rendered(tokenizer, [*messages, _assistant(_PLACE)], label, opens_reply=False).rpartition(
        _PLACE
    )
    if not place:
        raise InputError(f"{label}: the model's chat template does not write the reply", remedy=_OWN_TEMPLATE)
    return opened, before, after


def _completed(opened: str, before: str) -> str:
    """Return the prompt: the opening, and what else is written before each finished reply.

    White space alone stays with the reply, since tokenizers join it to the word that follows.
    """
    return before if before.startswith(opened) and before[len(opened) :].strip() else opened


def _assistant(reply: str) -> Message:
    return {"role": "assistant", "content": reply}


def _tail(text: str, other: str) -> str:
    """Return the end of a text from where it differs from another, with a few characters before."""
    same = next((at for at, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), min(len(text), len(other)))
    return text[max(0, same - 20) :][:60]


def _remedy(messages: list[Message], reason: str) -> str:
    """Return what to do about a template's refusal."""
    if any(message["role"] == "system" for message in messages):
        return "set `system: merge` or `system: drop` for the behavior, if it is its system message"
    if "multiple chat templates" in reason:
        return "name one of them default in a local copy of the model's folder, and name that folder as `model`"
    return f"change the record's messages to what the template allows, or {_OWN_TEMPLATE}"
