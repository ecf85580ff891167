"""Tests of requests that leave the choice of their skip policy to the server, over HTTP."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from app_client import send
from fastapi import FastAPI
from measured_models import copy_measured
from pictures import question
from played_app import CHAT, PlayedService, app_with

from skipserve.api.paths import (
    COMPLETIONS,
    COUNT_TOKENS,
    DETOKENIZE,
    MESSAGES,
    POLICIES,
    RESPONSES,
    TOKENIZE,
)
from skipserve.app import build
from skipserve.budgets.keys import digest_of_key
from skipserve.model_folder import StartError
from skipserve.settings import AutoUnmet, Settings

pytestmark = pytest.mark.fast

CHEAP, MIDDLE = "exit-after-24", "skip-block-every-3-from-16"
# As the engine that is played says of its weights.
WEIGHTS = "ab"
KEPT = {MIDDLE: 0.985, CHEAP: 0.96}
TURN = {"role": "user", "content": "Why?"}
Making = Callable[..., FastAPI]


@pytest.fixture
def make(settings: Settings, checkpoint: Path, tmp_path: Path) -> Making:
    """Make an application whose model has measured policies."""
    folder = copy_measured(checkpoint, tmp_path, WEIGHTS, KEPT)

    def make(service: PlayedService | None = None, **changes: object) -> FastAPI:
        service = service or PlayedService()
        service.let_run()
        # What one request leaves warm would be the next one's reason.
        own: dict[str, object] = {"model": str(folder), "prefix_cache": False}
        return app_with(service, settings.model_copy(update=own | changes))

    return make


def ask(app: FastAPI, headers: dict[str, str] | None = None, **fields: object) -> httpx.Response:
    return send(app, "POST", CHAT, headers=headers, json=question("Hi", **fields))


def ran(reply: httpx.Response) -> str:
    """Return the policy that a request ran under, which the server has chosen."""
    assert reply.status_code == 200, reply.text
    assert reply.headers["X-Skip-Policy-Requested"] == "auto"
    return reply.headers["X-Skip-Policy"]


def error_of(reply: httpx.Response, status: int) -> dict[str, Any]:
    error: dict[str, Any] = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (status, status)
    return error


def test_the_reply_says_what_was_chosen_and_why(make: Making) -> None:
    reply = ask(make(), skip_policy={"auto": {"min_quality": 0.95, "max_latency_ms": 60_000}})
    assert ran(reply) == CHEAP
    skip = reply.json()["metrics"]["skip"]
    assert (skip["policy"], skip["requested"]) == (CHEAP, "auto")
    assert skip["chosen_because"] == {
        "reason": "cheapest",
        "min_quality": 0.95,
        "quality": 0.96,
        "max_latency_ms": 60_000,
        "expected_latency_ms": None,
        "expected_cached_tokens": 0,
        "under_pressure": False,
    }


def test_a_policy_that_was_named_is_not_said_to_be_chosen(make: Making) -> None:
    reply = ask(make(), skip_policy=CHEAP)
    assert "X-Skip-Policy-Requested" not in reply.headers
    assert not {"requested", "chosen_because"} & reply.json()["metrics"]["skip"].keys()


def test_every_place_of_a_policy_takes_it(make: Making) -> None:
    app = make()
    assert ran(ask(app, skip_policy="auto")) == MIDDLE
    assert ran(ask(app, skip_policy={"auto": {}})) == MIDDLE
    assert ran(ask(app, vllm_xargs={"skip_policy": {"auto": {"min_quality": 0.9}}})) == CHEAP
    assert ran(ask(app, {"X-Skip-Policy": "auto"})) == MIDDLE
    assert ran(ask(app, model="tiny@auto")) == MIDDLE
    both = ask(app, model="tiny@auto", skip_policy={"auto": {"min_quality": 0.9}})
    assert ran(both) == CHEAP
    assert "X-Skip-Policy-Requested" not in ask(app).headers
    error = error_of(ask(app, model="tiny@auto", skip_policy="full"), 400)
    assert error["param"] == "skip_policy"


def test_every_form_takes_it(make: Making) -> None:
    app, wish = make(), {"skip_policy": {"auto": {"min_quality": 0.95}}}
    for path, body in (
        (COMPLETIONS, {"prompt": "Why", "max_tokens": 4}),
        (RESPONSES, {"input": "Why?"}),
        (MESSAGES, {"messages": [TURN], "max_tokens": 4}),
    ):
        reply = send(app, "POST", path, json=body | {"model": "tiny"} | wish)
        assert ran(reply) == CHEAP
        assert reply.json()["metrics"]["skip"]["chosen_because"]["reason"] == "cheapest"


def test_a_stream_ends_with_it(make: Making) -> None:
    reply = ask(make(), skip_policy="auto", stream=True)
    assert ran(reply) == MIDDLE
    chunks = [json.loads(it[6:]) for it in reply.text.split("\n\n") if it.startswith("data: {")]
    assert chunks[-1]["metrics"]["skip"]["requested"] == "auto"


def test_all_prompts_of_a_request_get_one_policy(make: Making) -> None:
    service = PlayedService()
    app = make(service)
    body = {"prompt": ["Why", "How " * 40], "model": "tiny@auto", "max_tokens": 4}
    ran(send(app, "POST", COMPLETIONS, json=body))
    assert len({request.policy_name for request in service.requests}) == 1
    assert len(service.requests) == 2


def test_it_learns_from_the_first_request_on_that_asks_for_it(make: Making) -> None:
    app, said = make(prefix_cache=True), [{"role": "user", "content": "Why? " * 30}]

    def expected(policy: object) -> int | None:
        body = {"messages": said, "skip_policy": policy, "max_tokens": 4}
        skip = send(app, "POST", CHAT, json=body).json()["metrics"]["skip"]
        return (skip.get("chosen_because") or {}).get("expected_cached_tokens")

    assert expected("full") is None
    assert expected({"auto": {"min_quality": 1}}) == 0
    assert (expected({"auto": {"min_quality": 1}}) or 0) > 100


def test_a_conversation_keeps_its_policy(make: Making) -> None:
    app, answer = make(), {"role": "assistant", "content": "Because."}
    wish = {"auto": {"min_quality": 0.95}}
    first = {"messages": [TURN], "skip_policy": wish, "max_tokens": 4}
    second = {"messages": [TURN, answer, TURN], "skip_policy": "auto", "max_tokens": 4}
    assert ran(send(app, "POST", CHAT, json=second)) == MIDDLE
    assert ran(send(app, "POST", CHAT, json=first)) == CHEAP
    reply = send(app, "POST", CHAT, json=second)
    assert ran(reply) == CHEAP
    assert reply.json()["metrics"]["skip"]["chosen_because"]["reason"] == "conversation"


def test_bad_wishes(make: Making) -> None:
    app = make()
    for wish, told in (
        ({"min_qualty": 0.9}, "min_qualty: this field is not known; is it min_quality?"),
        ({"min_quality": 1.2}, "min_quality: this must be at most 1"),
        ({"min_quality": 0}, "min_quality: this must be more than 0"),
        ({"min_quality": "0.9"}, "min_quality: this must be a number"),
        ({"max_latency_ms": -1}, "max_latency_ms: this must be more than 0"),
    ):
        error = error_of(ask(app, skip_policy={"auto": wish}), 400)
        assert error["message"].startswith(f"skip_policy.auto.{told}")
        assert error["param"] == "skip_policy"


def test_rules_do_not_stand_beside_it(make: Making) -> None:
    error = error_of(ask(make(), skip_policy={"auto": {}, "rules": []}), 400)
    assert "auto stands alone" in error["message"]


def test_what_nothing_meets_is_an_error_before_pictures_are_looked_at(make: Making) -> None:
    app = make(auto_policies=(MIDDLE, CHEAP))
    error = error_of(ask(app, skip_policy={"auto": {"min_quality": 0.99}}), 400)
    assert f"the best, {MIDDLE!r}, keeps 0.985" in error["message"]
    body = question("Hi", "data:image/png;base64,AAAA", skip_policy={"auto": {"min_quality": 0.99}})
    assert "keeps 0.985" in error_of(send(app, "POST", CHAT, json=body), 400)["message"]
    app = make(auto_policies=(MIDDLE, CHEAP), auto_unmet=AutoUnmet.FULL)
    reply = ask(app, skip_policy={"auto": {"min_quality": 0.99}})
    assert ran(reply) == "full"
    assert reply.json()["metrics"]["skip"]["chosen_because"]["reason"] == "unmet"


def test_a_latency_that_nothing_meets(make: Making) -> None:
    app = make()
    wish = {"auto": {"max_latency_ms": 1e-6}}
    # Nothing was measured yet, and so nothing speaks against it.
    assert ran(ask(app, skip_policy=wish)) == MIDDLE
    assert "expected to answer" in error_of(ask(app, skip_policy=wish), 400)["message"]


def test_other_weights_than_those_that_were_measured(make: Making) -> None:
    service = PlayedService()
    service.ready = type(service.ready)("cpu", "float32", "cd", 4096)
    reply = ask(make(service), skip_policy={"auto": {"min_quality": 0.9}})
    assert ran(reply) == "full"
    assert reply.json()["metrics"]["skip"]["chosen_because"]["reason"] == "unmeasured"


def test_what_may_be_chosen_is_listed(make: Making) -> None:
    app = make(auto_min_quality=0.9)
    listed = send(app, "GET", POLICIES).json()["auto"]
    assert listed == {
        "name": "auto",
        "quality": 0.98,
        "min_quality": 0.9,
        "unmet": "error",
        "fallback": "full",
        "pressure_seconds": 1.0,
        "relief_seconds": 0.25,
        "policies": [
            {"name": "full", "quality": 1.0},
            {"name": MIDDLE, "quality": 0.985},
            {"name": CHEAP, "quality": 0.96},
        ],
    }
    error = error_of(send(app, "GET", f"{POLICIES}/auto"), 404)
    assert "auto is no policy" in error["message"]
    models = send(app, "GET", "/v1/models").json()["data"]
    assert {it["skip_policy"] for it in models if it["id"] == "tiny@auto"} == {"auto"}
    assert send(app, "GET", "/v1/models/tiny@auto").json()["skip_policy"] == "auto"


def test_tokens_are_counted_with_all_rows(make: Making) -> None:
    app = make()
    for path, body in (
        (TOKENIZE, {"messages": [TURN]}),
        (COUNT_TOKENS, {"messages": [TURN]}),
        (DETOKENIZE, {"tokens": [20]}),
    ):
        auto, full = (
            send(app, "POST", path, json=body | {"model": f"tiny@{name}"})
            for name in ("auto", "full")
        )
        assert (auto.status_code, auto.json()) == (200, full.json())


def test_choices_are_counted(make: Making) -> None:
    app = make()
    ask(app, skip_policy="auto")
    ask(app, skip_policy={"auto": {"min_quality": 0.95}})
    ask(app, skip_policy=CHEAP)
    shown = send(app, "GET", "/metrics").text.splitlines()
    name = "skipserve_auto_choices_total"
    assert {line.rsplit(" ", 1)[0] for line in shown if line.startswith(name)} == {
        f'{name}{{model="tiny",reason="cheapest",skip_policy="{policy}"}}'
        for policy in (MIDDLE, CHEAP)
    }


def test_it_can_be_the_default(make: Making) -> None:
    app = make(default_skip_policy="auto")
    assert ran(ask(app)) == MIDDLE
    assert "X-Skip-Policy-Requested" not in ask(app, skip_policy="full").headers
    models = send(app, "GET", "/v1/models").json()["data"]
    assert models[0] | {"id": "tiny", "skip_policy": "auto"} == models[0]


def write_keys(path: Path, **policies: list[str]) -> Path:
    entries = [
        {"name": name, "sha256": digest_of_key(name).hex(), "policies": allowed}
        for name, allowed in policies.items()
    ]
    path.write_text(yaml.safe_dump({"keys": entries}))
    return path


def test_a_key_gets_what_it_may_use(make: Making, tmp_path: Path) -> None:
    keys = write_keys(tmp_path / "keys.yaml", some=["full", CHEAP], any=["auto"], none=["fastv-64"])
    app = make(api_keys_file=keys)

    def ask_as(name: str, **fields: object) -> httpx.Response:
        return ask(app, {"Authorization": f"Bearer {name}"}, **fields)

    assert ran(ask_as("some", skip_policy="auto")) == "full"
    assert ran(ask_as("any", skip_policy="auto")) == MIDDLE
    error_of(ask_as("any", skip_policy=MIDDLE), 403)
    assert (
        "auto can give this API key" in error_of(ask_as("none", skip_policy="auto"), 403)["message"]
    )


def test_settings_that_cannot_be_followed(settings: Settings) -> None:
    with pytest.raises(StartError, match=r"'ful'.*full"):
        build(settings.model_copy(update={"auto_policies": ("ful",)}))
