"""Tests of Anthropic's form, against a whole server, and alone."""

import json
import uuid
from typing import Any

import httpx
import pytest
from app_client import send
from pictures import question
from pydantic import ValidationError

from skipserve.api.forms.message_form import MessageForm, read_message
from skipserve.app import Built
from skipserve.asking.question import Question
from skipserve.errors import InvalidRequestError
from skipserve.prompt.template import ImagePart, Message, TextPart

MESSAGES = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
SKIPPING = "skip-block-every-3-from-16-all"
PICTURE = {"type": "base64", "media_type": "image/png"}


def body(*blocks: object, **fields: object) -> dict[str, Any]:
    content = list(blocks) or "Why?"
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 4} | fields


def alone(given: dict[str, Any]) -> dict[str, Any]:
    """Return a body that reuses nothing, so that equal requests are computed alike."""
    return {"cache_salt": uuid.uuid4().hex, "temperature": 0} | given


def text(content: str) -> dict[str, str]:
    return {"type": "text", "text": content}


def image(url: str) -> dict[str, Any]:
    return {"type": "image", "source": PICTURE | {"data": url.partition(",")[2]}}


def ask(client: httpx.Client, given: dict[str, Any]) -> dict[str, Any]:
    reply = client.post(MESSAGES, json=alone(given))
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def stream(client: httpx.Client, given: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the events of a stream; checks that each is called as its type."""
    reply = client.post(MESSAGES, json=alone(given) | {"stream": True})
    assert reply.headers["content-type"].startswith("text/event-stream")
    *events, rest = reply.text.split("\n\n")
    assert rest == ""
    told = []
    for event in events:
        name, data = event.split("\n")
        told.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {told[-1]['type']}"
    return told


def test_a_reply_in_anthropics_form(client: httpx.Client, picture_url: str) -> None:
    given = alone(body(image(picture_url), text("What?"), skip_policy=SKIPPING))
    reply = client.post(MESSAGES, json=given)
    assert reply.headers["X-Skip-Policy"] == SKIPPING
    assert reply.headers["Request-Id"] == reply.headers["X-Request-Id"]
    told = reply.json()
    assert (told["type"], told["role"], told["model"]) == ("message", "assistant", "tiny")
    assert told["id"].startswith("msg_")
    [block] = told["content"]
    assert block["type"] == "text"
    assert told["stop_reason"] in {"end_turn", "max_tokens"}
    assert told["stop_sequence"] is None
    assert told["metrics"]["skip"]["policy"] == SKIPPING


def test_the_answer_is_that_of_a_chat(client: httpx.Client, picture_url: str) -> None:
    salt = {"cache_salt": uuid.uuid4().hex, "max_tokens": 6, "temperature": 0}
    told = ask(client, body(image(picture_url), text("What?"), system="Be brief.") | salt)
    chat = question("What?", picture_url, **salt | {"cache_salt": uuid.uuid4().hex})
    chat["messages"].insert(0, {"role": "system", "content": "Be brief."})
    reply = client.post("/v1/chat/completions", json=chat).json()
    assert told["content"][0]["text"] == reply["choices"][0]["message"]["content"]
    usage = told["usage"]
    assert usage["input_tokens"] == reply["usage"]["prompt_tokens"]
    assert usage["output_tokens"] == reply["usage"]["completion_tokens"]
    again = ask(client, body(image(picture_url), text("What?"), system="Be brief.") | salt)["usage"]
    assert again["cache_read_input_tokens"] > 0
    assert again["input_tokens"] + again["cache_read_input_tokens"] == usage["input_tokens"]


def test_a_stream_is_the_reply_in_pieces(client: httpx.Client, picture_url: str) -> None:
    given = body(image(picture_url), text("Why?"), max_tokens=12, skip_policy=SKIPPING)
    whole, events = ask(client, given), stream(client, given)
    kinds = [event["type"] for event in events if event["type"] != "content_block_delta"]
    assert kinds == [
        *("message_start", "content_block_start", "ping"),
        *("content_block_stop", "message_delta", "message_stop"),
    ]
    start, block, *_, delta, _ = events
    assert start["message"]["content"] == []
    assert start["message"]["stop_reason"] is None
    assert start["message"]["usage"]["input_tokens"] == whole["usage"]["input_tokens"]
    assert block["content_block"] == {"type": "text", "text": ""}
    pieces = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert {piece["type"] for piece in pieces} == {"text_delta"}
    assert "".join(piece["text"] for piece in pieces) == whole["content"][0]["text"]
    assert delta["delta"] == {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    assert delta["usage"] == whole["usage"]
    assert delta["metrics"]["skip"] == whole["metrics"]["skip"]


def test_a_stop_sequence_is_named(client: httpx.Client) -> None:
    whole = ask(client, body(max_tokens=20))["content"][0]["text"]
    stop = whole[2:5]
    given = body(max_tokens=20, stop_sequences=["never", stop])
    told = ask(client, given)
    assert told["content"][0]["text"] == whole[: whole.index(stop)]
    assert (told["stop_reason"], told["stop_sequence"]) == ("stop_sequence", stop)
    delta = next(event for event in stream(client, given) if event["type"] == "message_delta")
    assert delta["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": stop}


def test_tokens_are_counted_as_they_are_read(client: httpx.Client, picture_url: str) -> None:
    given = body(image(picture_url), text("What?"), system=[text("Be"), text("brief.")])
    usage = ask(client, given)["usage"]
    del given["max_tokens"]
    assert client.post(COUNT, json=given).json() == {"input_tokens": usage["input_tokens"]}


@pytest.mark.parametrize(
    ("given", "status", "kind", "words"),
    [
        ({}, 400, "invalid_request_error", "messages: this field is missing"),
        (body(text("Hi"), skip_policy="nope"), 404, "not_found_error", "no skip policy 'nope'"),
        (body(model="claude"), 404, "not_found_error", "no model 'claude'"),
        (body(max_token=3), 400, "invalid_request_error", "is it max_tokens?"),
        (
            body({"type": "document"}),
            400,
            "invalid_request_error",
            "documents and thinking are not supported yet",
        ),
        (
            body({"type": "image", "source": {"type": "url", "url": "http://x/y.png"}}),
            403,
            "permission_error",
            "switched off",
        ),
        (body(image("data:image/png;base64,AAA")), 422, "invalid_request_error", "base64"),
        (body(text("x" * 2_000_000)), 413, "request_too_large", "may hold at most"),
        (body(timeout_seconds=1e-6), 408, "timeout_error", "timeout_seconds"),
    ],
)
def test_errors_in_anthropics_form(
    client: httpx.Client, given: dict[str, Any], status: int, kind: str, words: str
) -> None:
    reply = client.post(MESSAGES, json=given)
    assert reply.status_code == status
    told = reply.json()
    assert told.keys() == {"type", "error", "request_id"}
    assert told["type"] == "error"
    assert told["error"].keys() == {"type", "message", "param"}
    assert told["error"]["type"] == kind
    assert words in told["error"]["message"]
    assert told["request_id"] == reply.headers["Request-Id"]


def test_an_error_in_a_stream(client: httpx.Client) -> None:
    *_, last = stream(client, body(timeout_seconds=1e-6))
    assert last["type"] == "error"
    assert last["error"]["type"] == "timeout_error"


def test_other_methods_and_paths(client: httpx.Client) -> None:
    for reply, status in ((client.get(MESSAGES), 405), (client.get(f"{MESSAGES}/batches"), 404)):
        assert (reply.status_code, reply.json()["type"]) == (status, "error")
    assert "type" not in client.get("/v1/messagess").json()


@pytest.mark.fast
def test_without_an_engine(idle: Built) -> None:
    reply = send(idle.app, "POST", MESSAGES, json=body())
    assert (reply.status_code, reply.json()["error"]["type"]) == (503, "overloaded_error")
    assert reply.headers["Retry-After"]


def asked(*messages: tuple[str, Any], **fields: Any) -> Question:
    said = [{"role": role, "content": content} for role, content in messages]
    form = {"messages": said or [{"role": "user", "content": "Hi"}], "max_tokens": 3} | fields
    return read_message(MessageForm.model_validate(form))


@pytest.mark.fast
def test_neighbours_of_one_role_are_one_turn() -> None:
    source = {"type": "image", "source": PICTURE | {"data": "AAAA"}}
    asked_ = asked(
        ("user", "a"), ("user", [text("b"), source]), ("assistant", "c"), ("user", [source])
    )
    assert asked_.messages == (
        Message("user", (TextPart("a"), TextPart("b"), ImagePart())),
        Message("assistant", (TextPart("c"),)),
        Message("user", (ImagePart(),)),
    )
    places = [(uri.url, uri.param) for uri in asked_.image_uris]
    assert places == [
        ("data:image/png;base64,AAAA", "messages[1].content[1].source"),
        ("data:image/png;base64,AAAA", "messages[3].content[0].source"),
    ]


@pytest.mark.fast
@pytest.mark.parametrize("system", ["Be brief.", [text("Be"), text("brief.")], [], None])
def test_system(system: Any) -> None:
    texts = [system] if isinstance(system, str) else [it["text"] for it in system or ()]
    turns = [message for message in asked(system=system).messages if message.role == "system"]
    assert turns == ([Message("system", tuple(map(TextPart, texts)))] if texts else [])


@pytest.mark.fast
def test_a_turn_to_go_on_from_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="not supported yet") as caught:
        asked(("user", "a"), ("assistant", "b"))
    assert caught.value.param == "messages"


@pytest.mark.fast
@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 0},
        {"max_tokens": None},
        {"messages": [{"role": "system", "content": "a"}]},
        {"messages": []},
        {"stop_sequences": "a"},
        {"stop_sequences": ["a"] * 5},
        {"temperature": 3},
        {"tools": [{"name": "x"}]},
        {"stream_options": {"include_usage": True}},
    ],
)
def test_forms_that_are_none(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        asked(**fields)


@pytest.mark.fast
def test_how_the_answer_is_generated() -> None:
    wanted = asked(temperature=0.5, top_p=0.9, top_k=7, seed=3, stop_sequences=["a"]).generation
    assert (wanted.temperature, wanted.top_p, wanted.top_k, wanted.seed) == (0.5, 0.9, 7, 3)
    assert (wanted.stops, wanted.max_tokens) == (("a",), 3)


def test_fields_that_change_no_answer_are_named(client: httpx.Client) -> None:
    cached = text("Why?") | {"cache_control": {"type": "ephemeral"}}
    given = body(cached, metadata={"user_id": "Ann"}, tools=[], container="")
    given["system"] = [cached]
    reply = client.post(MESSAGES, json=given)
    assert reply.headers["X-Ignored-Fields"] == (
        "container, messages.content.cache_control, metadata, system.cache_control"
    )
    refused = client.post(MESSAGES, json=body(mcp_servers=[{"name": "x"}]))
    assert refused.status_code == 400
    assert refused.json()["error"]["message"] == "mcp_servers: the server runs no tools itself"


@pytest.mark.parametrize("policy", ["full", "downsample-half"])
def test_tokens_are_counted_under_the_policy(
    client: httpx.Client, picture_url: str, policy: str
) -> None:
    """A policy may leave fewer rows of an image."""
    given = body(image(picture_url), text("What?"), model=f"tiny@{policy}")
    usage = ask(client, given)["usage"]
    told = client.post(COUNT, json={name: given[name] for name in ("model", "messages")}).json()
    assert told == {"input_tokens": usage["input_tokens"]}
