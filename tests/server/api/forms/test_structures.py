"""Tests of what answers are held to and of tools, in chats and completions, by a whole server."""

import json
import re
from typing import Any

import httpx
import pytest
from pictures import question

from skipserve.api.forms.chat import read_chat
from skipserve.api.wire import ChatForm
from skipserve.errors import InvalidRequestError

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
SKIPPING = "skip-block-every-3-from-16-all"
SHORT: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"enum": [1, "\u20ac"]}, "b": {"type": "boolean"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "f", "description": "F.", "parameters": SHORT}},
    {"type": "function", "function": {"name": "g"}},
]


def format_of(schema: dict[str, Any]) -> dict[str, Any]:
    json_schema = {"name": "n", "schema": schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": json_schema}}


def answer(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    reply = client.post(CHAT, json=question("Hi", **({"max_tokens": 120} | fields)))
    assert reply.status_code == 200, reply.text
    choice: dict[str, Any] = reply.json()["choices"][0]
    return choice


def refused(client: httpx.Client, path: str = CHAT, **fields: Any) -> dict[str, Any]:
    body = question("Hi") if path == CHAT else {"prompt": "Hi"}
    reply = client.post(path, json=body | fields)
    assert reply.status_code == 400, reply.text
    error: dict[str, Any] = reply.json()["error"]
    return error


@pytest.mark.parametrize("policy", ["full", SKIPPING])
def test_an_answer_follows_its_schema(client: httpx.Client, policy: str) -> None:
    choice = answer(client, **format_of(SHORT), skip_policy=policy)
    value = json.loads(choice["message"]["content"])
    assert value["a"] in SHORT["properties"]["a"]["enum"]
    assert isinstance(value["b"], bool)
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("held_to", "pattern"),
    [
        ({"json": SHORT}, r"\{.*\}"),
        ({"json": json.dumps(SHORT)}, r"\{.*\}"),
        ({"regex": "x[0-9]{2}"}, r"x\d\d"),
        ({"choice": ["yes", "no"]}, "yes|no"),
        ({"grammar": 'root ::= "a" ("b" | "c")'}, "a[bc]"),
    ],
)
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_what_vllm_calls_structured_outputs(
    client: httpx.Client, path: str, held_to: dict[str, Any], pattern: str
) -> None:
    body = question("Hi") if path == CHAT else {"prompt": "Hi"}
    asked = {"max_tokens": 90, "n": 2, "structured_outputs": held_to}
    reply = client.post(path, json=body | asked)
    assert reply.status_code == 200, reply.text
    for choice in reply.json()["choices"]:
        text = choice["message"]["content"] if path == CHAT else choice["text"]
        assert re.fullmatch(pattern, text)
        assert choice["finish_reason"] == "stop"


def test_any_object(client: httpx.Client) -> None:
    choice = answer(client, response_format={"type": "json_object"}, max_tokens=40)
    assert choice["message"]["content"].startswith("{")


def test_an_answer_that_is_cut_off(client: httpx.Client) -> None:
    choice = answer(client, structured_outputs={"regex": "x{50}"}, max_tokens=7)
    assert choice["message"]["content"] == "x" * 7
    assert choice["finish_reason"] == "length"


def test_a_stop_string_ends_it_before(client: httpx.Client) -> None:
    choice = answer(client, structured_outputs={"regex": "abcdef"}, stop="d")
    assert (choice["message"]["content"], choice["finish_reason"]) == ("abc", "stop")


def test_an_answer_ends_with_its_grammar_whatever_should_come_before(client: httpx.Client) -> None:
    choice = answer(client, structured_outputs={"choice": ["ab"]}, min_tokens=20)
    assert (choice["message"]["content"], choice["finish_reason"]) == ("ab", "stop")
    longer = answer(client, structured_outputs={"regex": "a*"}, min_tokens=20, max_tokens=60)
    assert len(longer["message"]["content"]) >= 20


def test_biases_penalties_and_bad_words_choose_within_it(client: httpx.Client) -> None:
    one = {"structured_outputs": {"regex": "[xy]{6}"}}
    held = answer(client, **one, bad_words=["x"], presence_penalty=1.5, temperature=0)
    assert held["message"]["content"] == "yyyyyy"


def test_words_that_leave_nothing_are_an_error_that_names_both(client: httpx.Client) -> None:
    error = refused(client, structured_outputs={"choice": ["x"]}, bad_words=["x"])
    assert error["param"] == "structured_outputs"
    assert "bad_words" in error["message"]
    assert "structured_outputs" in error["message"]


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        (format_of({"enum": []}), "response_format", "no text satisfies it"),
        (format_of({"$ref": "#/$defs/no"}), "response_format", "does not exist"),
        (format_of({"$ref": "http://127.0.0.1/x"}), "response_format", "not"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs", "nothing to choose"),
        ({"structured_outputs": {"regex": "("}}, "structured_outputs", "unclosed group"),
        ({"structured_outputs": {}}, "structured_outputs", "it holds 0"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs", "holds 2"),
        ({"structured_outputs": {"choice": ["a"]}, "ignore_eos": True}, "ignore_eos", "structured"),
        (
            {"structured_outputs": {"choice": ["a"]}, "response_format": {"type": "json_object"}},
            "structured_outputs",
            "response_format and structured_outputs",
        ),
        ({"guided_choice": ["a"]}, "guided_choice", "send structured_outputs"),
    ],
)
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_what_is_refused(
    client: httpx.Client, path: str, fields: dict[str, Any], param: str, words: str
) -> None:
    error = refused(client, path, **fields)
    assert words in error["message"]
    assert error["param"] == param


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"tools": TOOLS}, "tool_choice", "knows no tools"),
        ({"tools": TOOLS, "tool_choice": "auto"}, "tool_choice", "knows no tools"),
        ({"tool_choice": "required"}, "tool_choice", "needs tools"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "h"}}},
            "tool_choice",
            "names the function 'h'",
        ),
        ({"tools": [TOOLS[0]] * 2, "tool_choice": "required"}, "tools", "two functions"),
        (
            {"tools": TOOLS, "tool_choice": "required", "response_format": {"type": "json_object"}},
            "response_format",
            "tools",
        ),
    ],
)
def test_tools_that_are_refused(
    client: httpx.Client, fields: dict[str, Any], param: str, words: str
) -> None:
    error = refused(client, **fields)
    assert words in error["message"]
    assert error["param"] == param


