"""No request changes another's answer: the rows of the security table on batches and state."""

import json
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import islice
from typing import Any

import httpx
import pytest
from live_server import LiveServer
from pictures import data_uri, encode, question, random_picture

from skipserve.service.local import EngineService

CHAT = "/v1/chat/completions"
POLICIES = ("full", "skip-block-every-3-from-16-all", "exit-after-24", "visual-freeze-from-16")


def body_of(index: int) -> dict[str, Any]:
    """Return a request of its own: text, picture, seed and policy."""
    url = data_uri(encode(random_picture(30, 30, seed=index)))
    sampling = {"temperature": index % 2, "seed": index, "logprobs": True}
    policy = POLICIES[index % len(POLICIES)]
    return question(f"Secret {index}?", url, skip_policy=policy, max_tokens=6, **sampling)


@dataclass(frozen=True)
class Answer:
    """What was answered, and the log-probability of each token."""

    tokens: list[str]
    logprobs: list[float]
    finish_reason: str

    def check_same_as(self, other: "Answer") -> None:
        """Check for the same answer; sums of a batch may round in another order."""
        assert (self.tokens, self.finish_reason) == (other.tokens, other.finish_reason)
        assert self.logprobs == pytest.approx(other.logprobs, abs=1e-3)


def answer(live: LiveServer, index: int, **fields: object) -> Answer:
    with live.client() as client:
        reply = client.post(CHAT, json=body_of(index) | fields).json()
    assert reply["metrics"]["skip"]["policy"] == POLICIES[index % len(POLICIES)]
    [choice] = reply["choices"]
    content = choice["logprobs"]["content"]
    return Answer(
        [token["token"] for token in content],
        [token["logprob"] for token in content],
        choice["finish_reason"],
    )


def disturb(live: LiveServer, index: int) -> None:
    """Send something that fails, or that is given up at once."""
    if index % 2:
        with live.client() as client:
            status = client.post(CHAT, json=body_of(index) | {"top_logprobs": 99}).status_code
        assert status == 400
        return
    content = json.dumps(body_of(index) | {"max_tokens": 100, "stream": True}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(content)}\r\n\r\n"
    port = httpx.URL(live.url).port or 0
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head.encode() + content)
        connection.recv(1 + index * 50)


def test_s49_requests_at_once_do_not_mix(live: LiveServer) -> None:
    num = 8
    alone = [answer(live, index) for index in range(num)]
    with ThreadPoolExecutor(num) as pool:
        disturbances = [pool.submit(disturb, live, index) for index in range(num)]
        together = list(pool.map(lambda index: answer(live, index), range(num)))
        for disturbance in disturbances:
            disturbance.result()
    for index in range(num):
        together[index].check_same_as(alone[index])


def test_s48_a_salt_changes_no_answer(live: LiveServer) -> None:
    shared = [answer(live, index) for index in range(4)]
    for index in range(4):
        answer(live, index, cache_salt="mine").check_same_as(shared[index])


def test_s47_a_salt_tells_nobody_what_others_have_asked(live: LiveServer) -> None:
    """Neither by the count of what was cached, nor by the work that was spared."""

    def ask(salt: str) -> tuple[int, int]:
        with live.client() as client:
            reply = client.post(CHAT, json=body_of(701) | {"cache_salt": salt}).json()
            page = client.get("/metrics").text
        num_encoded = sum(
            float(line.rpartition(" ")[2])
            for line in page.splitlines()
            if line.startswith("skipserve_images_encoded_total{")
        )
        return reply["usage"]["prompt_tokens_details"]["cached_tokens"], int(num_encoded)

    first, again, other = ask("victim"), ask("victim"), ask("guess")
    assert first[0] == other[0] == 0
    assert again[0] > 0
    assert (again[1] - first[1], other[1] - again[1]) == (0, 1)


def test_nothing_is_left_behind(live: LiveServer) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda index: disturb(live, index), range(12)))
    service = live.built.serving.service
    with live.client() as client:
        while service.num_running or service.num_waiting:
            client.get("/health")
    answer(live, 1).check_same_as(answer(live, 1))


def test_overload_turns_some_away_and_serves_the_rest(live: LiveServer) -> None:
    def ask(index: int) -> httpx.Response:
        with live.client() as client:
            return client.post(CHAT, json=body_of(index) | {"max_tokens": 15})

    service, limit, num = live.built.serving.service, 20, 48
    assert isinstance(service, EngineService)
    assert service.pid is not None
    with ThreadPoolExecutor(num) as pool:
        # Nothing is served while the queue fills.
        os.kill(service.pid, signal.SIGSTOP)
        try:
            waiting = [pool.submit(ask, index) for index in range(num)]
            turned_away = [done.result() for done in islice(as_completed(waiting), num - limit)]
        finally:
            os.kill(service.pid, signal.SIGCONT)
        statuses = [each.result().status_code for each in waiting]
    assert {reply.status_code for reply in turned_away} == {503}
    assert statuses.count(200) == limit
    for reply in turned_away:
        assert int(reply.headers["Retry-After"]) > 0
        assert reply.json()["error"]["type"] == "overloaded_error"
