"""Images by URL in each form, with a whole server and a host of pictures."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from live_server import LiveServer
from pictures import data_uri, encode, question, random_picture

from skipserve.settings import Settings

PICTURE = encode(random_picture(40, 30))


HAS_LEFT = threading.Event()


class Pictures(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/never":
            # Nothing more comes until the other end closes.
            self.connection.recv(1)
            HAS_LEFT.set()
            return
        body = {"/a.png": PICTURE, "/page": b"<html>"}.get(self.path)
        self.send_response(404 if body is None else 200)
        # What a host says of the type counts for nothing.
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Pictures) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def fetching(settings: Settings, host: str) -> Iterator[httpx.Client]:
    """A client of a server that fetches images from the host."""
    open_settings = settings.model_copy(update={"media_hosts": (host,)})
    with LiveServer(open_settings) as server, server.client() as client:
        yield client


def asked(form: str, url: str) -> dict[str, Any]:
    """Return a question in one of the forms."""
    if form == "/v1/chat/completions":
        return question("Which?", url, max_tokens=4, temperature=0)
    if form == "/v1/responses":
        parts: list[dict[str, Any]] = [
            {"type": "input_image", "image_url": url, "detail": "auto"},
            {"type": "input_text", "text": "Which?"},
        ]
        said = [{"role": "user", "content": parts}]
        return {"input": said, "max_output_tokens": 4, "temperature": 0}
    source = {"type": "url", "url": url}
    parts = [{"type": "image", "source": source}, {"type": "text", "text": "Which?"}]
    said = [{"role": "user", "content": parts}]
    return {"messages": said, "max_tokens": 4, "temperature": 0}


def answered(form: str, reply: dict[str, Any]) -> Any:
    """Return what a reply says."""
    if form == "/v1/chat/completions":
        return reply["choices"][0]["message"]["content"]
    if form == "/v1/responses":
        return reply["output"][0]["content"]
    return reply["content"]


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ("/v1/chat/completions", "messages[0].content[0].image_url"),
        ("/v1/responses", "input[0].content[0].image_url"),
        ("/v1/messages", "messages[0].content[0].source"),
    ],
)
def test_an_image_by_url_is_that_of_its_data(
    fetching: httpx.Client, host: str, form: str, param: str
) -> None:
    replies = [
        fetching.post(form, json=asked(form, url))
        for url in (f"http://{host}/a.png", data_uri(PICTURE))
    ]
    assert [reply.status_code for reply in replies] == [200, 200], replies[0].text
    first, second = (answered(form, reply.json()) for reply in replies)
    assert first == second
    for url, status in (
        (f"http://{host}/page", 422),
        (f"http://{host}/none", 422),
        ("http://127.0.0.2/a.png", 403),
        ("ftp://a.example/a.png", 400),
    ):
        reply = fetching.post(form, json=asked(form, url))
        assert reply.status_code == status, reply.text
        assert param in reply.text


def test_a_request_s_time_ends_its_fetch(fetching: httpx.Client, host: str) -> None:
    HAS_LEFT.clear()
    body = question("?", f"http://{host}/never", timeout_seconds=0.3)
    reply = fetching.post("/v1/chat/completions", json=body)
    assert reply.status_code == 408, reply.text
    assert "fetched" in reply.json()["error"]["message"]
    HAS_LEFT.wait()


def test_a_client_that_leaves_ends_its_fetch(fetching: httpx.Client, host: str) -> None:
    HAS_LEFT.clear()
    with pytest.raises(httpx.ReadTimeout):
        fetching.post(
            "/v1/chat/completions", json=question("?", f"http://{host}/never"), timeout=0.3
        )
    HAS_LEFT.wait()


def test_fetches_are_measured(fetching: httpx.Client, host: str) -> None:
    assert fetching.post("/v1/chat/completions", json=question("?", f"http://{host}/a.png"))
    fetching.post("/v1/chat/completions", json=question("?", f"http://{host}/none"))
    told = fetching.get("/metrics").text
    assert "skipserve_stage_duration_seconds_count{" in told
    assert 'stage="fetch_image"' in told
    assert "skipserve_image_fetch_failures_total{" in told
    assert 'reason="status"' in told