def test_a_fault_in_a_function_s_schema_has_its_place(client: httpx.Client) -> None:
    bad = {
        "type": "function",
        "function": {"name": "h", "parameters": {"properties": {"x": False}}},
    }
    bad["function"]["parameters"]["required"] = ["x"]  # type: ignore[index]
    error = refused(client, tools=[*TOOLS, bad], tool_choice="required")
    assert error["param"].startswith("tools[2]")


def test_tools_that_are_not_to_be_called_are_not_shown(client: httpx.Client) -> None:
    plain = answer(client, temperature=0, max_tokens=5)
    assert answer(client, temperature=0, max_tokens=5, tools=TOOLS, tool_choice="none") == plain


@pytest.mark.parametrize(
    "message",
    [
        {"role": "tool", "content": "7"},
        {"role": "user", "content": "7", "tool_call_id": "a"},
        {"role": "user", "content": "7", "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "assistant", "tool_calls": []},
        {"role": "assistant"},
    ],
)  # fmt: skip
def test_messages_that_are_none(client: httpx.Client, message: dict[str, Any]) -> None:
    said = [*question("Hi")["messages"], message]
    assert refused(client, messages=said)["param"] == "messages[1]"


@pytest.mark.fast
def test_what_a_chat_s_form_becomes() -> None:
    asked = read_chat(ChatForm.model_validate(question("Hi", tools=TOOLS)))
    assert asked.tools is not None
    assert [it.name for it in asked.tools.functions] == ["f", "g"]
    assert not asked.tools.must_call
    assert asked.wants_grammar
    assert not read_chat(ChatForm.model_validate(question("Hi"))).wants_grammar


@pytest.mark.fast
def test_a_schema_that_is_too_deep_for_json_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(5000):
        schema = {"not": schema}
    form = ChatForm.model_validate(question("Hi"))
    held = ChatForm.model_validate(question("Hi", structured_outputs={"json": {}}))
    assert held.structured_outputs is not None
    deep = held.structured_outputs.model_copy(update={"described": schema})
    with pytest.raises(InvalidRequestError, match="nested too deep"):
        read_chat(form.model_copy(update={"structured_outputs": deep}))
