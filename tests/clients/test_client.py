"""The client against a scripted server on loopback, in both its forms."""

import asyncio
import base64
import inspect
import io
import math
import socket
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from scripted_server import Scripted, ScriptedServer, event_stream

from skipserve_client import (
    Answer,
    ApiError,
    AsyncSkipserveClient,
    ConnectionFailedError,
    PictureError,
    ProtocolError,
    SkipserveClient,
    UnsendableError,
)
from skipserve_policies.schema import SkipPolicy

pytestmark = pytest.mark.fast

PICTURE = Image.new("RGB", (4, 4), "red")


class _Sync:
    def __init__(self, url: str, **settings: Any) -> None:
        self._client = SkipserveClient(url, **settings)

    def call(self, method: str, *args: Any, **options: Any) -> Any:
        with self._client as client:
            return getattr(client, method)(*args, **options)

    def stream(self, *args: Any, **options: Any) -> tuple[list[str], Answer]:
        with self._client as client, client.stream_ask(*args, **options) as stream:
            return list(stream), stream.answer


class _Async:
    def __init__(self, url: str, **settings: Any) -> None:
        self._url, self._settings = url, settings

    def call(self, method: str, *args: Any, **options: Any) -> Any:
        async def run() -> Any:
            async with AsyncSkipserveClient(self._url, **self._settings) as client:
                return await getattr(client, method)(*args, **options)

        return asyncio.run(run())

    def stream(self, *args: Any, **options: Any) -> tuple[list[str], Answer]:
        async def run() -> tuple[list[str], Answer]:
            async with (
                AsyncSkipserveClient(self._url, **self._settings) as client,
                client.stream_ask(*args, **options) as stream,
            ):
                return [piece async for piece in stream], stream.answer

        return asyncio.run(run())


@pytest.fixture(params=[_Sync, _Async], ids=["sync", "async"])
def form(request: pytest.FixtureRequest) -> Any:
    return request.param


def _error(status: int, message: str = "no", **fields: Any) -> Scripted:
    error = {"message": message, "type": "some_error", "param": None, "code": status}
    return Scripted({"error": error | fields}, status)


def test_ask_reads_the_whole_reply(
    form: Any, server: ScriptedServer, completion: dict[str, Any]
) -> None:
    server.answers(Scripted(completion))
    answer = form(server.url).call("ask", PICTURE, "How many?", logprobs=True)
    assert (answer.text, answer.finish_reason, answer.model) == ("two red", "stop", "demo")
    assert (answer.usage.prompt_tokens, answer.usage.image_tokens) == (40, 36)
    assert answer.skip.layers == {"skip_ffn": (16, 17, 18)}
    assert answer.skip.saved_ratio == 0.25
    assert answer.timings.queue_seconds == 0.001
    assert [token.token for token in answer.logprobs] == ["two", " red"]
    assert answer.logprobs[0].top_logprobs[0].logprob == -0.1


def test_ask_sends_picture_question_and_options(
    form: Any, server: ScriptedServer, completion: dict[str, Any]
) -> None:
    server.answers(Scripted(completion))
    form(server.url, api_key="secret").call(
        "ask", PICTURE, "How many?", skip_policy="full", temperature=0.0, stop=["."]
    )
    (received,) = server.received
    assert (received.method, received.path) == ("POST", "/v1/chat/completions")
    assert received.headers["Authorization"] == "Bearer secret"
    picture, text = received.body.pop("messages")[0]["content"]
    assert text == {"type": "text", "text": "How many?"}
    head, data = picture["image_url"]["url"].split(",")
    assert head == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).getpixel((0, 0)) == (255, 0, 0)
    assert received.body == {"skip_policy": "full", "temperature": 0.0, "stop": ["."]}


