"""Tests of tools by a whole server, with the clients that users have, and whatever the template."""

import json
from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import httpx
import openai
import pytest
from live_server import LiveServer
from openai.types.chat import ChatCompletionFunctionToolParam
from openai.types.responses import FunctionToolParam
from pictures import question
from pydantic import BaseModel, ConfigDict
from tiny_llava import CHAT_TEMPLATE, HERMES_TEMPLATE, make_checkpoint

from skipserve.settings import Settings

CHAT = "/v1/chat/completions"


class Count(BaseModel):
    """Counts things; every call within it ends soon."""

    model_config = ConfigDict(extra="forbid")

    number: Literal[1, 2, 3]
    color: Literal["red", "blue"]


COUNT_TOOL: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {
        "name": "count",
        "description": "Counts.",
        "parameters": Count.model_json_schema(),
    },
}


# It takes nothing: a model with random weights would never end what it may say freely.
NOTHING = {"type": "object", "additionalProperties": False}
TOOLS = [COUNT_TOOL, {"type": "function", "function": {"name": "g", "parameters": NOTHING}}]


@pytest.fixture(scope="module", params=["plain", "hermes"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveServer]:
    """A server of a model whose template knows no tools, or knows them."""
    folder = tmp_path_factory.mktemp(request.param) / "tiny"
    make_checkpoint(folder, num_layers=1, max_positions=2000)
    template = HERMES_TEMPLATE if request.param == "hermes" else CHAT_TEMPLATE
    (folder / "chat_template.jinja").write_text(template)
    (folder / "chat_template.json").unlink(missing_ok=True)
    with LiveServer(Settings(model=str(folder), num_threads=1)) as server:
        yield server


@pytest.fixture
def client(server: LiveServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture
def theirs(server: LiveServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)


@pytest.fixture
def anthropics(server: LiveServer) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key="unused", max_retries=0)


def test_openai_calls_tools_and_tells_results(theirs: openai.OpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": "How many?"}]
    asked: dict[str, Any] = {"model": "tiny", "tools": [COUNT_TOOL], "tool_choice": "required"}
    asked["parallel_tool_calls"] = False
    reply = theirs.chat.completions.create(messages=messages, **asked)
    [choice] = reply.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert choice.message.tool_calls
    [call] = choice.message.tool_calls
    assert call.type == "function"
    assert call.function.name == "count"
    assert Count.model_validate_json(call.function.arguments)
    messages += [
        choice.message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "Done."},
    ]
    told = theirs.chat.completions.create(model="tiny", messages=messages, max_tokens=3)
    assert told.usage is not None
    assert reply.usage is not None
    assert told.usage.prompt_tokens > 40


def test_openai_streams_calls(theirs: openai.OpenAI) -> None:
    with theirs.chat.completions.stream(
        model="tiny",
        messages=[{"role": "user", "content": "How many?"}],
        tools=[openai.pydantic_function_tool(Count, name="count")],
        tool_choice={"type": "function", "function": {"name": "count"}},
    ) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
    assert [event.name for event in done] == ["count"]
    assert isinstance(done[0].parsed_arguments, Count)


def test_openai_s_responses_call_tools(theirs: openai.OpenAI) -> None:
    tool: FunctionToolParam = {
        "type": "function",
        "name": "count",
        "parameters": Count.model_json_schema(),
        "strict": False,
    }
    asked: dict[str, Any] = {"model": "tiny", "tools": [tool], "tool_choice": "required"}
    asked["parallel_tool_calls"] = False
    whole = theirs.responses.create(input="How many?", **asked)
    [call] = whole.output
    assert call.type == "function_call"
    assert Count.model_validate_json(call.arguments)
    talk: list[Any] = [
        {"role": "user", "content": "How many?"},
        call.model_dump(exclude_none=True),
        {"type": "function_call_output", "call_id": call.call_id, "output": "Done."},
    ]
    assert theirs.responses.create(model="tiny", input=talk, max_output_tokens=3).status
    with theirs.responses.stream(input="How many?", **asked) as stream:
        deltas = [
            event.delta
            for event in stream
            if event.type == "response.function_call_arguments.delta"
        ]
        final = stream.get_final_response()
    [streamed] = final.output
    assert streamed.type == "function_call"
    assert "".join(deltas) == streamed.arguments


def test_anthropic_uses_tools(anthropics: anthropic.Anthropic) -> None:
    asked: dict[str, Any] = {
        "model": "tiny",
        "max_tokens": 100,
        "tools": [{"name": "count", "input_schema": Count.model_json_schema()}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    }
    messages: list[Any] = [{"role": "user", "content": "How many?"}]
    reply = anthropics.messages.create(messages=messages, **asked)
    assert reply.stop_reason == "tool_use"
    [block] = reply.content
    assert block.type == "tool_use"
    assert Count.model_validate(block.input)
    result = {"type": "tool_result", "tool_use_id": block.id, "content": "Done."}
    messages += [
        {"role": "assistant", "content": [block.model_dump()]},
        {"role": "user", "content": [result, {"type": "text", "text": "And now?"}]},
    ]
    assert anthropics.messages.create(model="tiny", max_tokens=3, messages=messages).content
    with anthropics.messages.stream(messages=messages[:1], **asked) as stream:
        final = stream.get_final_message()
    [streamed] = final.content
    assert streamed.type == "tool_use"
    assert Count.model_validate(streamed.input)
    assert final.stop_reason == "tool_use"


def test_calls_in_a_stream_are_those_of_the_reply(client: httpx.Client) -> None:
    asked = question("Hi", tools=TOOLS, tool_choice="required", temperature=0, max_tokens=90)
    whole = client.post(CHAT, json=asked).json()["choices"][0]
    text = client.post(CHAT, json=asked | {"stream": True}).text
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    deltas = [
        delta
        for event in events
        for choice in event["choices"]
        for delta in choice["delta"].get("tool_calls") or ()
    ]
    calls = whole["message"]["tool_calls"]
    for index, call in enumerate(calls):
        first, *others = (delta for delta in deltas if delta["index"] == index)
        assert first["function"]["name"] == call["function"]["name"]
        assert first["id"].startswith("call_")
        assert not any("id" in delta for delta in others)
        pieces = (delta["function"]["arguments"] for delta in (first, *others))
        assert "".join(pieces) == call["function"]["arguments"]
    assert {delta["index"] for delta in deltas} == {*range(len(calls))}
    reasons = [choice["finish_reason"] for event in events for choice in event["choices"]]
    assert reasons[-1] == whole["finish_reason"]


def test_one_call_at_most_unless_several_may_be_made(client: httpx.Client) -> None:
    fields = {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False}
    reply = client.post(CHAT, json=question("Hi", max_tokens=120, **fields))
    [choice] = reply.json()["choices"]
    assert len(choice["message"]["tool_calls"]) == 1
    assert choice["finish_reason"] == "tool_calls"
