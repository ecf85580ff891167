"""Who gets in: the rows of the security table on keys and paths."""

import asyncio
import contextlib
import secrets
from collections.abc import Iterator

import httpx
import pytest
from app_client import send
from fastapi import FastAPI
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from skipserve.api.asking_routes import router as asking_router
from skipserve.api.auth import CLIENT, PUBLIC_PATHS, RequireKey
from skipserve.api.policy_routes import router as policy_router
from skipserve.api.routes import router
from skipserve.app import Built, build
from skipserve.budgets.client import Client
from skipserve.budgets.clients import Clients
from skipserve.errors import AuthenticationError
from skipserve.playground.files import read_files
from skipserve.settings import Settings

pytestmark = pytest.mark.fast

KEYS = "first-key,second-key"
# What needs no key: the page for browsers and its files too, which tell nothing of the server.
OPEN_PATHS = PUBLIC_PATHS | {file.path for file in read_files()}
METRICS_KEYS = "scraper-key,second-key"


@pytest.fixture(scope="session")
def locked(settings: Settings) -> FastAPI:
    keys = {"api_key": KEYS, "metrics_api_key": METRICS_KEYS}
    return build(Settings(**settings.model_dump() | keys)).app


def send_with(app: FastAPI, key: str, method: str, path: str) -> httpx.Response:
    return send(app, method, path, headers={"Authorization": f"Bearer {key}"})


