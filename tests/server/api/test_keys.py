"""Tests of what keys of a file may ask for, and what they have left, over HTTP."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from app_client import send
from fastapi import FastAPI
from pictures import question
from played_app import CHAT, Asking, PlayedService, app_with, play

from skipserve.api.paths import (
    COMPLETIONS,
    COUNT_TOKENS,
    DETOKENIZE,
    MESSAGES,
    OPERATIONS,
    POLICIES,
    RESOLVE,
    RESPONSES,
    TOKENIZE,
    WITH_BODY,
)
from skipserve.app import build
from skipserve.budgets import client
from skipserve.budgets.bucket import Bucket
from skipserve.budgets.keys import digest_of_key
from skipserve.engine.reports import StepOutput
from skipserve.engine.request import Request
from skipserve.errors import EngineError, RequestTimeoutError
from skipserve.model_folder import StartError
from skipserve.service.service import OnTaken
from skipserve.settings import Settings

pytestmark = pytest.mark.fast

NAMES = ("alice", "bob", "ops")
Making = Callable[..., FastAPI]


def key_of(name: str) -> str:
    return f"key-of-{name}"


def write_keys(path: Path, **fields: dict[str, Any]) -> None:
    entries = [
        {"name": name, "sha256": digest_of_key(key_of(name)).hex()} | fields.get(name, {})
        for name in (*NAMES, *sorted(fields.keys() - set(NAMES)))
    ]
    path.write_text(yaml.safe_dump({"keys": entries}))


@pytest.fixture
def make(settings: Settings, tmp_path: Path) -> Iterator[Making]:
    """Make an application whose keys have rights and limits."""
    made = []

    def make(
        service: PlayedService | None = None,
        changes: dict[str, object] | None = None,
        **fields: dict[str, Any],
    ) -> FastAPI:
        write_keys(tmp_path / "keys.yaml", **{"ops": {"admin": True}} | fields)
        named = {"api_keys_file": tmp_path / "keys.yaml", "usage_log": tmp_path / "usage"}
        if service is None:
            service = PlayedService()
            service.let_run()
        made.append(app_with(service, settings.model_copy(update=named | (changes or {}))))
        return made[-1]

    yield make
    for app in made:
        app.state.serving.usage_log.close()


@pytest.fixture
def no_refill(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no time pass for what keys may use: a slow machine would find some of it refilled."""
    monkeypatch.setattr(client, "Bucket", lambda per_minute, _clock: Bucket(per_minute, lambda: 0))


def get(app: FastAPI, name: str, path: str) -> httpx.Response:
    return send(app, "GET", path, headers={"Authorization": f"Bearer {key_of(name)}"})


def ask(app: FastAPI, name: str, headers: dict[str, str] | None = None, **fields: object) -> Any:
    headers = {"Authorization": f"Bearer {key_of(name)}"} | (headers or {})
    return send(app, "POST", CHAT, headers=headers, json=question("Hi", **fields))


