"""Functions, calls and their results as plain text, for templates that know none of them.

A call is written as the server has such models write it: `[{"name": "f", "arguments": {...}}]`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from skipserve.prompt.template import Message, TextPart

_BEFORE = "You can call these functions, each described by the JSON schema of its arguments:\n"
_BEHIND = (
    "\nTo call functions, answer with nothing but a JSON list of calls: "
    '[{"name": "...", "arguments": {...}}]'
)


def in_plain_text(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], *, takes_system: bool
) -> Sequence[Message]:
    """Return messages that say in words what others of them are about; themselves if none is.

    Args:
        messages: what is said.
        tools: functions that may be called, in OpenAI's form.
        takes_system: whether the system may say something.
    """
    if not tools and not any(it.calls or it.role == "tool" for it in messages):
        return messages
    said = _merged(_in_words(messages))
    return _with_functions(said, tools, takes_system=takes_system) if tools else said


def _in_words(messages: Sequence[Message]) -> Iterator[Message]:
    names: dict[str | None, str] = {}
    for message in messages:
        names |= {call.id: call.name for call in message.calls}
        if message.calls:
            yield Message(message.role, (*message.parts, TextPart(_list_of_calls(message))))
        elif message.role == "tool":
            intro = TextPart(f"Result of {names.get(message.call_id, 'the call')}: ")
            yield Message("user", (intro, *message.parts))
        else:
            yield message


def _list_of_calls(message: Message) -> str:
    calls = (
        f'{{"name": {json.dumps(call.name, ensure_ascii=False)}, "arguments": {call.arguments}}}'
        for call in message.calls
    )
    return f"[{', '.join(calls)}]"


def _merged(messages: Iterator[Message]) -> list[Message]:
    """Return messages in which neighbours of the user's are one: templates want turns to change."""
    merged: list[Message] = []
    for role, turns in groupby(messages, key=lambda it: it.role):
        if role != "user":
            merged += turns
            continue
        first, *others = turns
        parts = list(first.parts)
        for turn in others:
            parts += [TextPart("\n"), *turn.parts]
        merged.append(Message(role, tuple(parts)))
    return merged


def _with_functions(
    messages: list[Message], tools: Sequence[Mapping[str, Any]], *, takes_system: bool
) -> list[Message]:
    """Return messages that begin with the functions: said by the system where that may speak."""
    lines = (json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    intro = TextPart(_BEFORE + "\n".join(lines) + _BEHIND)
    first = messages[0]
    if first.role == "system":
        return [Message("system", (*first.parts, TextPart("\n\n"), intro)), *messages[1:]]
    if takes_system:
        return [Message("system", (intro,)), *messages]
    return [Message(first.role, (intro, TextPart("\n\n"), *first.parts)), *messages[1:]]
