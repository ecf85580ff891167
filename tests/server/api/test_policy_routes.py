"""Tests of skip policies that admin keys add and remove over HTTP."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from app_client import send
from fastapi import FastAPI
from pictures import question
from played_app import CHAT, PlayedService, app_with

from skipserve.api.paths import POLICIES
from skipserve.app import build
from skipserve.budgets.keys import digest_of_key
from skipserve.settings import Settings

pytestmark = pytest.mark.fast

ADMIN = {"Authorization": "Bearer key-of-ops"}
CLIENT = {"Authorization": "Bearer key-of-alice"}
MINE = {"rules": [{"action": "skip_ffn", "layers": [5], "scope": "all"}]}
OTHER = {"rules": [{"action": "skip_ffn", "layers": [6]}]}
Making = Callable[..., FastAPI]


def write_keys(path: Path, **fields: dict[str, Any]) -> Path:
    entries = [
        {"name": name, "sha256": digest_of_key(f"key-of-{name}").hex()} | fields.get(name, {})
        for name in ("alice", "ops")
    ]
    path.write_text(yaml.safe_dump({"keys": entries}))
    return path


@pytest.fixture
def make(settings: Settings, tmp_path: Path) -> Making:
    """Make an application whose policies can be changed; made again, it has started again."""

    def make(service: PlayedService | None = None, **changes: object) -> FastAPI:
        files = {
            "api_keys_file": write_keys(tmp_path / "keys.yaml", ops={"admin": True}),
            "added_policies": tmp_path / "added.yaml",
        }
        if service is None:
            service = PlayedService()
            service.let_run()
        return app_with(service, settings.model_copy(update=files | changes))

    return make


def add(
    app: FastAPI, name: str, policy: object = MINE, headers: dict[str, str] = ADMIN
) -> httpx.Response:
    body = {"name": name, "policy": policy}
    return send(app, "POST", POLICIES, headers=headers, json=body)


def remove(app: FastAPI, name: str, headers: dict[str, str] = ADMIN) -> httpx.Response:
    return send(app, "DELETE", f"{POLICIES}/{name}", headers=headers)


def get(app: FastAPI, path: str) -> Any:
    return send(app, "GET", path, headers=CLIENT).json()


def ask(app: FastAPI, headers: dict[str, str] | None = None, **fields: object) -> httpx.Response:
    body = question("Hi", **fields)
    return send(app, "POST", CHAT, headers=CLIENT | (headers or {}), json=body)


def error_of(reply: httpx.Response, status: int) -> dict[str, Any]:
    error: dict[str, Any] = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (status, status)
    return error


def test_an_added_policy_is_asked_for_as_all_are(make: Making) -> None:
    app = make()
    added = add(app, "mine")
    assert added.status_code == 201
    entry = added.json()
    assert (entry["name"], entry["layers"], entry["added"]) == ("mine", {"skip_ffn": [5]}, True)
    assert entry == get(app, f"{POLICIES}/mine")
    assert entry in get(app, POLICIES)["data"]
    assert "tiny@mine" in [it["id"] for it in get(app, "/v1/models")["data"]]
    assert get(app, "/v1/models/tiny@mine")["skip_policy"] == "mine"
    for reply in (
        ask(app, skip_policy="mine"),
        ask(app, model="tiny@mine"),
        ask(app, headers={"X-Skip-Policy": "mine"}),
    ):
        assert reply.headers["X-Skip-Policy"] == "mine"
        skip = reply.json()["metrics"]["skip"]
        assert (skip["policy"], skip["digest"]) == ("mine", entry["digest"])


def test_a_removed_policy_is_gone(make: Making) -> None:
    app = make()
    add(app, "mine")
    assert remove(app, "mine").json() == {
        "name": "mine",
        "object": "skip_policy.deleted",
        "deleted": True,
    }
    assert error_of(ask(app, skip_policy="mine"), 404)["param"] == "skip_policy"
    assert error_of(remove(app, "mine"), 404)
    assert not [it for it in get(app, POLICIES)["data"] if it["added"]]
    assert add(app, "mine", OTHER).status_code == 201
    assert ask(app, model="tiny@mine").json()["metrics"]["skip"]["layers"] == {"skip_ffn": [6]}


def test_added_policies_outlast_the_server(make: Making) -> None:
    first = make()
    add(first, "mine")
    add(first, "other", OTHER)
    remove(first, "other")
    again = make(default_skip_policy="mine")
    assert ask(again).headers["X-Skip-Policy"] == "mine"
    assert ask(again, skip_policy="other").status_code == 404
    assert "default_skip_policy" in error_of(remove(again, "mine"), 409)["message"]
    assert (
        "auto_policies" in error_of(remove(make(auto_policies=("mine",)), "mine"), 409)["message"]
    )


def test_a_models_own_default_runs_and_stays(make: Making, half_checkpoint: Path) -> None:
    app = make(model=str(half_checkpoint))
    assert ask(app).headers["X-Skip-Policy"] == "half"
    report = ask(app).json()["metrics"]["skip"]
    assert report["layers"] == {"skip_block": list(range(2, 31, 2))}
    assert 0 < report["planned_flops"] < report["full_flops"]
    assert ask(app, skip_policy="full").headers["X-Skip-Policy"] == "full"
    entries = {entry["name"]: entry for entry in get(app, POLICIES)["data"]}
    assert [name for name, entry in entries.items() if entry["default"]] == ["half"]
    assert not entries["half"]["added"]
    first, *_ = get(app, "/v1/models")["data"]
    assert (first["id"], first["skip_policy"]) == ("halved", "half")
    assert "of the model's" in error_of(remove(app, "half"), 409)["message"]
    assert "of the model's" in error_of(add(app, "half"), 409)["message"]


def test_conflicts(make: Making) -> None:
    app = make(max_added_policies=1)
    assert [add(app, "mine").status_code, add(app, "mine").status_code] == [201, 200]
    for reply, words in (
        (add(app, "mine", OTHER), "says something else"),
        (add(app, "exit-after-24"), "ships"),
        (add(app, "other", OTHER), "as many as may be"),
        (remove(app, "exit-after-24"), "only those that were added"),
    ):
        error = error_of(reply, 409)
        assert words in error["message"]
        assert (error["type"], error["param"]) == ("conflict_error", "name")


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"name": "mine"}, "policy", "missing"),
        ({"name": "Mine!", "policy": MINE}, "name", "lower-case letters"),
        ({"name": "inline", "policy": MINE}, "name", "reserved"),
        ({"name": "added", "policy": MINE}, "name", "reserved"),
        ({"name": "mine", "policy": {"rulez": []}}, "policy", "policy.rulez"),
        ({"name": "mine", "policy": MINE, "nam": 1}, "nam", "is it name?"),
        ({"name": "mine", "policy": "full"}, "policy", "policy"),
        (
            {"name": "mine", "policy": {"rules": [{"action": "skip_ffn", "layers": [99]}]}},
            "policy",
            "layer 99 does not exist",
        ),
    ],
)
def test_what_is_no_policy_is_refused(make: Making, body: Any, param: str, words: str) -> None:
    app = make()
    error = error_of(send(app, "POST", POLICIES, headers=ADMIN, json=body), 400)
    assert error["param"] == param
    assert words in error["message"]
    assert not [it for it in get(app, POLICIES)["data"] if it["added"]]


def test_only_admin_keys_may(make: Making) -> None:
    app = make()
    add(app, "mine")
    for reply in (
        add(app, "other", OTHER, CLIENT),
        # Whoever may not is told nothing else.
        add(app, "Other!", {"rulez": []}, CLIENT),
        remove(app, "mine", CLIENT),
        remove(app, "nothing", CLIENT),
    ):
        error = error_of(reply, 403)
        assert (error["type"], "admin" in error["message"]) == ("permission_error", True)
    assert add(app, "other", OTHER, {}).status_code == 401
    assert remove(app, "mine", {}).status_code == 401
    assert ask(app, skip_policy="mine").status_code == 200


@pytest.mark.parametrize(
    ("changes", "flag"),
    [({"added_policies": None}, "--added-policies"), ({"api_keys_file": None}, "--api-keys-file")],
)
def test_what_is_off_says_what_switches_it_on(
    make: Making, changes: dict[str, None], flag: str
) -> None:
    app = make(**changes)
    for reply in (add(app, "mine"), remove(app, "mine")):
        assert flag in error_of(reply, 403)["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_policy_in_use_stays(make: Making, stream: bool) -> None:
    service = PlayedService()
    app = make(service)
    assert add(app, "mine").status_code == 201

    async def scenario() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            path, body = f"{POLICIES}/mine", question("Hi", model="tiny@mine", stream=stream)
            asking = asyncio.create_task(client.post(CHAT, json=body, headers=CLIENT))
            while not service.requests:
                await asyncio.sleep(0)
            waits = await client.delete(path, headers=ADMIN)
            service.may_begin.set()
            runs = await client.delete(path, headers=ADMIN)
            service.may_end.set()
            answered = await asking
            ended = await client.delete(path, headers=ADMIN)
            assert [it.status_code for it in (waits, runs, answered, ended)] == [409, 409, 200, 200]
            assert "wait or run: 1" in waits.json()["error"]["message"]

    asyncio.run(scenario())


def test_a_policy_that_a_key_is_kept_to_stays(make: Making, tmp_path: Path) -> None:
    app = make()
    add(app, "mine")
    write_keys(tmp_path / "keys.yaml", ops={"admin": True}, alice={"policies": ["mine"]})
    asyncio.run(app.state.serving.reload())
    assert [ask(app, skip_policy=it).status_code for it in ("mine", "full")] == [200, 403]
    assert "for alice" in error_of(remove(app, "mine"), 409)["message"]


def test_additions_count_as_requests_of_the_key(make: Making, tmp_path: Path) -> None:
    limited = {"admin": True, "limits": {"requests_per_minute": 1}}
    app = make()
    write_keys(tmp_path / "keys.yaml", ops=limited)
    asyncio.run(app.state.serving.reload())
    assert [add(app, "mine").status_code, add(app, "other").status_code] == [201, 429]


def test_metrics_call_all_of_them_added(make: Making) -> None:
    app = make()
    registry = app.state.serving.registry

    def series() -> set[tuple[object, ...]]:
        return {
            (sample.name, tuple(sorted(sample.labels.items())))
            for metric in registry.collect()
            for sample in metric.samples
        }

    def ask_under_new(number: int) -> None:
        assert add(app, f"mine-{number}").status_code == 201
        assert ask(app, skip_policy=f"mine-{number}").status_code == 200
        assert remove(app, f"mine-{number}").status_code == 200

    ask_under_new(0)
    before = series()
    for number in range(1, 10):
        ask_under_new(number)
    assert series() == before
    count = "skipserve_request_duration_seconds_count"
    labels = {"model": "tiny", "skip_policy": "added"}
    assert registry.get_sample_value(count, labels) == 10
    assert registry.get_sample_value(count, labels | {"skip_policy": "inline"}) is None
    add(app, "mine")
    again = make().state.serving.registry
    assert "mine" not in {
        sample.labels.get("skip_policy") for metric in again.collect() for sample in metric.samples
    }


def test_a_file_that_cannot_be_written_is_told_without_its_place(
    make: Making, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    app = make()

    def refuse(**_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    error = error_of(add(app, "mine"), 500)
    assert "Read-only file system; nothing was changed" in error["message"]
    assert str(tmp_path) not in error["message"]
    assert ask(app, skip_policy="mine").status_code == 404


def test_other_methods_are_told_those_that_there_are(make: Making) -> None:
    app = make()
    for path, methods in ((POLICIES, "GET, HEAD, POST"), (f"{POLICIES}/full", "DELETE, GET, HEAD")):
        reply = send(app, "PUT", path, headers=ADMIN)
        assert (reply.status_code, reply.headers["Allow"]) == (405, methods)


def test_an_open_server_says_so_at_the_start(settings: Settings, tmp_path: Path) -> None:
    changes = {"added_policies": tmp_path / "added.yaml"}
    [warning] = build(settings.model_copy(update=changes)).warnings
    assert "--api-keys-file" in warning