class OneFails(PlayedService):
    """An engine that ends one request by an error, and never begins another."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._why = error

    async def stream(
        self, request: Request, on_taken: OnTaken | None = None
    ) -> AsyncGenerator[StepOutput, None]:
        self.requests.append(request)
        if on_taken is not None:
            on_taken("")
        if len(self.requests) == 3:
            raise self._why
        await self.may_begin.wait()
        yield StepOutput(request.id, None)


def error_of(reply: httpx.Response) -> dict[str, Any]:
    error = reply.json()["error"]
    assert error["code"] == reply.status_code
    return dict(error)


def usage_lines(app: FastAPI, tmp_path: Path) -> list[dict[str, Any]]:
    app.state.serving.usage_log.close()
    return [json.loads(line) for line in (tmp_path / "usage").read_text().splitlines()]


def counted(app: FastAPI, metric: str, **labels: str) -> float | None:
    value: float | None = app.state.serving.registry.get_sample_value(
        f"skipserve_key_{metric}_total", {"model": "tiny"} | labels
    )
    return value


def test_the_metrics_are_for_admins(make: Making) -> None:
    app = make(changes={"metrics_api_key": ()})
    assert [get(app, name, "/metrics").status_code for name in NAMES] == [403, 403, 200]
    assert "admin keys" in error_of(get(app, "bob", "/metrics"))["message"]
    assert get(app, "nobody", "/metrics").status_code == 401
    assert get(app, "bob", "/v1/models").status_code == 200


def test_keys_of_flags_and_of_scrapers_go_beside_the_file(
    settings: Settings, tmp_path: Path
) -> None:
    write_keys(tmp_path / "keys.yaml")
    flags = {"api_key": key_of("flag"), "metrics_api_key": f"{key_of('scraper')},{key_of('bob')}"}
    app = build(
        Settings(**settings.model_dump() | flags | {"api_keys_file": tmp_path / "keys.yaml"})
    ).app
    statuses = {
        name: (
            get(app, name, "/metrics").status_code,
            get(app, name, "/v1/models").status_code,
        )
        for name in ("flag", "scraper", "alice", "bob")
    }
    assert statuses == {
        "flag": (403, 200),
        "scraper": (200, 403),
        "alice": (403, 200),
        "bob": (200, 200),
    }


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"skip_policy": "exit-after-24"}, {}),
        ({"vllm_xargs": {"skip_policy": "exit-after-24"}}, {}),
        ({}, {"X-Skip-Policy": "exit-after-24"}),
        ({"model": "tiny@exit-after-24"}, {}),
    ],
)
def test_a_policy_that_is_not_allowed_however_it_is_named(
    make: Making, fields: dict[str, Any], headers: dict[str, str]
) -> None:
    app = make(alice={"policies": ["full", "visual-freeze-from-16"]})
    error = error_of(ask(app, "alice", headers, **fields))
    assert (error["code"], error["type"], error["param"]) == (
        403,
        "permission_error",
        "skip_policy",
    )
    assert "'exit-after-24'; it may use full, visual-freeze-from-16" in error["message"]
    assert ask(app, "bob", headers, **fields).status_code == 200
    assert ask(app, "alice").status_code == 200
    assert ask(app, "alice", skip_policy="visual-freeze-from-16").status_code == 200


def test_the_default_policy_counts_too(make: Making) -> None:
    app = make(alice={"policies": ["exit-after-24"]})
    assert "'full', the server's default" in error_of(ask(app, "alice"))["message"]
    assert ask(app, "alice", skip_policy="exit-after-24").status_code == 200
    assert ask(app, "alice", skip_policy="nope").status_code == 404


def test_a_models_own_default_counts_too(make: Making, half_checkpoint: Path) -> None:
    changes: dict[str, object] = {"model": str(half_checkpoint)}
    app = make(None, changes, alice={"policies": ["full"]}, bob={"policies": ["half"]})
    assert "'half', the server's default" in error_of(ask(app, "alice"))["message"]
    assert ask(app, "alice", skip_policy="full").status_code == 200
    assert ask(app, "bob").headers["X-Skip-Policy"] == "half"


def test_spelling_policies_out_is_a_right_of_its_own(make: Making) -> None:
    rights = {"policies": ["full"], "inline_policies": True}
    app = make(alice={"policies": ["full"]}, bob=rights, carol={"inline_policies": False})
    inline = {"rules": [{"action": "skip_ffn", "layers": [5]}]}
    statuses = {name: ask(app, name, skip_policy=inline).status_code for name in (*NAMES, "carol")}
    assert statuses == {"alice": 403, "bob": 200, "ops": 200, "carol": 403}
    assert "spell" in error_of(ask(app, "carol", skip_policy=inline))["message"]


def test_lists_show_what_may_be_used(make: Making) -> None:
    app = make(alice={"policies": ["exit-after-24"]})
    policies = get(app, "alice", "/v1/skip_policies").json()["data"]
    models = get(app, "alice", "/v1/models").json()["data"]
    assert [entry["name"] for entry in policies] == ["exit-after-24"]
    assert [entry["id"] for entry in models] == ["tiny@exit-after-24"]
    assert len(get(app, "bob", "/v1/skip_policies").json()["data"]) > 20


def test_replies_say_what_is_left(make: Making) -> None:
    app = make(alice={"limits": {"requests_per_minute": 6, "tokens_per_minute": 600}})
    reply = ask(app, "alice")
    assert reply.status_code == 200
    took = reply.json()["usage"]["total_tokens"]
    headers = {name: it for name, it in reply.headers.items() if name.startswith("x-ratelimit")}
    assert headers.pop("x-ratelimit-reset-tokens").isdecimal()
    assert headers == {
        "x-ratelimit-limit-requests": "6",
        "x-ratelimit-remaining-requests": "5",
        "x-ratelimit-reset-requests": "10",
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-tokens": str(600 - took),
    }
    assert not [name for name in ask(app, "bob").headers if name.startswith("x-ratelimit")]


def test_too_many_requests(make: Making) -> None:
    app = make(alice={"limits": {"requests_per_minute": 2}})
    replies = [ask(app, "alice", max_tokens=max_tokens) for max_tokens in (3, -1, 3)]
    # One that is wrong in itself counts too.
    assert [reply.status_code for reply in replies] == [200, 400, 429]
    assert error_of(replies[-1])["type"] == "rate_limit_error"
    assert 25 <= int(replies[-1].headers["Retry-After"]) <= 30
    assert replies[-1].headers["X-RateLimit-Remaining-Requests"] == "0"
    assert ask(app, "bob").status_code == 200
    assert counted(app, "limited", key="alice", reason="requests") == 1
    assert counted(app, "limited", key="bob", reason="requests") == 0


@pytest.mark.parametrize("streams", [False, True])
def test_flops_are_settled_by_what_was_planned(make: Making, streams: bool) -> None:
    service = PlayedService()
    service.let_run()
    ask(make(service), "bob", max_tokens=200)
    bound = service.requests[0].planned_flops
    app = make(service, alice={"limits": {"flops_per_minute": 2 * bound}})
    reply = ask(app, "alice", stream=streams, max_tokens=200)
    text = reply.text.split("\n\n")[-3].removeprefix("data: ") if streams else reply.text
    planned = json.loads(text)["metrics"]["skip"]["planned_flops"]
    left = int(ask(app, "alice", max_tokens=-1).headers["X-RateLimit-Remaining-Flops"])
    # It had reserved all tokens; a second brings less than a twentieth of that.
    assert planned < bound / 2
    assert 2 * bound - planned <= left <= 2 * bound


def test_what_can_never_be_paid_says_so(make: Making) -> None:
    app = make(alice={"limits": {"tokens_per_minute": 100}})
    error = error_of(ask(app, "alice", max_tokens=150))
    assert (error["code"], error["param"]) == (400, "max_tokens")
    assert "this API key has 100 a minute" in error["message"]
    assert ask(app, "alice", max_tokens=5).status_code == 200


def test_requests_at_once_share_what_is_left(make: Making) -> None:
    service = PlayedService()
    app = make(service, alice={"limits": {"tokens_per_minute": 120}})

    async def scenario(ask: Asking) -> None:
        first = asyncio.create_task(ask(key_of("alice"), max_tokens=80))
        while not service.requests:
            await asyncio.sleep(0)
        refused = await ask(key_of("alice"), max_tokens=80)
        assert (refused.status_code, refused.headers["Retry-After"].isdecimal()) == (429, True)
        service.let_run()
        assert (await first).status_code == 200
        # The first has used two of its eighty.
        assert (await ask(key_of("alice"), max_tokens=60)).status_code == 200

    play(app, scenario)
    assert counted(app, "limited", key="alice", reason="tokens") == 1


def test_so_many_at_once(make: Making) -> None:
    service = PlayedService()
    app = make(service, alice={"limits": {"concurrent": 1}})

    async def scenario(ask: Asking) -> None:
        first = asyncio.create_task(ask(key_of("alice")))
        while not service.requests:
            await asyncio.sleep(0)
        refused = await ask(key_of("alice"))
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        service.let_run()
        assert (await ask(key_of("bob"))).status_code == 200
        assert (await first).status_code == 200
        assert (await ask(key_of("alice"))).status_code == 200

    play(app, scenario)


def test_use_is_written_counted_and_shown(
    make: Making, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    service = PlayedService(num_cached=4)
    service.let_run()
    app = make(service)
    reply = ask(app, "alice", {"X-Request-Id": "mine"}, skip_policy="exit-after-24")
    assert ask(app, "alice", max_tokens=-1).status_code == 400
    assert ask(app, "bob").status_code == 200
    usage, skip = reply.json()["usage"], reply.json()["metrics"]["skip"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == 4
    used = {
        "prompt_tokens": usage["prompt_tokens"],
        "cached_tokens": 4,
        "completion_tokens": 2,
        "computed_flops": skip["planned_flops"],
        "full_flops": skip["full_flops"],
    }
    first, second = usage_lines(app, tmp_path)
    assert first.pop("time").endswith("Z")
    assert first == used | {
        "key": "alice",
        "request_id": "mine",
        "skip_policy": "exit-after-24",
        "status": 200,
        "finish_reason": "length",
    }
    assert second["key"] == "bob"
    assert counted(app, "requests", key="alice") == 1
    assert counted(app, "tokens", key="alice", kind="cached") == 4
    assert counted(app, "flops", key="alice", kind="computed") == skip["planned_flops"]
    assert counted(app, "requests", key="other") == 0
    assert [line.fields.get("key") for line in caplog.records if hasattr(line, "fields")] == [
        *("alice", "alice", "bob")
    ]
    own = get(app, "alice", "/v1/usage").json()["data"]
    assert own == [{"key": "alice", "requests": 2} | used]
    entries = get(app, "ops", "/v1/usage").json()["data"]
    assert [(entry["key"], entry["requests"]) for entry in entries] == [
        *(("alice", 2), ("bob", 1), ("ops", 0))
    ]


@pytest.mark.parametrize(
    ("error", "pays"),
    [
        (EngineError("the engine has died"), False),
        (RequestTimeoutError("too long in the queue", reason="queue_timeout"), False),
        (RequestTimeoutError("longer than it may", reason="deadline"), True),
    ],
)
def test_who_gives_up_before_the_first_token_pays_for_the_prompt(
    make: Making, tmp_path: Path, error: Exception, pays: bool
) -> None:
    service = PlayedService(error=error)
    service.let_run()
    app = make(service)
    status = ask(app, "alice").status_code
    [line] = usage_lines(app, tmp_path)
    assert (line["status"], line["finish_reason"]) == (status, None)
    assert (line["prompt_tokens"] > 0, line["computed_flops"] > 0) == (pays, pays)
    assert line["completion_tokens"] == 0


@pytest.mark.parametrize(
    ("error", "pays"),
    [
        (EngineError("the engine has died"), False),
        (RequestTimeoutError("longer than it may", reason="deadline"), True),
    ],
)
def test_a_prompt_that_fails_costs_the_others_nothing_either(
    make: Making, tmp_path: Path, error: Exception, pays: bool
) -> None:
    service = OneFails(error)
    app = make(service)
    reply = post(app, "alice", COMPLETIONS, prompt=["a", "b", "c"])
    assert reply.status_code == (408 if pays else 500)
    [line] = usage_lines(app, tmp_path)
    num_prompts = 3 if pays else 0
    assert line["prompt_tokens"] == num_prompts * service.requests[0].num_prompt


def test_who_hangs_up_pays_for_the_prompt_too(make: Making) -> None:
    service = PlayedService()
    app = make(service, alice={"limits": {"tokens_per_minute": 500}})
    start = time.monotonic()

    async def scenario(ask: Asking) -> None:
        asking = asyncio.create_task(ask(key_of("alice"), max_tokens=100))
        while not service.requests:
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    play(app, scenario)
    [entry] = get(app, "alice", "/v1/usage").json()["data"]
    assert entry["prompt_tokens"] == service.requests[0].num_prompt
    assert entry["completion_tokens"] == 0
    left = int(get(app, "alice", "/v1/models").headers["X-RateLimit-Remaining-Tokens"])
    refilled = (time.monotonic() - start) * 500 / 60
    assert 400 < left <= 500 - entry["prompt_tokens"] + refilled + 5


def test_who_shares_a_cache_is_not_told_what_others_asked(make: Making) -> None:
    service = PlayedService(num_cached=4)
    service.let_run()
    app = make(service, {"isolate_keys": False})
    reply = ask(app, "alice").json()
    assert reply["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    saved_for = reply["metrics"]["skip"]["saved_for"]
    assert saved_for["cached_tokens"] == 0
    assert service.requests[0].cache_salt == ""


def test_owners_are_told_apart(make: Making) -> None:
    service = PlayedService()
    service.let_run()
    app = make(service)
    for name in ("alice", "bob", "alice"):
        ask(app, name)
    first, second, again = service.requests
    assert first.owner == again.owner != second.owner
    assert first.planned_flops == second.planned_flops > 0
    assert first.cache_salt == again.cache_salt != second.cache_salt


def test_names_that_come_later_are_counted(make: Making, tmp_path: Path) -> None:
    app = make()
    write_keys(tmp_path / "keys.yaml", dora={"admin": True})
    assert get(app, "dora", "/v1/models").status_code == 401
    asyncio.run(app.state.serving.reload())
    assert ask(app, "dora").status_code == 200
    assert counted(app, "requests", key="dora") == 1
    # Who is no admin any more.
    assert get(app, "ops", "/metrics").status_code == 403
    (tmp_path / "keys.yaml").write_text("keys: []")
    asyncio.run(app.state.serving.reload())
    assert get(app, "dora", "/metrics").status_code == 200


def test_a_broken_file_ends_the_start(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    for text, told in (("keys: [{name: a}]", "sha256"), ("keys: []", "empty")):
        path.write_text(text)
        with pytest.raises(StartError, match=told):
            build(settings.model_copy(update={"api_keys_file": path}))
    write_keys(path, alice={"policies": ["ful"]})
    with pytest.raises(StartError, match=r"keys\.0\.policies: there is no skip policy 'ful'"):
        build(settings.model_copy(update={"api_keys_file": path}))
    with pytest.raises(StartError, match="usage log"):
        build(settings.model_copy(update={"usage_log": tmp_path / "no" / "usage"}))


# What each route is asked, by the model's name.
BODIES: dict[str, dict[str, Any]] = {
    CHAT: question("Hi"),
    COMPLETIONS: {"prompt": ["a", "b"], "max_tokens": 5},
    RESPONSES: {"input": "Hi"},
    MESSAGES: {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5},
    COUNT_TOKENS: {"messages": [{"role": "user", "content": "Hi"}]},
    TOKENIZE: {"prompt": "Hi"},
    DETOKENIZE: {"tokens": [5]},
    RESOLVE: {},
}


def post(app: FastAPI, name: str, path: str, **fields: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key_of(name)}"}
    body = {"model": "tiny"} | BODIES[path] | fields
    return send(app, "POST", path, headers=headers, json=body)


def test_each_route_with_a_body_is_tested() -> None:
    # What admins alone may ask has tests of its own.
    assert {*BODIES, POLICIES} == WITH_BODY


@pytest.mark.parametrize("path", BODIES)
def test_each_route_counts_and_has_limits(make: Making, tmp_path: Path, path: str) -> None:
    app = make(alice={"limits": {"requests_per_minute": 1}})
    first, second = post(app, "alice", path), post(app, "alice", path)
    assert (first.status_code, second.status_code) == (200, 429)
    assert second.json()["error"]["type"] == "rate_limit_error"
    assert second.json().get("type") == ("error" if path.startswith(MESSAGES) else None)
    assert int(second.headers["Retry-After"]) > 50
    assert second.headers["X-RateLimit-Remaining-Requests"] == "0"
    assert post(app, "bob", path).status_code == 200
    assert counted(app, "limited", key="alice", reason="requests") == 1
    [entry] = get(app, "alice", "/v1/usage").json()["data"]
    assert entry["requests"] == 1
    lines = usage_lines(app, tmp_path)
    # Counting tokens takes nothing of the engine.
    assert [line["key"] for line in lines] == (["alice", "bob"] if path in OPERATIONS else [])
    assert counted(app, "requests", key="alice") == (1 if path in OPERATIONS else 0)


@pytest.mark.parametrize("path", BODIES)
def test_each_route_holds_to_the_policies_of_a_key(make: Making, path: str) -> None:
    app = make(alice={"policies": ["full"]})
    refused = post(app, "alice", path, model="tiny@exit-after-24")
    assert (refused.status_code, refused.json()["error"]["type"]) == (403, "permission_error")
    assert post(app, "alice", path).status_code == 200
    assert post(app, "bob", path, model="tiny@exit-after-24").status_code == 200


@pytest.mark.parametrize("path", ["/v1/models/tiny@{}", "/v1/skip_policies/{}"])
def test_one_model_or_policy_is_shown_to_whom_it_is_listed(make: Making, path: str) -> None:
    app = make(alice={"policies": ["exit-after-24"]})
    statuses = [get(app, "alice", path.format(it)).status_code for it in ("exit-after-24", "full")]
    assert statuses == [200, 403]
    assert get(app, "bob", path.format("full")).status_code == 200
    assert get(app, "alice", "/v1/models/tiny").status_code == 403


def test_anthropic_s_header_names_a_client_of_the_file(make: Making) -> None:
    app = make(alice={"policies": ["exit-after-24"]})
    headers = {"x-api-key": key_of("alice")}
    reply = send(app, "POST", MESSAGES, headers=headers, json={"model": "x"} | BODIES[MESSAGES])
    assert reply.status_code == 404
    usage = send(app, "GET", "/v1/usage", headers=headers).json()["data"]
    assert [(entry["key"], entry["requests"]) for entry in usage] == [("alice", 1)]


@pytest.mark.usefixtures("no_refill")
def test_several_prompts_are_reserved_together_and_paid_each(make: Making, tmp_path: Path) -> None:
    app = make(alice={"limits": {"tokens_per_minute": 200}})
    never = post(app, "alice", COMPLETIONS, prompt=["a", "b", "c"], max_tokens=66)
    assert "200 a minute" in error_of(never)["message"]
    assert never.headers["X-RateLimit-Remaining-Tokens"] == "200"
    # Two have room, a third would have none beside them.
    reply = post(app, "alice", COMPLETIONS, prompt=["a", "b"], max_tokens=66)
    usage = reply.json()["usage"]
    assert reply.headers["X-RateLimit-Remaining-Tokens"] == str(200 - usage["total_tokens"])
    [line] = usage_lines(app, tmp_path)
    assert line["completion_tokens"] == usage["completion_tokens"] == 4
    assert line["prompt_tokens"] == usage["prompt_tokens"]
    metrics = [choice["metrics"]["skip"] for choice in reply.json()["choices"]]
    assert line["computed_flops"] == sum(skip["planned_flops"] for skip in metrics)
    assert counted(app, "requests", key="alice") == 1


@pytest.mark.usefixtures("no_refill")
def test_several_answers_reserve_so_many_times_as_much(make: Making, tmp_path: Path) -> None:
    app = make(alice={"limits": {"tokens_per_minute": 200}})
    assert ask(app, "alice", n=2, max_tokens=100).status_code == 400
    reply = ask(app, "alice", n=2, max_tokens=60)
    usage, skip = reply.json()["usage"], reply.json()["metrics"]["skip"]
    assert reply.headers["X-RateLimit-Remaining-Tokens"] == str(200 - usage["total_tokens"])
    [line] = usage_lines(app, tmp_path)
    assert (line["completion_tokens"], line["computed_flops"]) == (4, skip["planned_flops"])


def test_an_answer_beside_another_may_say_what_it_found_of_that(make: Making) -> None:
    service = PlayedService(num_cached=4)
    service.let_run()
    reply = ask(make(service, {"isolate_keys": False}), "alice", n=2).json()
    assert reply["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    skip = reply["metrics"]["skip"]
    assert skip["saved_for"]["cached_tokens"] == 0
    assert [answer["cached_tokens"] for answer in skip["further_answers"]] == [4]


def test_no_form_tells_what_others_asked(make: Making) -> None:
    service = PlayedService(num_cached=4)
    service.let_run()
    app = make(service, {"isolate_keys": False})
    message = post(app, "alice", MESSAGES).json()["usage"]
    assert message["cache_read_input_tokens"] == 0
    response = post(app, "alice", RESPONSES).json()["usage"]
    assert response["input_tokens_details"]["cached_tokens"] == 0
    text = post(app, "alice", COMPLETIONS).json()["usage"]
    assert text["prompt_tokens_details"]["cached_tokens"] == 0
