"""Tests of who is turned away by the head of a request alone."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import h11
import pytest
from prometheus_client import CollectorRegistry
from starlette.types import Scope

from skipserve.api.admission import Admission
from skipserve.api.auth import CLIENT
from skipserve.api.door import Door, Refusal
from skipserve.api.pace import Pace
from skipserve.budgets.client import Client
from skipserve.errors import AuthenticationError
from skipserve.metrics.registry import ServerMetrics

pytestmark = pytest.mark.fast
PATH = "/v1/chat/completions"
ADDRESS = "10.0.0.1"
ASKS_ON = Client.of_address(ADDRESS)


class Engine:
    """As much of the engine as admission looks at."""

    why_not_ready: str | None = None
    num_waiting = 0


class Entrance:
    """A door, and what is behind it."""

    def __init__(self, max_requests: int = 2, max_tokens: int = 1000) -> None:
        self.engine = Engine()
        self.now = 0.0
        self._registry = CollectorRegistry()
        metrics = ServerMetrics(self._registry, "m", [])
        service: Any = self.engine
        self.admission = Admission(service, metrics, max_requests, max_tokens)
        self.door = Door(
            self.admission,
            metrics,
            {PATH},
            self._check_key,
            Pace(0.05, lambda: self.now),
            lambda: self.now,
        )

    def turn_away(self, *requests: h11.Request) -> list[Refusal | None]:
        """Return what those are told who come at once."""

        async def come() -> list[Refusal | None]:
            return [self.door.turn_away(request, ADDRESS) for request in requests]

        return asyncio.run(come())

    @staticmethod
    def _check_key(scope: Scope) -> None:
        key = dict(scope["headers"]).get(b"authorization")
        if key == b"wrong":
            raise AuthenticationError("no")
        if key == b"other":
            scope["state"][CLIENT] = Client("other")

    def count(self, name: str, **labels: str) -> float | None:
        return self._registry.get_sample_value(f"skipserve_{name}_total", {"model": "m", **labels})


def request(method: str = "POST", target: str = PATH, **headers: str) -> h11.Request:
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return h11.Request(method=method, target=target, headers=[("host", "x"), *named])


@pytest.fixture
def full() -> Iterator[Entrance]:
    entrance = Entrance(max_requests=1)
    with entrance.admission.admit(ASKS_ON):
        yield entrance


def test_whoever_comes_to_a_full_queue_is_turned_away(full: Entrance) -> None:
    refusal, other = full.turn_away(
        request(x_request_id="mine"), request(target=f"{PATH}?a=b", x_request_id="()")
    )
    assert refusal is not None
    assert other is not None
    assert (refusal.error.status, refusal.error.reason) == (503, "queue_full")
    assert refusal.error.retry_after_seconds >= 1
    assert refusal.request_id == "mine"
    assert other.request_id.startswith("req-")
    assert full.count("rejections", reason="queue_full") == full.count("errors", code="503") == 2


@pytest.mark.parametrize(
    "other",
    [
        request("GET"),
        request(target="/health"),
        request(target="*"),
        request(authorization="wrong"),
    ],
)
def test_what_is_for_others_to_see_to_passes(full: Entrance, other: h11.Request) -> None:
    assert full.turn_away(other) == [None]
    assert full.count("rejections", reason="queue_full") == 0


def test_a_server_that_is_not_ready_says_why_itself(full: Entrance) -> None:
    full.engine.why_not_ready = "the model is still loading"
    assert full.turn_away(request()) == [None]


def test_those_who_come_at_once_are_let_in_to_one_place_one_by_one() -> None:
    entrance = Entrance(max_requests=2)

    async def come() -> list[bool]:
        turned_away = [entrance.door.turn_away(request(), ADDRESS) is not None for _ in range(4)]
        # They were looked at, and have gone.
        await asyncio.sleep(0)
        return [*turned_away, entrance.door.turn_away(request(), ADDRESS) is not None]

    assert asyncio.run(come()) == [False, False, True, True, False]


def test_a_queue_is_full_where_nobody_of_the_usual_size_has_room() -> None:
    entrance = Entrance(max_requests=100, max_tokens=100)
    with ExitStack() as stack:
        for _ in range(3):
            permit = stack.enter_context(entrance.admission.admit(ASKS_ON))
            permit.join_queue(30)
            permit.hand_over()
        [refusal] = entrance.turn_away(request())
        assert refusal is not None
        assert refusal.error.reason == "queued_tokens"
        permit.leave_queue()
        let_in, turned_away = entrance.turn_away(request(), request())
        assert let_in is None
        assert turned_away is not None


def test_whoever_holds_less_than_a_share_passes_the_flood_of_another() -> None:
    entrance = Entrance(max_requests=4)
    other = Client("other")
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(entrance.admission.admit(ASKS_ON))
        keyed = request(authorization="other")
        refusals = entrance.turn_away(request(), keyed, request())
        assert [refusal is None for refusal in refusals] == [False, True, False]
        for _ in range(2):
            stack.enter_context(entrance.admission.admit(other))
        [refusal] = entrance.turn_away(keyed)
        assert refusal is not None


def test_a_flood_waits_and_fills_no_log(full: Entrance, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "skipserve.requests"):
        full.now = 60.0
        refusals = full.turn_away(*[request()] * 5000)
        full.now = 61.5
        full.turn_away(request())
    waits = [refusal.wait_seconds for refusal in refusals if refusal]
    assert len(waits) == 5000
    assert waits[0] == 0 < waits[-1]
    # Servers of other tests may log meanwhile.
    told = [record for record in caplog.records if "queue_full" in record.getMessage()]
    first, second = (record.getMessage() for record in told)
    assert first.startswith(f"POST {PATH} 503 ")
    assert first.endswith("overloaded_error queue_full")
    assert second.endswith("queue_full (and 4999 more before)")
    assert told[1].fields["num_more"] == 4999  # type: ignore[attr-defined]
