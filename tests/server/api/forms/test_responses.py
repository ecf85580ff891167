"""Tests of OpenAI's newer form, against a whole server, and alone."""

import json
import uuid
from typing import Any

import httpx
import pytest
from pictures import question
from pydantic import ValidationError

from skipserve.api.forms.response_form import ResponseForm, read_response
from skipserve.asking.question import Question
from skipserve.prompt.template import ImagePart, Message, TextPart

RESPONSES = "/v1/responses"
SKIPPING = "skip-block-every-3-from-16-all"


def alone(given: dict[str, Any]) -> dict[str, Any]:
    """Return a body that reuses nothing, so that equal requests are computed alike."""
    salt = {"cache_salt": uuid.uuid4().hex, "temperature": 0, "max_output_tokens": 6}
    return salt | given


def ask(client: httpx.Client, content: Any = "Why?", **fields: Any) -> dict[str, Any]:
    reply = client.post(RESPONSES, json=alone({"input": content} | fields))
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def stream(client: httpx.Client, content: Any = "Why?", **fields: Any) -> list[dict[str, Any]]:
    """Return the events of a stream; checks that they are numbered, each called as its type."""
    reply = client.post(RESPONSES, json=alone({"input": content, "stream": True} | fields))
    *events, rest = reply.text.split("\n\n")
    assert rest == ""
    told = []
    for number, event in enumerate(events):
        name, data = event.split("\n")
        told.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {told[-1]['type']}"
        assert told[-1]["sequence_number"] == number
    return told


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def text(content: str) -> dict[str, str]:
    return {"type": "input_text", "text": content}


def image(url: str) -> dict[str, str]:
    return {"type": "input_image", "image_url": url, "detail": "auto"}


def test_a_reply_in_openais_newer_form(client: httpx.Client, picture_url: str) -> None:
    body = alone({"input": [user(image(picture_url), text("What?"))], "skip_policy": SKIPPING})
    reply = client.post(RESPONSES, json=body | {"store": True})
    assert reply.headers["X-Skip-Policy"] == SKIPPING
    assert reply.headers["X-Ignored-Fields"] == "input.content.detail, store"
    told = reply.json()
    assert (told["object"], told["model"], told["store"]) == ("response", "tiny", False)
    assert told["id"].startswith("resp_")
    [item] = told["output"]
    assert (item["type"], item["role"]) == ("message", "assistant")
    assert item["id"].startswith("msg_")
    [part] = item["content"]
    assert (part["type"], part["annotations"], part["logprobs"]) == ("output_text", [], [])
    assert told["status"] == item["status"]
    is_whole = told["status"] == "completed"
    assert told["incomplete_details"] == (None if is_whole else {"reason": "max_output_tokens"})
    assert told["usage"]["input_tokens_details"] == {"cached_tokens": 0, "multimodal_tokens": 16}
    assert told["max_output_tokens"] == 6
    assert told["metrics"]["skip"]["policy"] == SKIPPING


def test_the_answer_is_that_of_a_chat(client: httpx.Client, picture_url: str) -> None:
    told = ask(client, [user(image(picture_url), text("What?"))], instructions="Be brief.")
    chat = question("What?", picture_url, max_tokens=6, temperature=0, cache_salt=uuid.uuid4().hex)
    chat["messages"].insert(0, {"role": "system", "content": "Be brief."})
    reply = client.post("/v1/chat/completions", json=chat).json()
    assert told["output"][0]["content"][0]["text"] == reply["choices"][0]["message"]["content"]
    assert told["usage"]["input_tokens"] == reply["usage"]["prompt_tokens"]
    assert told["usage"]["total_tokens"] == reply["usage"]["total_tokens"]
    assert told["instructions"] == "Be brief."


def test_a_stream_is_the_reply_in_pieces(client: httpx.Client, picture_url: str) -> None:
    given: dict[str, Any] = {
        "content": [user(image(picture_url), text("Why?"))],
        "max_output_tokens": 12,
        "skip_policy": SKIPPING,
        "include": ["message.output_text.logprobs"],
        "top_logprobs": 2,
    }
    whole, events = ask(client, **given), stream(client, **given)
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert [event["type"] for event in events if event not in deltas] == [
        *("response.created", "response.in_progress"),
        *("response.output_item.added", "response.content_part.added"),
        *("response.output_text.done", "response.content_part.done"),
        *("response.output_item.done", f"response.{whole['status']}"),
    ]
    [item] = whole["output"]
    [part] = item["content"]
    assert "".join(event["delta"] for event in deltas) == part["text"]
    assert [token for event in deltas for token in event["logprobs"]] == part["logprobs"]
    assert {len(token["top_logprobs"]) for token in part["logprobs"]} == {2}
    *_, text_done, part_done, item_done, end = events
    assert (text_done["text"], text_done["logprobs"]) == (part["text"], part["logprobs"])
    assert part_done["part"] == part
    assert item_done["item"]["content"] == [part]
    last = end["response"]
    assert last["usage"] == whole["usage"]
    assert last["metrics"]["skip"] == whole["metrics"]["skip"]
    assert last["status"] == whole["status"]
    assert events[0]["response"]["status"] == "in_progress"
    assert events[0]["response"]["output"] == []
    assert len({event["item_id"] for event in deltas} | {last["output"][0]["id"]}) == 1


def test_an_earlier_answer_is_taken_as_input(client: httpx.Client) -> None:
    first = ask(client, "Hello")
    talk = [{"role": "user", "content": "Hello"}, *first["output"], user(text("And now?"))]
    second = ask(client, talk)
    assert second["usage"]["input_tokens"] > first["usage"]["input_tokens"]


