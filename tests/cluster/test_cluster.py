"""The shipped Serve config in a real cluster: answers, affinity, losses, and changes in place."""

import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray_wanted  # noqa: F401 - without Ray there is nothing to test
import yaml
from live_server import LiveServer
from pictures import data_uri, encode, question, random_picture
from prometheus_client.parser import text_string_to_metric_families
from ray_cluster import URL, Cluster, cluster, is_ready, wait_until

from skipserve.budgets.keys import digest_of_key
from skipserve.settings import Settings

CHAT = "/v1/chat/completions"
CONFIG = Path(__file__).parents[2] / "deploy" / "ray" / "serve.yaml"
# A cluster starts, and replicas are replaced.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


KEYS = {"main": {}, "few": {"limits": {"requests_per_minute": 10}}}


def _headers(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer key-of-{name}"}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The shipped config, with two ingresses, and keys."""
    loaded: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    path = tmp_path_factory.mktemp("keys") / "keys.yaml"
    entries = [
        {"name": name, "sha256": digest_of_key(f"key-of-{name}").hex(), "admin": True, **fields}
        for name, fields in KEYS.items()
    ]
    path.write_text(yaml.safe_dump({"keys": entries}))
    args = loaded["applications"][0]["args"]
    args["ingresses"] = 2
    args["settings"]["api_keys_file"] = str(path)
    return loaded


@pytest.fixture(scope="module")
def running(config: dict[str, Any]) -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="rs") as folder, cluster(Path(folder)) as running:
        running.start()
        running.deploy(config)
        wait_until(lambda: is_ready() and len(running.engine_processes) == 2)
        yield running


@pytest.fixture(scope="module")
def alone(running: Cluster, config: dict[str, Any]) -> Iterator[httpx.Client]:
    """A server without Ray, in the same network."""
    settings = Settings(**config["applications"][0]["args"]["settings"])
    with LiveServer(settings) as server, server.client() as client:
        client.headers.update(_headers("main"))
        yield client


@pytest.fixture
def client(running: Cluster) -> Iterator[httpx.Client]:
    """The application, with all of its engines."""
    wait_until(lambda: len(running.engine_processes) == 2 and _num_up() == 2)
    with httpx.Client(
        base_url=URL, timeout=300, trust_env=False, headers=_headers("main")
    ) as client:
        yield client


def _num_up() -> float:
    return _sum("skipserve_engine_up", "engine-")


def _sum(name: str, instance: str = "") -> float:
    text = httpx.get(f"{URL}/metrics", timeout=60, trust_env=False, headers=_headers("main")).text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and sample.labels.get("instance", "").startswith(instance)
    )


def _settled(name: str) -> float:
    """Return a sum once all have told of what they have done: they do so every five seconds."""
    time.sleep(8)
    return _sum(name)


def _asked(text: str = "How many?", *urls: str, **changes: Any) -> dict[str, Any]:
    defaults = {"max_tokens": 8, "temperature": 0, "ignore_eos": True}
    return question(text, *urls, **{**defaults, **changes})


def _words(reply: httpx.Response) -> list[str]:
    """Return the answers of a reply, whole or streamed."""
    assert reply.status_code == 200, reply.text
    if "event-stream" not in reply.headers["content-type"]:
        return [choice["message"]["content"] for choice in reply.json()["choices"]]
    lines = reply.text.splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert not [chunk for chunk in chunks if "error" in chunk], reply.text
    deltas = (choice["delta"] for chunk in chunks for choice in chunk["choices"])
    return ["".join(delta.get("content") or "" for delta in deltas)]


def _pictures(number: int) -> list[str]:
    return [data_uri(encode(random_picture(40, 30, seed=seed))) for seed in range(number)]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"stream": True},
        {"n": 3, "temperature": 1.0, "seed": 3},
        {"skip_policy": {"rules": [{"action": "skip_ffn", "layers": [5], "scope": "all"}]}},
    ],
    ids=["whole", "stream", "choices", "policy"],
)
def test_answers_are_those_of_a_server_alone(
    client: httpx.Client, alone: httpx.Client, changes: dict[str, Any]
) -> None:
    asked = _asked("What is there?", *_pictures(1), **changes)
    assert _words(client.post(CHAT, json=asked)) == _words(alone.post(CHAT, json=asked))


