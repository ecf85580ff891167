"""The application that Ray Serve runs, played in this process: a real engine, no cluster."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray_wanted  # noqa: F401 - without Ray there is nothing to test
from pictures import question
from played_ray import PlayedApplication

from skipserve.ray.options import Options

CHAT = "/v1/chat/completions"
SCHEMA = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]}
FORMS: dict[str, dict[str, Any]] = {
    "text": {},
    "policy": {"skip_policy": "skip-ffn-every-3-from-16"},
    "choices": {"n": 3, "temperature": 1.0, "seed": 5},
    "structured": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": SCHEMA},
        },
        "max_tokens": 24,
        "ignore_eos": False,
    },
    "logprobs": {"logprobs": True, "top_logprobs": 2},
}


@pytest.fixture(scope="module")
def options(checkpoint: Path) -> Options:
    settings = {"model": str(checkpoint), "num_threads": 1, "kv_cache_gib": 0.05}
    return Options(settings=settings)


@pytest.fixture(scope="module")
def application(options: Options) -> Iterator[PlayedApplication]:
    with PlayedApplication(options) as application:
        yield application


@pytest.fixture(scope="module")
def played(application: PlayedApplication) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=application.url, timeout=60, trust_env=False) as client:
        while client.get("/ready").status_code != 200:
            time.sleep(0.05)
        yield client


def _asked(**changes: Any) -> dict[str, Any]:
    options = {"max_tokens": 6, "temperature": 0, "ignore_eos": True}
    return question("How many?", **{**options, **changes})


def _told(reply: httpx.Response) -> Any:
    """Return what a reply says, but for ids and times."""
    assert reply.status_code == 200, reply.text
    body = reply.json()
    return [body["choices"], body["usage"]["completion_tokens"], body.get("skip")]


@pytest.mark.parametrize("form", FORMS)
def test_answers_are_those_of_a_server_alone(
    played: httpx.Client, client: httpx.Client, form: str
) -> None:
    asked = _asked(**FORMS[form])
    assert _told(played.post(CHAT, json=asked)) == _told(client.post(CHAT, json=asked))


def test_a_stream_is_that_of_a_server_alone(played: httpx.Client, client: httpx.Client) -> None:
    def deltas(server: httpx.Client) -> list[Any]:
        text = server.post(CHAT, json=_asked(stream=True)).text
        events = [line.removeprefix("data: ") for line in text.splitlines() if line]
        assert events.pop() == "[DONE]"
        chunks = [json.loads(it) for it in events if not it.startswith(":")]
        words = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks]
        return ["".join(words), chunks[-1]["choices"][0]["finish_reason"]]

    assert deltas(played) == deltas(client)


def test_policies_are_exchanged_in_place(
    played: httpx.Client, application: PlayedApplication
) -> None:
    def status() -> int:
        return played.post(CHAT, json=_asked(skip_policy="mine")).status_code

    def reconfigure(**user_config: Any) -> None:
        application.front.reconfigure.remote(user_config).result()

    rules = [{"action": "skip_ffn", "layers": [3], "scope": "generated"}]
    assert status() == 404
    reconfigure(policies={"mine": {"rules": rules}})
    assert status() == 200
    # Of one that does not fit nothing is taken.
    reconfigure(policies={"deep": {"rules": [{**rules[0], "layers": [99]}]}})
    assert status() == 200
    with pytest.raises(ValueError, match="nothing else"):
        reconfigure(models={})
    reconfigure(policies={})
    assert status() == 404


def test_the_page_of_metrics_is_that_of_all(played: httpx.Client) -> None:
    def instances() -> set[str]:
        text = played.get("/metrics").text
        lines = (line for line in text.splitlines() if line.startswith("skipserve_engine_up{"))
        return {line.partition('instance="')[2].partition('"')[0] for line in lines}

    # The line without one is the address' own.
    while instances() != {"", "engine-local", "ingress-local"}:
        time.sleep(0.1)