@pytest.mark.parametrize(("modality", "kind"), [("video", "video_url"), ("image", "image_url")])
def test_an_animation_is_what_the_model_takes(
    form: Any, server: ScriptedServer, completion: dict[str, Any], modality: str, kind: str
) -> None:
    buffer = io.BytesIO()
    PICTURE.save(buffer, "GIF")
    entry = {"id": "m", "input_modalities": ["text", modality]}
    server.answers(Scripted({"object": "list", "data": [entry]}), Scripted(completion))
    form(server.url).call("ask", buffer.getvalue(), "What?")
    listed, asked = server.received
    assert listed.path == "/v1/models"
    assert asked.body["messages"][0]["content"][0]["type"] == kind


def test_a_policy_object_is_sent_as_a_stanza(
    server: ScriptedServer, completion: dict[str, Any]
) -> None:
    server.answers(Scripted(completion))
    stanza = {"rules": [{"action": "skip_block", "layers": {"from": 16, "to": 31}, "scope": "all"}]}
    policy = SkipPolicy.model_validate(stanza)
    _Sync(server.url).call("ask", PICTURE, "?", skip_policy=policy)
    assert server.received[0].body["skip_policy"] == stanza


def test_a_reply_without_logprobs_has_none(
    server: ScriptedServer, completion: dict[str, Any]
) -> None:
    completion["choices"][0]["logprobs"] = None
    server.answers(Scripted(completion))
    assert _Sync(server.url).call("chat", []).logprobs == ()


def test_a_plain_chat_takes_what_other_servers_leave_out(form: Any, server: ScriptedServer) -> None:
    server.answers(Scripted({"choices": [{"message": {"content": None}}]}))
    said = [{"role": "user", "content": "?"}]
    answer = form(server.url).call("plain_chat", said, model="rival", max_tokens=3)
    assert (answer.text, answer.finish_reason, answer.usage) == ("", None, None)
    assert server.received[0].body == {"messages": said, "model": "rival", "max_tokens": 3}


def test_stream_gives_pieces_then_the_same_answer(
    form: Any, server: ScriptedServer, completion: dict[str, Any], stream_events: list[Any]
) -> None:
    server.answers(event_stream(stream_events))
    pieces, answer = form(server.url).stream(PICTURE, "How many?")
    assert pieces == ["two", " red"]
    assert answer == Answer.model_validate(completion)
    body = server.received[0].body
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}


def test_an_error_inside_a_stream_is_raised(
    form: Any, server: ScriptedServer, stream_events: list[Any]
) -> None:
    failure = {"error": {"message": "the engine died", "type": "server_error", "code": 500}}
    server.answers(event_stream([*stream_events[:2], failure]))
    with pytest.raises(ApiError, match="the engine died") as raised:
        form(server.url).stream(PICTURE, "?")
    assert raised.value.status == 500


def test_a_stream_that_breaks_off_has_no_answer(
    form: Any, server: ScriptedServer, stream_events: list[Any]
) -> None:
    server.answers(event_stream(stream_events[:3], is_done=False))
    with pytest.raises(ConnectionFailedError, match="broke off"):
        form(server.url).stream(PICTURE, "?")


def test_an_error_reply_to_a_stream_is_raised(form: Any, server: ScriptedServer) -> None:
    server.answers(_error(404, "no policy ful", param="skip_policy"))
    with pytest.raises(ApiError, match="no policy ful") as raised:
        form(server.url).stream(PICTURE, "?")
    assert raised.value.param == "skip_policy"


def test_an_error_carries_what_the_server_says(form: Any, server: ScriptedServer) -> None:
    server.answers(_error(404, "no policy ful; did you mean full?", param="skip_policy"))
    with pytest.raises(ApiError) as raised:
        form(server.url).call("ask", PICTURE, "?", skip_policy="ful")
    error = raised.value
    assert (error.status, error.param, error.type) == (404, "skip_policy", "some_error")
    assert str(error) == "no policy ful; did you mean full? (HTTP 404)"
    assert len(server.received) == 1


