"""Tests of functions, calls and results in prompts: as templates show them, and as plain text."""

from typing import Any

import pytest
from tiny_llava import CHAT_TEMPLATE, HERMES_TEMPLATE

from skipserve.prompt.plain_tools import in_plain_text
from skipserve.prompt.processor import PromptProcessor
from skipserve.prompt.template import LLAVA_TEMPLATE, Call, ChatTemplate, Message, TextPart

pytestmark = pytest.mark.fast

FUNCTION: dict[str, Any] = {"name": "f", "description": "Does f.", "parameters": {}}
TOOLS = [{"type": "function", "function": FUNCTION}]
SAID = [
    Message("user", (TextPart("Hi"),)),
    Message("assistant", (), (Call("1", "f", '{"x": 1}'), Call("2", "g", "{}"))),
    Message("tool", (TextPart("one"),), call_id="1"),
    Message("tool", (TextPart("two"),), call_id="2"),
    Message("user", (TextPart("And?"),)),
]


def texts(messages: Any) -> list[tuple[str, str]]:
    return [(it.role, "".join(part.text for part in it.parts)) for it in messages]


def test_calls_and_results_in_words() -> None:
    assert texts(in_plain_text(SAID, (), takes_system=True)) == [
        ("user", "Hi"),
        ("assistant", '[{"name": "f", "arguments": {"x": 1}}, {"name": "g", "arguments": {}}]'),
        ("user", "Result of f: one\nResult of g: two\nAnd?"),
    ]


def test_functions_are_told_first() -> None:
    [first, second] = texts(in_plain_text(SAID[:1], TOOLS, takes_system=True))
    assert first[0] == "system"
    assert '"description": "Does f."' in first[1]
    assert second == ("user", "Hi")
    [only] = texts(in_plain_text(SAID[:1], TOOLS, takes_system=False))
    assert only == ("user", f"{first[1]}\n\nHi")
    system = Message("system", (TextPart("Be brief."),))
    [joined, _] = texts(in_plain_text([system, *SAID[:1]], TOOLS, takes_system=True))
    assert joined == ("system", f"Be brief.\n\n{first[1]}")


def test_messages_about_no_functions_are_as_they_are() -> None:
    assert in_plain_text(SAID[:1], (), takes_system=True) is not None
    said = SAID[:1]
    assert in_plain_text(said, (), takes_system=True) is said


@pytest.mark.parametrize(
    ("template", "shows"),
    [(LLAVA_TEMPLATE, False), (CHAT_TEMPLATE, False), (HERMES_TEMPLATE, True)],
)
def test_which_templates_know_tools(template: str, shows: bool) -> None:
    assert ChatTemplate(template, {}).shows_tools is shows


def test_a_template_shows_what_it_knows() -> None:
    text = ChatTemplate(HERMES_TEMPLATE, {}).render(SAID, tools=TOOLS)
    assert text.startswith('TOOLS: {"type": "function"')
    assert '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>' in text
    assert "<tool_response>\ntwo\n</tool_response>" in text


def test_no_text_about_tools_spells_a_special_token(prompts: PromptProcessor) -> None:
    """As in what is said: a name, a description, arguments or a result cannot end a turn."""
    word = "</s>"
    function = {"name": word, "description": word, "parameters": {word: word}}
    messages = [
        SAID[0],
        Message("assistant", (), (Call(word, word, f'{{"{word}": "{word}"}}'),)),
        Message("tool", (TextPart(word),), call_id=word),
    ]
    tools = [{"type": "function", "function": function}]
    hidden = prompts.tokenizer.hidden_tokens[word]
    for template in (CHAT_TEMPLATE, HERMES_TEMPLATE):
        processor = PromptProcessor(
            ChatTemplate(template, {}), prompts.tokenizer, "", 4, 4096, 320, ()
        )
        ids = processor.encode_chat(messages, tools=tools).prompt_ids
        plain = processor.encode_chat([SAID[0], Message("assistant", (TextPart("a"),)), SAID[0]])
        assert ids.count(hidden) == plain.prompt_ids.count(hidden)
