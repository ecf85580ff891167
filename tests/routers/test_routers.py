"""What of a request, and of its reply, survives the way through a router; docs/routers.md says it.

The routers are large programs of others: `make test-routers` installs them and runs this.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from pictures import data_uri, encode, question, random_picture
from router_process import RouterProcess, find_router
from server_process import ServerProcess

POLICY = "exit-after-24"
INLINE = {"rules": [{"action": "skip_ffn", "layers": [3]}]}
PAGE = Path(__file__).parents[2] / "docs/routers.md"
KEY = "key-of-a-client"
CHAT = "/v1/chat/completions"


class Way(NamedTuple):
    """A way to name a policy, and the policy that then runs.

    Attributes:
        fields: of the body.
        headers: of the request.
        policy: what runs where the way is open.
    """

    fields: dict[str, Any]
    headers: dict[str, str]
    policy: str = POLICY


# By the words of the page.
WAYS = {
    "`NAME@POLICY` as `model`": Way({"model": f"demo@{POLICY}"}, {}),
    "`skip_policy` in the body": Way({"skip_policy": POLICY}, {}),
    "a policy spelt out in the body": Way({"skip_policy": INLINE}, {}, "inline"),
    "`vllm_xargs` in the body": Way({"vllm_xargs": {"skip_policy": POLICY}}, {}),
    "the header `X-Skip-Policy`": Way({}, {"X-Skip-Policy": POLICY}),
}
OPEN = {"vllm-router": frozenset(WAYS), "sglang-router": frozenset({"`NAME@POLICY` as `model`"})}
# By their paths, with the policy in the body: whether it runs there. None where there is no route.
FORMS: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "Hi", "max_tokens": 3},
    "/v1/responses": {"input": "Hi", "max_output_tokens": 3},
    "/v1/messages": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3},
}
RUNS_IN_FORM: dict[str, dict[str, bool | None]] = {
    "vllm-router": {"/v1/completions": True, "/v1/responses": True, "/v1/messages": True},
    "sglang-router": {"/v1/completions": True, "/v1/responses": False, "/v1/messages": None},
}
KEY_ARRIVES = {
    "vllm-router": {CHAT, "/v1/completions"},
    "sglang-router": {CHAT, "/v1/completions", "/v1/responses"},
}


@pytest.fixture(scope="module")
def installed() -> None:
    """Do without these tests before a server is started for them."""
    for name in OPEN:
        find_router(name)


@pytest.fixture(scope="module")
def server(installed: None) -> Iterator[ServerProcess]:
    with ServerProcess("demo") as server:
        yield server


@pytest.fixture(scope="module")
def locked(installed: None) -> Iterator[ServerProcess]:
    """A server that wants a key."""
    with ServerProcess("demo", SKIPSERVE_API_KEY=KEY) as server:
        yield server


@pytest.fixture(scope="module", params=OPEN)
def router(request: pytest.FixtureRequest, server: ServerProcess) -> Iterator[RouterProcess]:
    with RouterProcess(request.param, server.url) as router:
        yield router


@pytest.fixture
def client(router: RouterProcess) -> Iterator[httpx.Client]:
    with router.client() as client:
        yield client


def body_of(way: Way, *urls: str, **fields: object) -> dict[str, Any]:
    body = question("How many red squares are there?", *urls, max_tokens=4, temperature=0)
    return {**body, "model": "demo", **way.fields, **fields}


def ran(router: RouterProcess, way: str) -> str:
    """Return the policy that runs where a way is taken through a router."""
    return WAYS[way].policy if way in OPEN[router.name] else "full"


@pytest.mark.parametrize("way", WAYS)
def test_the_reply_says_what_ran(router: RouterProcess, client: httpx.Client, way: str) -> None:
    picture = data_uri(encode(random_picture(40, 30)))
    for urls in ((), (picture,)):
        reply = client.post(CHAT, json=body_of(WAYS[way], *urls), headers=WAYS[way].headers)
        assert reply.status_code == 200
        assert reply.headers["X-Skip-Policy"] == ran(router, way)
        told = reply.json()
        assert told["metrics"]["skip"]["policy"] == ran(router, way)
        assert told["usage"]["prompt_tokens_details"]["multimodal_tokens"] == 36 * len(urls)
        assert told["choices"][0]["message"]["content"]


@pytest.mark.parametrize("way", WAYS)
def test_a_stream_says_what_runs(router: RouterProcess, client: httpx.Client, way: str) -> None:
    body = body_of(WAYS[way], stream=True, stream_options={"include_usage": True})
    with client.stream("POST", CHAT, json=body, headers=WAYS[way].headers) as reply:
        lines = [line.removeprefix("data: ") for line in reply.iter_lines() if line]
    assert reply.headers["Content-Type"].startswith("text/event-stream")
    assert reply.headers["X-Skip-Policy"] == ran(router, way)
    *chunks, done = lines
    assert done == "[DONE]"
    last = json.loads(chunks[-1])
    assert last["metrics"]["skip"]["policy"] == ran(router, way)
    assert last["usage"]["completion_tokens"] >= 1


def test_the_server_s_errors_arrive(client: httpx.Client) -> None:
    body = body_of(WAYS["`NAME@POLICY` as `model`"], model="demo@exit-after-25")
    error = client.post(CHAT, json=body).json()["error"]
    assert (error["code"], error["param"]) == (404, "skip_policy")
    assert "exit-after-24" in error["message"]


def test_a_misspelt_field_is_an_error_only_where_it_arrives(
    router: RouterProcess, client: httpx.Client
) -> None:
    reply = client.post(CHAT, json=body_of(Way({"skip_polcy": POLICY}, {})))
    if router.name == "sglang-router":
        assert (reply.status_code, reply.headers["X-Skip-Policy"]) == (200, "full")
    else:
        assert reply.status_code == 400
        assert "is it skip_policy?" in reply.json()["error"]["message"]


def test_the_request_s_id_arrives(client: httpx.Client) -> None:
    reply = client.post(CHAT, json=body_of(Way({}, {})), headers={"X-Request-Id": "mine-1"})
    assert (reply.status_code, reply.headers["X-Request-Id"]) == (200, "mine-1")


@pytest.mark.parametrize("name", OPEN)
def test_where_the_key_arrives(name: str, locked: ServerProcess) -> None:
    arrives = set()
    with (
        RouterProcess(name, locked.url) as router,
        router.client(Authorization=f"Bearer {KEY}") as client,
        router.client(Authorization="Bearer other") as stranger,
    ):
        for path, body in {CHAT: body_of(Way({}, {})), **FORMS}.items():
            named = body | {"model": "demo"}
            assert stranger.post(path, json=named).status_code in {401, 404}
            if client.post(path, json=named).status_code == 200:
                arrives.add(path)
    assert arrives == KEY_ARRIVES[name]


@pytest.mark.parametrize("path", FORMS)
def test_other_forms(router: RouterProcess, client: httpx.Client, path: str) -> None:
    runs_in_body = RUNS_IN_FORM[router.name][path]
    named = client.post(path, json=FORMS[path] | {"model": f"demo@{POLICY}"})
    if runs_in_body is None:
        assert named.status_code == 404
        return
    assert (named.status_code, named.headers["X-Skip-Policy"]) == (200, POLICY), named.text
    given = client.post(path, json=FORMS[path] | {"model": "demo", "skip_policy": POLICY})
    expected = POLICY if runs_in_body else "full"
    assert (given.status_code, given.headers["X-Skip-Policy"]) == (200, expected)


@pytest.mark.fast
def test_the_page_says_what_was_found() -> None:
    rows = [line.strip("|").split("|") for line in PAGE.read_text().splitlines() if "|" in line]
    said = {cells[0].strip(): [cell.strip() for cell in cells[1:3]] for cells in rows}
    names = ("sglang-router", "vllm-router")
    for way in WAYS:
        expected = ["runs" if way in OPEN[name] else "**lost**" for name in names]
        assert said[way] == expected, way
    words = {True: "runs", False: "**lost**", None: "no route"}
    for path in FORMS:
        expected = [words[RUNS_IN_FORM[name][path]] for name in names]
        assert said[f"the same on `{path}`"] == expected, path