def test_an_error_that_is_not_ours_is_shown_as_it_is(server: ScriptedServer) -> None:
    server.answers(Scripted("<h1>Bad gateway</h1>", 502))
    with pytest.raises(ApiError, match="Bad gateway") as raised:
        _Sync(server.url).call("models")
    assert raised.value.status == 502


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again(
    form: Any, server: ScriptedServer, completion: dict[str, Any], status: int
) -> None:
    busy = Scripted(_error(status).body, status, {"Retry-After": "0"})
    server.answers(busy, Scripted(completion))
    assert form(server.url).call("ask", PICTURE, "?").text == "two red"
    assert len(server.received) == 2


def test_retry_after_is_waited_for(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, completion: dict[str, Any]
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("httpx_retries.retry.time.sleep", waits.append)
    server.answers(Scripted(_error(503).body, 503, {"Retry-After": "7"}), Scripted(completion))
    _Sync(server.url).call("ask", PICTURE, "?")
    assert waits == [7.0]


def test_retries_end(server: ScriptedServer) -> None:
    server.answers(Scripted(_error(503, "full").body, 503, {"Retry-After": "0"}))
    with pytest.raises(ApiError) as raised:
        _Sync(server.url, max_retries=1).call("models")
    assert (raised.value.status, raised.value.retry_after_seconds) == (503, 0.0)
    assert len(server.received) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": math.nan}, "temperature: this cannot be written as JSON"),
        ({"model": Path("demo")}, "model: .* PosixPath is not JSON serializable"),
        ({"stop": "\ud800"}, "stop: a text in it is not valid Unicode"),
    ],
)
def test_what_cannot_be_sent_is_named(form: Any, options: dict[str, Any], message: str) -> None:
    asking = form("http://127.0.0.1:9")
    with pytest.raises(UnsendableError, match=message):
        asking.stream(PICTURE, "?", **options)
    with pytest.raises(UnsendableError, match=message):
        asking.call("ask", PICTURE, "?", **options)


