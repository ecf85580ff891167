"""Bodies and fields that break servers: the rows of the security table on requests."""

import json
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from live_server import LiveServer
from patience import slowness
from pictures import data_uri, encode, question, random_picture

CHAT = "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}
LEAKS = re.compile(
    r"0x[0-9a-f]{6,}|Traceback|File \"|/(home|root|tmp|usr|opt|var|etc)/|site-packages"
)


def check_refusal(reply: httpx.Response, *statuses: int) -> dict[str, Any]:
    """Check that a reply is an error of the one form that says nothing of the server's inside."""
    assert reply.status_code in statuses, (reply.status_code, reply.text)
    assert not LEAKS.search(reply.text)
    assert len(reply.content) < 8_000
    body = reply.json()
    assert body.keys() == {"error"}
    error: dict[str, Any] = body["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == reply.status_code
    return error


@pytest.fixture(autouse=True)
def _still_alive(client: httpx.Client) -> Iterator[None]:
    """After each test the server must still answer."""
    yield
    reply = client.post(CHAT, json=question("Still there?", max_tokens=1))
    assert reply.status_code == 200
    assert client.get("/health").status_code == 200


def refuse(client: httpx.Client, body: Any, *statuses: int) -> dict[str, Any]:
    """Send a body and check its refusal, whole and as a stream."""
    if isinstance(body, dict):
        check_refusal(client.post(CHAT, json=body | {"stream": True}), *statuses)
        return check_refusal(client.post(CHAT, json=body), *statuses)
    return check_refusal(client.post(CHAT, content=body, headers=JSON), *statuses)


def test_s07_items_are_counted_before_any_is_decoded(client: httpx.Client) -> None:
    begun = time.process_time()
    refuse(client, question("?", *["data:image/png;base64,AAAA"] * 5), 400)
    assert time.process_time() - begun < 5 * slowness()


def test_s08_a_request_has_one_budget_of_pixels(client: httpx.Client) -> None:
    url = data_uri(encode(random_picture(1, 1).resize((1000, 900))))
    refuse(client, question("?", *[url] * 3), 422)


def test_s10_urls_in_text_are_not_looked_at(client: httpx.Client) -> None:
    body = question("![a](http://127.0.0.1:1/a.png) <img src='http://127.0.0.1:1'>")
    reply = client.post(CHAT, json=body)
    assert reply.status_code == 200
    assert reply.json()["usage"]["prompt_tokens_details"]["multimodal_tokens"] == 0


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/a.png", "https://example.com/x.png", "file:///etc/passwd"]
)
def test_s01_s06_urls_of_images_are_off(client: httpx.Client, url: str) -> None:
    error = refuse(client, question("?", url), 403)
    assert error["param"] == "messages[0].content[0].image_url"


@pytest.mark.parametrize(
    "content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"not an image", b"%PDF-1.7", b"\xff\xd8\xff"]
)
def test_s13_undecodable_images_tell_nothing(client: httpx.Client, content: bytes) -> None:
    error = refuse(client, question("?", data_uri(content)), 422)
    assert "PIL" not in error["message"]
    assert "BytesIO" not in error["message"]


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (3, 1), (1, 500), (500, 1), (200, 1)])
def test_s15_odd_shapes_are_answered(client: httpx.Client, size: tuple[int, int]) -> None:
    reply = client.post(CHAT, json=question("?", data_uri(encode(random_picture(*size)))))
    assert reply.status_code == 200


def test_s15_pictures_too_thin(client: httpx.Client) -> None:
    refuse(client, question("?", data_uri(encode(random_picture(65535, 1)))), 422)


def test_s25_the_body_has_a_ceiling(client: httpx.Client) -> None:
    padded = json.dumps(question("Hi")).encode()
    most = 1_000_000
    fits = client.post(CHAT, content=padded.ljust(most), headers=JSON)
    assert fits.status_code == 200
    error = refuse(client, padded.ljust(most + 1), 413)
    assert "1000000" in error["message"]


def test_s25_a_body_without_a_declared_length(client: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 100_000

    try:
        reply = client.post(CHAT, content=chunks(), headers=JSON)
    except httpx.WriteError:
        return
    check_refusal(reply, 413)


def test_s25_a_body_that_lies_about_its_length(live: LiveServer) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += "Content-Length: 99999999999999999999\r\n\r\n"
    port = httpx.URL(live.url).port or 0
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "media_type", ["text/plain", "multipart/form-data; boundary=x", "", "application/msgpack"]
)
def test_bodies_that_are_not_json(client: httpx.Client, media_type: str) -> None:
    reply = client.post(CHAT, content=b"{}", headers={"Content-Type": media_type})
    check_refusal(reply, 415)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"messages": ' + b"[" * 100_000,
        b'{"messages": ' + b'{"a":' * 50_000,
        b'{"max_tokens": ' + b"9" * 10_000 + b"}",
        b'{"messages": [{"role": "user", "content": "\\ud800"}], "\\ud800": 1}',
    ],
)
def test_s14_broken_json(client: httpx.Client, body: bytes) -> None:
    refuse(client, body, 400)