def paths_of(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Yield method and path of every route."""
    for route in (*app.routes, *asking_router.routes, *router.routes, *policy_router.routes):
        if isinstance(route, Route):
            yield from ((method, route.path) for method in sorted(route.methods or {"GET"}))


def test_no_route_of_the_schema_is_missed(locked: FastAPI) -> None:
    told = {
        (method.upper(), path)
        for path, operations in locked.openapi()["paths"].items()
        for method in operations
    }
    found = {(method, path.replace(":path}", "}")) for method, path in paths_of(locked)}
    assert told <= found
    assert ("POST", "/v1/chat/completions") in told


def test_s32_every_route_is_public_or_locked(locked: FastAPI) -> None:
    found = list(paths_of(locked))
    assert len(found) >= 8
    assert {path for _, path in found} > OPEN_PATHS
    for method, path in found:
        status = send(locked, method, path).status_code
        assert (status != 401) == (path in OPEN_PATHS), (method, path, status)


def test_the_schema_says_where_a_key_is_wanted(locked: FastAPI, idle: Built) -> None:
    schema = locked.openapi()
    (scheme,) = schema["components"]["securitySchemes"]
    for path, operations in schema["paths"].items():
        wanted: list[object] = [] if path in PUBLIC_PATHS else [{scheme: []}]
        assert all(operation["security"] == wanted for operation in operations.values()), path
    assert "securitySchemes" not in idle.app.openapi()["components"]


@pytest.mark.parametrize(
    "path", ["/invocations", "/v1", "/docs", "/openapi.json", "//v1", "/pause"]
)
def test_s32_what_is_no_route_is_locked_too(locked: FastAPI, path: str) -> None:
    reply = send(locked, "GET", path)
    assert reply.status_code == 401
    assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert reply.json()["error"]["type"] == "authentication_error"


def test_a_metrics_key_opens_the_metrics_alone(locked: FastAPI) -> None:
    opened = set()
    for method, path in {*paths_of(locked), ("POST", "/metrics"), ("GET", "/no-route")}:
        reply = send_with(locked, "scraper-key", method, path)
        if reply.status_code != 403:
            opened.add((method, path))
        elif method != "HEAD":
            assert reply.json()["error"]["type"] == "permission_error"
    is_open = {(method, path) for method, path in paths_of(locked) if path in OPEN_PATHS}
    assert opened == is_open | {("GET", "/metrics")}
    assert send_with(locked, "scraper-key", "GET", "/metrics").text.startswith("# HELP")


@pytest.mark.parametrize(
    "path", ["//metrics", "/metrics/", "/METRICS", "/metrics/../v1/models", "/v1/models?/metrics"]
)
def test_no_spelling_of_a_path_opens_more_to_a_metrics_key(locked: FastAPI, path: str) -> None:
    assert send_with(locked, "scraper-key", "GET", path).status_code == 403


def test_clients_keys_open_the_metrics_too(locked: FastAPI) -> None:
    for key in KEYS.split(","):
        assert send_with(locked, key, "GET", "/metrics").status_code == 200
    for key in ("scraper", "scraper-key,second-key"):
        assert send_with(locked, key, "GET", "/metrics").status_code == 401


# The second is a metrics key too.
@pytest.mark.parametrize("key", ["first-key", "second-key"])
def test_every_key_opens(locked: FastAPI, key: str) -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        reply = send(locked, "GET", "/v1/models", headers={"Authorization": f"{scheme} {key}"})
        assert reply.status_code == 200


@pytest.mark.parametrize(
    "value",
    [
        *("", "Bearer", "Bearer ", "Bearer nope", "first-key", "Basic first-key"),
        *(
            "Bearer first-ke",
            "Bearer first-keyy",
            "Bearer FIRST-KEY",
            "Bearer first-key,second-key",
        ),
        "Bearer \u00e9",
    ],
)
def test_nothing_else_opens(locked: FastAPI, value: str) -> None:
    headers = [(b"Authorization", value.encode("latin-1"))]
    assert send(locked, "GET", "/v1/models", headers=headers).status_code == 401


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "this server wants an API key: send"),
        ("", "this server wants an API key: send"),
        ("Bearer", "holds no API key behind Bearer"),
        ("Bearer  ", "holds no API key behind Bearer"),
        ("Basic dXNlcjpwYXNz", "has no Bearer"),
        ("first-key", "has no Bearer"),
        ("Bearer:first-key", "has no Bearer"),
        ("Bearer nope", "the API key is wrong"),
        ("bearer first-ke", "the API key is wrong"),
    ],
)
def test_a_refusal_says_what_is_wrong_and_never_what_was_sent(
    locked: FastAPI, value: str | None, told: str
) -> None:
    headers = {} if value is None else {"Authorization": value}
    reply = send(locked, "GET", "/v1/models", headers=headers)
    message = reply.json()["error"]["message"]
    assert reply.status_code == 401
    assert told in message
    assert ("send it in the header Authorization: Bearer KEY" in message) != ("wrong" in message)
    for part in (value or "").split()[1:] or ["first-key"]:
        assert part not in message


def test_keys_that_are_wrong_in_many_ways_get_one_text(locked: FastAPI) -> None:
    wrong = ["x", "first-ke", "first-key2", "FIRST-KEY", "scraper", "first-key,second-key"]
    replies = {send_with(locked, key, "GET", "/v1/models").text for key in wrong}
    assert len(replies) == 1


@pytest.mark.parametrize("host", ["x/health?", "x/health#", "a@b", "/health", "x?/ready", ""])
def test_s30_the_host_header_opens_nothing(locked: FastAPI, host: str) -> None:
    reply = send(locked, "GET", "/v1/models", headers={"Host": host})
    assert reply.status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        *("//health", "/health/", "/health/../v1/models", "/v1%2fmodels", "/V1/models", "/HEALTH"),
        *("/health%00", "/health;/v1/models", "/ready%2f..%2fv1%2fmodels", "/./v1/models"),
    ],
)
def test_s30_no_spelling_of_a_path_opens(locked: FastAPI, path: str) -> None:
    assert send(locked, "GET", path).status_code in {401, 404}
    if send(locked, "GET", path).status_code == 404:
        assert "%" in path


def test_s30_a_root_path_opens_nothing(locked: FastAPI) -> None:
    async def exchange() -> int:
        transport = httpx.ASGITransport(locked, root_path="/health")
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return (await client.get("/v1/models")).status_code

    assert asyncio.run(exchange()) == 401


def test_s30_the_scope_s_path_decides() -> None:
    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        raise NotImplementedError

    async def receive() -> Message:
        raise NotImplementedError

    async def send(message: Message) -> None:
        raise NotImplementedError

    app = RequireKey(inner, Clients(["k"]))
    for scope in (
        {"type": "http", "path": "/v1/models", "raw_path": b"/health", "headers": []},
        {"type": "websocket", "path": "/v1/models", "headers": []},
    ):
        with pytest.raises(AuthenticationError):
            asyncio.run(app(scope, receive, send))


def test_s31_keys_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    original = secrets.compare_digest

    def watch(first: bytes, second: bytes) -> bool:
        compared.append((first, second))
        return original(first, second)

    monkeypatch.setattr(secrets, "compare_digest", watch)
    checker = RequireKey(None, Clients(["a", "b", "c"]), ["d", "e"])  # type: ignore[arg-type]
    for number, key in enumerate(["a", "c", "d", "x", ""], start=1):
        headers = [(b"authorization", f"Bearer {key}".encode())]
        with contextlib.suppress(AuthenticationError):
            checker._check(
                {"type": "http", "method": "GET", "path": "/metrics", "headers": headers}
            )
        assert len(compared) == 5 * number
    assert {len(digest) for pair in compared for digest in pair} == {32}


def test_without_keys_all_is_open(idle: Built) -> None:
    assert send(idle.app, "GET", "/v1/models").status_code == 200


def test_the_app_hears_whose_request_it_is_but_not_the_key() -> None:
    states: list[dict[str, object]] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        states.append(dict(scope.get("state", {})))

    async def receive() -> Message:
        raise NotImplementedError

    async def send(message: Message) -> None:
        raise NotImplementedError

    app = RequireKey(inner, Clients(KEYS.split(",")), METRICS_KEYS.split(","))
    for key, path in (
        ("first-key", "/v1/models"),
        ("second-key", "/v1/models"),
        ("first-key", "/metrics"),
        ("first-key", "/health"),
        ("scraper-key", "/metrics"),
    ):
        headers = [(b"authorization", f"Bearer {key}".encode())]
        scope = {"type": "http", "method": "GET", "path": path, "headers": headers}
        asyncio.run(app(scope, receive, send))
    first, second, again, public, scraper = (state.get(CLIENT) for state in states)
    assert isinstance(first, Client)
    assert first is again is not second
    assert public is scraper is None
    assert not any("first-key" in repr(value) for value in vars(first).values())


@pytest.mark.parametrize("path", ["/v1/models", "/v1/messages/nothing"])
def test_a_key_may_stand_in_anthropics_header(locked: FastAPI, path: str) -> None:
    opened = send(locked, "GET", path, headers={"x-api-key": "first-key"})
    assert opened.status_code in {200, 404}
    for wrong in ("wrong", "", " ", "first-key" + "x"):
        refused = send(locked, "GET", path, headers={"x-api-key": wrong})
        assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
    both = {"x-api-key": "first-key", "Authorization": "Bearer wrong"}
    assert send(locked, "GET", path, headers=both).status_code == 401


def test_anthropics_clients_read_that_a_key_is_missing(locked: FastAPI) -> None:
    error = send(locked, "POST", "/v1/messages", json={}).json()
    assert (error["type"], error["error"]["type"]) == ("error", "authentication_error")