@pytest.mark.parametrize("key", ["\u00e9", "secret\n", "\udcff"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(form: Any, key: str) -> None:
    with pytest.raises(UnsendableError, match="the API key holds characters") as caught:
        form("http://127.0.0.1:9", api_key=key).call("models")
    assert key.strip() not in str(caught.value)


def test_no_server_is_a_failed_connection(form: Any) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(ConnectionFailedError, match=f"no server answers at {url}"):
            form(url, max_retries=0).call("models")


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://127.0.0.1", "http://[::1"])
def test_a_url_that_cannot_be_used_is_a_failed_connection(url: str) -> None:
    with pytest.raises(ConnectionFailedError):
        SkipserveClient(url, max_retries=0).models()


@pytest.mark.parametrize("body", ["hello", {"choices": []}, [1], {"data": [{"name": 3}]}])
def test_a_reply_in_another_form_is_a_protocol_error(server: ScriptedServer, body: Any) -> None:
    server.answers(Scripted(body))
    with pytest.raises(ProtocolError):
        _Sync(server.url).call("skip_policies")
    with pytest.raises(ProtocolError):
        _Sync(server.url).call("chat", [])


def test_a_stream_of_something_else_is_a_protocol_error(form: Any, server: ScriptedServer) -> None:
    server.answers(Scripted("data: hello\n\n", headers={"Content-Type": "text/event-stream"}))
    with pytest.raises(ProtocolError):
        form(server.url).stream(PICTURE, "?")
    server.answers(Scripted("{}"))
    with pytest.raises(ProtocolError):
        form(server.url).stream(PICTURE, "?")


def test_skip_policies_and_models_are_listed(form: Any, server: ScriptedServer) -> None:
    policy = {
        "name": "shortv-7b",
        "description": "",
        "source": "",
        "digest": "d",
        "layers": {"skip_block": [0, 2]},
        "scope": "visual",
        "saved_ratio": 0.4,
        "quality": [{"model": "m", "dataset": "GQA", "metric": "accuracy", "value": 60.9}],
    }
    server.answers(Scripted({"object": "list", "data": [policy]}))
    (info,) = form(server.url).call("skip_policies")
    assert (info.name, info.layers["skip_block"], info.quality[0].value) == (
        "shortv-7b",
        (0, 2),
        60.9,
    )
    server.answers(Scripted({"object": "list", "data": [{"id": "demo"}, {"id": "demo@full"}]}))
    assert [model.id for model in form(server.url).call("models")] == ["demo", "demo@full"]


def test_a_skip_policy_is_added_and_removed(form: Any, server: ScriptedServer) -> None:
    info: dict[str, Any] = {
        "name": "p",
        "digest": "d",
        "layers": {},
        "scope": None,
        "saved_ratio": 0.4,
    }
    server.answers(Scripted(info | {"added": True}, 201))
    stanza = {"rules": [{"action": "skip_ffn", "layers": [2]}]}
    for policy in (stanza, SkipPolicy.model_validate(stanza)):
        assert form(server.url).call("add_skip_policy", "p", policy).added
        assert server.received[-1].body == {"name": "p", "policy": stanza}
    server.answers(Scripted({"name": "p", "deleted": True}))
    assert form(server.url).call("remove_skip_policy", "p") is None
    assert (server.received[-1].method, server.received[-1].path) == (
        "DELETE",
        "/v1/skip_policies/p",
    )


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"nothing\.png"):
        _Sync("http://127.0.0.1:1").call("ask", tmp_path / "nothing.png", "?")


def test_both_clients_offer_the_same() -> None:
    def offer(client: type) -> dict[str, inspect.Signature]:
        members = inspect.getmembers(client, inspect.isfunction)
        return {
            name: inspect.signature(member).replace(return_annotation=inspect.Signature.empty)
            for name, member in members
            if not name.startswith("_")
        }

    assert offer(SkipserveClient) == offer(AsyncSkipserveClient)


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/"])
def test_an_address_may_end_as_clients_of_openai_s_write_it(
    server: ScriptedServer, ending: str
) -> None:
    server.answers(Scripted({"object": "list", "data": []}))
    with SkipserveClient(server.url + ending) as client:
        client.models()
    assert server.received[0].path == "/v1/models"


@pytest.mark.parametrize("deep", ["[" * 100_000, '{"error":' * 100_000])
def test_an_error_of_another_form_is_one_line(server: ScriptedServer, deep: str) -> None:
    for body, told in (
        ("<!DOCTYPE HTML>\n<style>a\n{}</style><h1>Bad\n gateway</h1>", "Bad gateway"),
        ("no\n  room ", "no room"),
        ("", "the server gave no reason"),
        (deep, deep[:200]),
    ):
        server.answers(Scripted(body, 500))
        with SkipserveClient(server.url) as client, pytest.raises(ApiError) as error:
            client.models()
        assert str(error.value) == f"{told} (HTTP 500)"


@pytest.mark.parametrize("url", ["http://127.0.0.1:65536", "http://127.0.0.1:99999/v1"])
def test_ports_end(url: str) -> None:
    for kind in (SkipserveClient, AsyncSkipserveClient):
        with pytest.raises(ConnectionFailedError, match="is not an address"):
            kind(url)


def test_a_password_in_an_address_is_sent_and_not_told(server: ScriptedServer) -> None:
    server.answers(Scripted({"version": "9.9"}))
    with SkipserveClient(server.url.replace("//", "//me:secret@")) as client:
        assert client.version() == "9.9"
        assert client.url == server.url
    sent = base64.b64encode(b"me:secret").decode()
    assert server.received[0].headers["Authorization"] == f"Basic {sent}"


def test_versions_of_another_form(server: ScriptedServer) -> None:
    bodies: list[Any] = [{}, [], "1"]
    for body in bodies:
        server.answers(Scripted(body))
        with SkipserveClient(server.url) as client, pytest.raises(ProtocolError):
            client.version()