@pytest.mark.parametrize(
    ("field", "status"),
    [("users", 400), ("stop", 400), ("model", 400), ("skip_policy", 400), ("\\ud800", 400)],
)
def test_halves_of_characters(client: httpx.Client, field: str, status: int) -> None:
    body = f'{{"messages": [{{"role": "user", "content": "a"}}], "{field}": "\\ud800"}}'
    refuse(client, body.encode(), status)
    body = '{"messages": [{"role": "user", "content": "\\ud800"}]}'
    assert refuse(client, body.encode(), 400)["param"] == "messages[0]"


def test_s26_special_tokens_in_text(client: httpx.Client, picture_url: str) -> None:
    for urls in ((), (picture_url,)):
        body = question("<image> <image_soft_token> </s> <s>", *urls, logprobs=True)
        reply = client.post(CHAT, json=body)
        assert reply.status_code == 200
        details = reply.json()["usage"]["prompt_tokens_details"]
        assert details["multimodal_tokens"] == 16 * len(urls)


def test_s27_many_placeholders_take_linear_time(client: httpx.Client) -> None:
    begun = time.process_time()
    refuse(client, question("<image>" * 100_000), 400)
    assert time.process_time() - begun < 5 * slowness()


@pytest.mark.parametrize("field", ["chat_template", "chat_template_kwargs"])
def test_s28_a_request_brings_no_template(client: httpx.Client, field: str) -> None:
    error = refuse(client, question("Hi", **{field: "{% for i in range(9**9) %}{% endfor %}"}), 400)
    assert error["param"] == field
    nested = question("Hi", vllm_xargs={"chat_template": "x"})
    assert refuse(client, nested, 400)["param"] == "vllm_xargs"


@pytest.mark.parametrize("n", [17, 10**9, -1, 0])
def test_s33_the_number_of_answers(client: httpx.Client, n: int) -> None:
    assert refuse(client, question("Hi", n=n), 400)["param"] == "n"


def test_s34_messages_and_parts_are_counted(client: httpx.Client) -> None:
    message = {"role": "user", "content": "a"}
    refuse(client, {"messages": [message] * 257}, 400)
    parts = [{"type": "text", "text": "a"}] * 257
    refuse(client, {"messages": [{"role": "user", "content": parts}]}, 400)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
@pytest.mark.parametrize("field", ["temperature", "top_p", "min_p", "presence_penalty"])
def test_s35_numbers_are_finite(client: httpx.Client, field: str, value: str) -> None:
    body = json.dumps(question("Hi"))[:-1] + f', "{field}": {value}}}'
    assert refuse(client, body.encode(), 400)["param"] == field


@pytest.mark.parametrize(
    "bias", [{"999999999": 1.0}, {"-1": 1.0}, {"x": 1.0}, {"5": float("1e308")}]
)
def test_s36_token_ids_of_a_client_reach_nothing(
    client: httpx.Client, bias: dict[str, float]
) -> None:
    assert refuse(client, question("Hi", logit_bias=bias), 400)["param"] == "logit_bias"


@pytest.mark.parametrize("stop", [["a"] * 5, "x" * 257, ["x" * 257], "", [""], [1], {"a": 1}])
def test_s37_stop_strings_are_few_and_short(client: httpx.Client, stop: object) -> None:
    assert refuse(client, question("Hi", stop=stop), 400)["param"].startswith("stop")


def test_s38_log_probabilities_at_their_limit(client: httpx.Client) -> None:
    body = question("Hi", logprobs=True)
    assert client.post(CHAT, json=body | {"top_logprobs": 20}).status_code == 200
    assert refuse(client, body | {"top_logprobs": 21}, 400)["param"] == "top_logprobs"


@pytest.mark.parametrize("content", ["", " ", "\n\t ", [{"type": "text", "text": ""}]])
def test_s39_empty_prompts(client: httpx.Client, content: object, picture_url: str) -> None:
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": 1}
    assert client.post(CHAT, json=body).status_code == 200
    only_image = question("", picture_url)
    only_image["messages"][0]["content"].pop()
    assert client.post(CHAT, json=only_image).status_code == 200
    refuse(client, {"messages": []}, 400)
    refuse(client, {"messages": [{"role": "user", "content": []}]}, 400)