@pytest.mark.parametrize(
    ("field", "status", "param", "message"),
    [
        ({"previous_response_id": "resp_1"}, 400, "previous_response_id", "nothing is stored"),
        ({"conversation": "c"}, 400, "conversation", "nothing is stored"),
        ({"background": True}, 400, "background", "nothing is stored"),
        ({"tools": [{"type": "function"}]}, 400, "tools[0]", "name: this field is missing"),
        ({"tools": [{"type": "web_search"}]}, 400, "tools[0]", "type"),
        ({"tools": [{"type": "function", "name": "f"}]}, 400, "tool_choice", "knows no tools"),
        ({"tool_choice": "required"}, 400, "tool_choice", "needs tools"),
        ({"text": {"format": {"type": "json_schema"}}}, 400, "text", "this field is missing"),
        ({"text": {"format": {"type": "xml"}}}, 400, "text", "a format is"),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"enum": []}}}},
            400,
            "text.format",
            "no text satisfies it",
        ),
        ({"max_tokens": 3}, 400, "max_tokens", "send max_output_tokens"),
        ({"skip_polcy": "full"}, 400, "skip_polcy", "is it skip_policy?"),
        ({"skip_policy": "nope"}, 404, "skip_policy", "no skip policy"),
        ({"input": []}, 400, "input", "the list is empty"),
        ({"input": "x" * 5000}, 400, "input", "the text has 5000 characters"),
        ({"input": [{"type": "reasoning"}]}, 400, "input[0]", "not supported yet"),
        ({"input": [{"type": "function_call_output"}]}, 400, "input[0]", "this field is missing"),
        ({"input": [user({"type": "input_file"})]}, 400, "input[0]", "a part is"),
        ({"input": [user(image("http://x/y.png"))]}, 403, "input[0].content[0].image_url", "off"),
        ({"input": [user(*[image("data:,")] * 5)]}, 400, "input", "5 images"),
    ],
)
def test_what_is_refused(
    client: httpx.Client, field: dict[str, Any], status: int, param: str, message: str
) -> None:
    reply = client.post(RESPONSES, json={"input": "Hi"} | field)
    assert reply.status_code == status
    error = reply.json()["error"]
    assert message in error["message"]
    assert (error["param"], error["code"]) == (param, status)


def test_values_that_ask_for_nothing_are_taken(client: httpx.Client) -> None:
    given: dict[str, Any] = {
        "previous_response_id": None,
        "tools": [],
        "tool_choice": "auto",
        "background": False,
        "text": {"format": {"type": "text"}, "verbosity": "low"},
        "truncation": "disabled",
        "include": ["reasoning.encrypted_content"],
        "reasoning": {"effort": "low"},
    }
    reply = client.post(RESPONSES, json=alone({"input": "Hi"} | given))
    assert reply.status_code == 200
    assert reply.headers["X-Ignored-Fields"] == (
        "background, previous_response_id, reasoning, text.verbosity, truncation"
    )


def test_an_error_in_a_stream(client: httpx.Client) -> None:
    *_, error, failed = stream(client, timeout_seconds=1e-6)
    assert (error["type"], error["code"]) == ("error", "timeout_error")
    assert failed["type"] == "response.failed"
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"]["message"] == error["message"]


def asked(**fields: Any) -> Question:
    return read_response(ResponseForm.model_validate({"input": "Hi"} | fields))


@pytest.mark.fast
def test_what_is_said() -> None:
    picture = {"type": "input_image", "image_url": "data:,"}
    items = [
        {"role": "developer", "content": "a"},
        {"type": "message", **user(picture, text("b"))},
        {"role": "assistant", "content": [{"type": "output_text", "text": "c"}]},
        user(picture),
    ]
    told = asked(input=items, instructions="first")
    assert told.messages == (
        Message("system", (TextPart("first"),)),
        Message("system", (TextPart("a"),)),
        Message("user", (ImagePart(), TextPart("b"))),
        Message("assistant", (TextPart("c"),)),
        Message("user", (ImagePart(),)),
    )
    params = [uri.param for uri in told.image_uris]
    assert params == ["input[1].content[0].image_url", "input[3].content[0].image_url"]
    assert asked(input="Hi").messages == (Message("user", (TextPart("Hi"),)),)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("fields", "num_top_logprobs"),
    [
        ({}, None),
        ({"top_logprobs": 0}, None),
        ({"top_logprobs": 3}, 3),
        ({"include": ["message.output_text.logprobs"]}, 0),
        ({"include": ["message.output_text.logprobs"], "top_logprobs": 2}, 2),
        ({"include": []}, None),
    ],
)
def test_log_probabilities(fields: dict[str, Any], num_top_logprobs: int | None) -> None:
    assert asked(**fields).generation.num_top_logprobs == num_top_logprobs


@pytest.mark.fast
@pytest.mark.parametrize(
    "fields",
    [
        {"input": None},
        {"input": 5},
        {"input": ["Hi"]},
        {"include": ["file_search_call.results"]},
        {"max_output_tokens": 0},
        {"n": 1},
        {"stop": "a"},
        {"instructions": ["a"]},
    ],
)
def test_forms_that_are_none(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        asked(**fields)


def test_what_a_router_adds_is_taken_where_it_asks_for_nothing(client: httpx.Client) -> None:
    added = {"priority": 0, "repetition_penalty": 1.0, "top_k": -1, "min_p": 0.0, "stream": None}
    reply = client.post(RESPONSES, json=alone({"input": "Hi"} | added))
    assert reply.status_code == 200
    assert reply.headers["X-Ignored-Fields"] == "priority, repetition_penalty"
    for name, value in (("priority", 1), ("repetition_penalty", 1.1)):
        error = client.post(RESPONSES, json=alone({"input": "Hi", name: value})).json()["error"]
        assert (error["code"], error["param"]) == (400, name)
