"""What web pages of elsewhere can have a browser send, against a server as it ships."""

from typing import Any

import httpx
import pytest
from pictures import question

CHAT = "/v1/chat/completions"


def error_of(reply: httpx.Response) -> dict[str, Any]:
    assert reply.headers["X-Request-Id"]
    error: dict[str, Any] = reply.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == reply.status_code
    return error


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:80", "192.0.2.7:8000"])
def test_a_page_that_has_rebound_its_name_gets_nothing(client: httpx.Client, host: str) -> None:
    headers = {"Host": host, "Origin": f"http://{host}"}
    for reply in (
        client.post(CHAT, json=question("Hi", max_tokens=1), headers=headers),
        client.get("/v1/models", headers=headers),
        client.get("/metrics", headers=headers),
        client.get("/openapi.json", headers=headers),
        client.get("/version", headers=headers),
    ):
        error = error_of(reply)
        assert (error["code"], error["type"]) == (421, "invalid_request_error")
        assert host not in error["message"]


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost"])
def test_a_page_of_elsewhere_gets_nothing(client: httpx.Client, origin: str) -> None:
    headers = {"Origin": origin}
    for reply in (
        client.post(CHAT, json=question("Hi", max_tokens=1), headers=headers),
        client.post(CHAT, content=b"{}", headers=headers | {"Content-Type": "text/plain"}),
        client.options(CHAT, headers=headers | {"Access-Control-Request-Method": "POST"}),
        client.get("/v1/models", headers=headers),
    ):
        error = error_of(reply)
        assert (error["code"], error["type"]) == (403, "permission_error")


def test_a_page_of_its_own_and_programs_are_answered(client: httpx.Client) -> None:
    for headers in ({}, {"Origin": str(client.base_url).rstrip("/")}):
        reply = client.post(CHAT, json=question("Hi", max_tokens=1), headers=headers)
        assert reply.status_code == 200


def test_probes_are_answered_whatever_host_they_name(client: httpx.Client) -> None:
    for path in ("/health", "/ready"):
        assert client.get(path, headers={"Host": "10.0.0.7:8000"}).status_code == 200