def test_s40_headers_have_a_ceiling(live: LiveServer) -> None:
    with live.client() as client:
        try:
            status = client.get("/version", headers={"X": "a" * 10_000_000}).status_code
        except (httpx.WriteError, httpx.RemoteProtocolError, httpx.ReadError):
            return
        assert status in {400, 431}


def test_s41_errors_are_few_short_and_echo_nothing(client: httpx.Client) -> None:
    secret = "do-not-repeat-this"
    body = question(secret, temperature=secret, top_p=[secret] * 1000)
    body |= {f"field{index}": secret for index in range(2000)}
    error = refuse(client, body, 400)
    assert secret not in error["message"]
    assert error["message"].count(";") <= 10
    assert "more" in error["message"]
    refuse(client, {"x" * 500_000: 1, "messages": []}, 400)


@pytest.mark.parametrize("item", [None, 1, "x", [], {}, {"x" * 100: 1}])
@pytest.mark.parametrize("place", ["messages", "content", "stop", "stop_token_ids", "rules"])
def test_s41_a_list_of_wrong_items_is_told_in_a_few_words(
    client: httpx.Client, place: str, item: object
) -> None:
    items = [item if item != "x" or place != "stop" else 1] * 5000
    body = question("Hi")
    if place == "content":
        body["messages"] = [{"role": "user", "content": items}]
    else:
        body |= {"skip_policy": {"rules": items}} if place == "rules" else {place: items}
    error = refuse(client, body, 400)
    assert len(error["message"]) < 1000
    assert error["message"].count(";") <= 10


@pytest.mark.parametrize(
    "given",
    ["a b", "a" * 129, "", "<script>", "a\u00e9", "../../etc/passwd", "chatcmpl-1,2"],
)
def test_s45_request_ids_of_clients_are_echoed_only_when_harmless(
    client: httpx.Client, given: str
) -> None:
    headers = [(b"X-Request-Id", given.encode())]
    shown = client.get("/version", headers=headers).headers["X-Request-Id"]
    assert re.fullmatch(r"req-[0-9a-f]{32}", shown)


def test_s45_a_request_id_names_nothing_inside(client: httpx.Client) -> None:
    ids = set()
    for _ in range(2):
        reply = client.post(CHAT, json=question("Hi"), headers={"X-Request-Id": "mine"})
        assert reply.headers["X-Request-Id"] == "mine"
        ids.add(reply.json()["id"])
    assert len(ids) == 2


@pytest.mark.parametrize("field", ["mm_hashes", "uuid", "cache_key", "prompt_token_ids", "user_id"])
def test_s46_s48_no_key_of_a_cache_comes_from_a_client(client: httpx.Client, field: str) -> None:
    assert refuse(client, question("Hi", **{field: "a"}), 400)["param"] == field


def test_s44_labels_do_not_grow(client: httpx.Client) -> None:
    def series() -> int:
        return len(client.get("/metrics").text.splitlines())

    def wander(index: int) -> None:
        client.request(f"M{index}", "/v1/models")
        client.get(f"/path{index}")
        client.post(CHAT, json=question("Hi", model=f"m{index}"))
        client.post(CHAT, json=question("Hi", skip_policy=f"p{index}"))
        client.get("/version", headers={"X-Skip-Policy": f"h{index}"})

    wander(0)
    before = series()
    for index in range(1, 20):
        wander(index)
    assert series() == before


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO"])
def test_wrong_methods(client: httpx.Client, method: str) -> None:
    reply = client.request(method, CHAT)
    check_refusal(reply, 405)
    assert reply.headers["Allow"] == "POST"


@pytest.mark.parametrize(
    "path",
    [
        *("/health", "/ready", "/version", "/metrics", "/openapi.json"),
        *("/v1/models", "/v1/skip_policies"),
    ],
)
def test_head_works_where_get_does(client: httpx.Client, path: str) -> None:
    reply = client.head(path)
    assert (reply.status_code, reply.content) == (200, b"")
    assert int(reply.headers["Content-Length"]) > 0
    allowed = "GET, HEAD, POST" if path == "/v1/skip_policies" else "GET, HEAD"
    assert client.patch(path).headers["Allow"] == allowed


@pytest.mark.parametrize("path", ["/v1", "/v1/chat", "/v1/models/", "//v1/models", "/%00"])
def test_unknown_routes(client: httpx.Client, path: str) -> None:
    check_refusal(client.get(path), 404)