def test_a_picture_is_encoded_once(client: httpx.Client) -> None:
    before = _settled("skipserve_images_encoded_total")
    for picture in _pictures(8)[2:]:
        for text in ("How many?", "Which colour?"):
            client.post(CHAT, json=_asked(text, picture)).raise_for_status()
    assert _settled("skipserve_images_encoded_total") == before + 6


@pytest.mark.parametrize("lost", ["engine_processes", "engines"])
def test_no_answer_is_lost_with_an_engine(
    running: Cluster, client: httpx.Client, lost: str
) -> None:
    asked = [
        _asked(f"Question {number % 3}?", max_tokens=60, stream=number % 2 == 1)
        for number in range(12)
    ]
    expected = [_words(client.post(CHAT, json=it)) for it in asked[:6]] * 2
    with ThreadPoolExecutor(len(asked)) as threads:
        answers = [threads.submit(client.post, CHAT, json=it) for it in asked]
        wait_until(lambda: _sum("skipserve_time_to_first_token_seconds_count") > 0)
        os.kill(getattr(running, lost)[0], signal.SIGKILL)
        assert [_words(answer.result()) for answer in answers] == expected


def test_whoever_hangs_up_frees_the_pages(client: httpx.Client) -> None:
    with client.stream("POST", CHAT, json=_asked(max_tokens=900, stream=True)) as reply:
        next(reply.iter_raw())
    wait_until(lambda: _sum("skipserve_requests_running", "engine-") == 0, 30)


def test_policies_change_in_place(
    running: Cluster, client: httpx.Client, config: dict[str, Any]
) -> None:
    asked = _asked(skip_policy="late-attention")
    assert client.post(CHAT, json=_asked(skip_policy="late-ffn")).status_code == 200
    assert client.post(CHAT, json=asked).status_code == 404
    before = running.engines, running.ingresses
    (ingress,) = config["applications"][0]["deployments"]
    rules = [{"action": "skip_attention", "layers": [6], "scope": "generated"}]
    changed = {**ingress, "user_config": {"policies": {"late-attention": {"rules": rules}}}}
    application = {**config["applications"][0], "deployments": [changed]}
    running.deploy({**config, "applications": [application]})
    wait_until(lambda: client.post(CHAT, json=asked).status_code == 200, 60)
    assert client.post(CHAT, json=_asked(skip_policy="late-ffn")).status_code == 404
    assert (running.engines, running.ingresses) == before


def test_two_ingresses_hold_one_limit(client: httpx.Client) -> None:
    def ask(number: int) -> int:
        asked = _asked(f"Question {number}?", max_tokens=1)
        # A connection of its own: either ingress may have it.
        reply = httpx.post(
            URL + CHAT, json=asked, headers=_headers("few"), timeout=60, trust_env=False
        )
        return reply.status_code

    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(ask, range(24)))
    assert sorted(set(statuses)) == [200, 429]
    # One more comes back every six seconds.
    assert 10 <= statuses.count(200) <= 12
    wait_until(lambda: _used(client, "few") == statuses.count(200), 10)
    assert _used(client, "few") == statuses.count(200)


def _used(client: httpx.Client, name: str) -> int:
    entries = client.get("/v1/usage").json()["data"]
    return next(int(entry["requests"]) for entry in entries if entry["key"] == name)


def test_an_ingress_is_replaced(running: Cluster, client: httpx.Client) -> None:
    before = running.ingresses
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: len({*running.ingresses} - {before[0]}) == 2 and is_ready())
    for _ in range(8):
        assert _words(client.post(CHAT, json=_asked()))


def test_where_no_engine_is_a_stream_is_refused(running: Cluster, client: httpx.Client) -> None:
    for pid in running.engines:
        os.kill(pid, signal.SIGKILL)
    reply = client.post(CHAT, json=_asked(stream=True))
    assert reply.status_code == 503, reply.text
    assert int(reply.headers["Retry-After"]) >= 1
