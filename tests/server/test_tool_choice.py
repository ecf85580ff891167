"""Tests of calls that a model chooses to make or not, in each form, with the clients of users."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import anthropic
import openai
import pytest
from live_server import LiveServer
from tiny_caller import (
    ARGUMENTS,
    CALLS_AT_ONCE,
    SAID_BEFORE,
    SAID_INSTEAD,
    SPEAKS_AND_CALLS,
    make_caller,
)

from skipserve.settings import Settings

SCHEMA = {
    "type": "object",
    "properties": {"number": {"type": "integer"}, "color": {"type": "string", "maxLength": 9}},
    "required": ["number", "color"],
    "additionalProperties": False,
}
NAMED: dict[str, Any] = {"name": "count", "description": "Counts."}
CHAT_TOOL: Any = {"type": "function", "function": NAMED | {"parameters": SCHEMA}}
RESPONSES_TOOL: Any = {"type": "function", "parameters": SCHEMA, "strict": False} | NAMED
MESSAGES_TOOL: Any = NAMED | {"input_schema": SCHEMA}


class Told(NamedTuple):
    """What a client made of an answer: its text, its calls, and whether it ended for them."""

    text: str
    calls: list[tuple[str, dict[str, Any]]]
    ends_with_calls: bool


CALL = ("count", ARGUMENTS)
OUTCOMES = {
    f"How many{SPEAKS_AND_CALLS}": Told(SAID_BEFORE, [CALL], True),
    f"Count them{CALLS_AT_ONCE}": Told("", [CALL], True),
    "Good day.": Told(SAID_INSTEAD, [], False),
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = make_caller(tmp_path_factory.mktemp("models") / "caller")
    with LiveServer(Settings(model=str(folder), num_threads=1)) as server:
        yield server.url


@pytest.fixture(params=[{}, {"tool_choice": "auto"}], ids=["left out", "auto"])
def choice(request: pytest.FixtureRequest) -> dict[str, Any]:
    chosen: dict[str, Any] = request.param
    return chosen


@pytest.fixture(params=OUTCOMES)
def said(request: pytest.FixtureRequest) -> str:
    text: str = request.param
    return text


@pytest.fixture
def theirs(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture
def anthropics(url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=url, api_key="unused", max_retries=0) as client:
        yield client


def test_chats(theirs: openai.OpenAI, said: str, choice: dict[str, Any]) -> None:
    asked: dict[str, Any] = {"model": "caller", "tools": [CHAT_TOOL], "temperature": 0} | choice
    asked["messages"] = [{"role": "user", "content": said}]
    whole = theirs.chat.completions.create(**asked)
    assert told_in_chat(whole.choices[0]) == OUTCOMES[said]
    with theirs.chat.completions.stream(**asked) as stream:
        pieces = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert told_in_chat(final.choices[0]) == OUTCOMES[said]
    assert "".join(pieces) == OUTCOMES[said].text


def told_in_chat(choice: Any) -> Told:
    calls = [
        (call.function.name, json.loads(call.function.arguments))
        for call in choice.message.tool_calls or ()
    ]
    assert choice.finish_reason in {"tool_calls", "stop"}
    return Told(choice.message.content or "", calls, choice.finish_reason == "tool_calls")


def test_responses(theirs: openai.OpenAI, said: str, choice: dict[str, Any]) -> None:
    asked: dict[str, Any] = {"model": "caller", "tools": [RESPONSES_TOOL], "temperature": 0}
    asked |= choice | {"input": said}
    assert told_in_response(theirs.responses.create(**asked)) == OUTCOMES[said]
    with theirs.responses.stream(**asked) as stream:
        pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert told_in_response(final) == OUTCOMES[said]
    assert "".join(pieces) == OUTCOMES[said].text


def told_in_response(reply: Any) -> Told:
    assert reply.status == "completed"
    calls = [
        (item.name, json.loads(item.arguments))
        for item in reply.output
        if item.type == "function_call"
    ]
    return Told(reply.output_text, calls, reply.output[-1].type == "function_call")


def test_messages(anthropics: anthropic.Anthropic, said: str, choice: dict[str, Any]) -> None:
    asked: dict[str, Any] = {"model": "caller", "tools": [MESSAGES_TOOL], "max_tokens": 100}
    asked |= {name: {"type": value} for name, value in choice.items()}
    asked |= {"messages": [{"role": "user", "content": said}], "extra_body": {"temperature": 0}}
    assert told_in_message(anthropics.messages.create(**asked)) == OUTCOMES[said]
    with anthropics.messages.stream(**asked) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert told_in_message(final) == OUTCOMES[said]
    assert text == OUTCOMES[said].text


def told_in_message(message: Any) -> Told:
    text = "".join(block.text for block in message.content if block.type == "text")
    calls = [(block.name, block.input) for block in message.content if block.type == "tool_use"]
    assert message.stop_reason in {"tool_use", "end_turn"}
    return Told(text, calls, message.stop_reason == "tool_use")
