"""Tests of who may come in."""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from skipserve.api.admission import Admission
from skipserve.budgets.client import Client
from skipserve.budgets.keys import KeyEntry
from skipserve.errors import RateLimitError, UnavailableError
from skipserve.metrics.registry import ServerMetrics

pytestmark = pytest.mark.fast


@dataclass
class Engine:
    """As much of the engine as admission looks at."""

    why_not_ready: str | None = None
    num_waiting: int = 0


class Door:
    """An admission, its engine and the counts of those turned away."""

    def __init__(
        self, max_requests: int = 2, max_tokens: int = 1000, max_bytes: int = 1000
    ) -> None:
        self.engine = Engine()
        self._registry = CollectorRegistry()
        metrics = ServerMetrics(self._registry, "m", [])
        service: Any = self.engine
        self.admission = Admission(service, metrics, max_requests, max_tokens, max_bytes)

    def refusal(self, reason: str) -> str:
        with pytest.raises(UnavailableError) as caught, self.admission.arrive():
            pass
        assert caught.value.retry_after_seconds > 0
        assert caught.value.reason == reason
        return caught.value.message

    def rejections(self, reason: str) -> float | None:
        labels = {"model": "m", "reason": reason}
        return self._registry.get_sample_value("skipserve_rejections_total", labels)


def test_each_answer_takes_a_place() -> None:
    door = Door(max_requests=4)
    with door.admission.admit() as only:
        only.join_queue(10, 9)  # nobody else waits
        only.leave_queue()
    door.engine.num_waiting = 2
    with door.admission.admit() as first:
        first.join_queue(10, 2)
        with pytest.raises(UnavailableError) as caught:
            first.join_queue(10, 3)
    assert caught.value.reason == "queue_full"


def test_the_queue_has_an_end() -> None:
    door = Door(max_requests=2)
    with door.admission.admit() as first, door.admission.admit():
        assert "too many" in door.refusal("queue_full")
        first.hand_over()
        first.hand_over()
        door.engine.num_waiting = 1
        assert "too many" in door.refusal("queue_full")
        # It runs, or has ended: nobody waits for a client that does not read.
        door.engine.num_waiting = 0
        with door.admission.admit():
            assert "too many" in door.refusal("queue_full")
    with door.admission.admit():
        pass
    assert door.rejections("queue_full") == 3


def test_an_engine_that_is_not_there() -> None:
    door = Door()
    assert door.admission.why_not_ready is None
    door.engine.why_not_ready = "the engine makes no progress"
    assert door.refusal("not_ready") == "the engine makes no progress; try again later"
    assert door.admission.why_not_ready == "the engine makes no progress"
    assert door.rejections("not_ready") == 1


def test_draining_waits_for_those_inside() -> None:
    door = Door()

    async def drain() -> None:
        await door.admission.wait_idle()
        with door.admission.arrive():
            door.admission.drain()
            assert "shutting down" in door.refusal("draining")
            # Its body may have arrived after the signal.
            with door.admission.admit():
                assert door.admission.num_inside == 1
            waiting = asyncio.create_task(door.admission.wait_idle())
            await asyncio.sleep(0)
            assert not waiting.done()
        await waiting
        assert door.admission.num_inside == 0

    asyncio.run(drain())
    assert door.admission.why_not_ready == "the server is shutting down"
    assert door.rejections("draining") == 1


def test_a_place_is_given_back_after_an_error() -> None:
    door = Door(max_requests=1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), door.admission.admit():
            raise ZeroDivisionError


def test_tokens_wait_until_the_first_answer_token() -> None:
    door = Door(max_requests=10, max_tokens=100)
    with door.admission.admit() as first, door.admission.admit() as second:
        first.join_queue(60)
        with pytest.raises(UnavailableError, match="prompt tokens") as caught:
            second.join_queue(41)
        assert caught.value.reason == "queued_tokens"
        second.join_queue(40)
        first.leave_queue()
        first.leave_queue()
        with door.admission.admit() as third:
            third.join_queue(60)
            with door.admission.admit() as fourth, pytest.raises(UnavailableError):
                fourth.join_queue(1)
    assert door.rejections("queued_tokens") == 2


def test_tokens_of_a_request_that_is_given_up_wait_no_more() -> None:
    door = Door(max_tokens=100)
    for _ in range(3):
        with door.admission.admit() as permit, contextlib.suppress(ZeroDivisionError):
            permit.join_queue(100)
            raise ZeroDivisionError
    with door.admission.admit() as permit:
        permit.join_queue(100)


def test_a_request_that_finds_nobody_waiting_is_taken_whatever_its_size() -> None:
    door = Door(max_tokens=100)
    with door.admission.admit() as large, door.admission.admit() as small:
        large.join_queue(500)
        with pytest.raises(UnavailableError):
            small.join_queue(1)


def test_requests_that_come_at_once_do_not_pass_the_limits_together() -> None:
    door = Door(max_requests=30, max_tokens=100)

    async def ask() -> bool:
        try:
            with door.admission.admit() as permit:
                await asyncio.sleep(0)
                permit.join_queue(10)
                await asyncio.sleep(0)
                return True
        except UnavailableError:
            return False

    async def burst() -> int:
        return sum(await asyncio.gather(*(ask() for _ in range(50))))

    assert asyncio.run(burst()) == 10
    assert door.rejections("queue_full") == 20
    assert door.rejections("queued_tokens") == 20
    with door.admission.admit() as permit:
        permit.join_queue(100)


def test_a_body_is_not_read_where_there_is_no_place() -> None:
    door = Door(max_requests=1)
    with door.admission.admit(), pytest.raises(UnavailableError), door.admission.arrive():
        raise NotImplementedError
    with door.admission.arrive(), door.admission.arrive():
        pass
    assert door.rejections("queue_full") == 1


def test_bytes_of_all_bodies_have_a_limit() -> None:
    door = Door(max_bytes=100)
    with door.admission.arrive() as first, door.admission.arrive() as second:
        first.take(60)
        with pytest.raises(UnavailableError) as caught:
            second.take(41)
        assert caught.value.reason == "body_bytes"
        second.take(40)
        first.release()
        first.release()
        second.take(60)
    with door.admission.arrive() as third:
        third.take(100)
    assert door.rejections("body_bytes") == 1


def test_a_body_is_not_read_where_nobody_of_the_usual_size_has_room() -> None:
    door = Door(max_requests=10, max_tokens=100)
    with door.admission.admit() as first, door.admission.admit() as second:
        for permit in (first, second):
            permit.join_queue(40)
            permit.hand_over()
        with pytest.raises(UnavailableError) as caught, door.admission.arrive():
            raise NotImplementedError
        assert caught.value.reason == "queued_tokens"
        first.leave_queue()
        with door.admission.arrive():
            pass


def test_one_client_s_flood_keeps_no_other_out_of_the_queue() -> None:
    door = Door(max_requests=4)
    flood, other = Client("flood"), Client("other")
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(door.admission.admit(flood))
        with pytest.raises(UnavailableError):
            stack.enter_context(door.admission.admit(flood))
        first = stack.enter_context(door.admission.admit(other))
        stack.enter_context(door.admission.admit(other))
        with pytest.raises(UnavailableError):
            stack.enter_context(door.admission.admit(other))
        # Its first token has come.
        first.leave_queue()
        stack.enter_context(door.admission.admit(other))
        with pytest.raises(UnavailableError), door.admission.arrive(flood):
            pass
    with door.admission.admit(flood):
        pass


def test_nor_its_long_prompts_and_large_bodies() -> None:
    door = Door(max_requests=10, max_tokens=100, max_bytes=100)
    flood, other = Client("flood"), Client("other")
    with (
        door.admission.admit(flood) as first,
        door.admission.admit(flood) as second,
        door.admission.admit(other) as third,
    ):
        first.join_queue(90)
        with pytest.raises(UnavailableError):
            second.join_queue(20)
        third.join_queue(50)
    with (
        door.admission.arrive(flood) as first_body,
        door.admission.arrive(flood) as second_body,
        door.admission.arrive(other) as third_body,
    ):
        first_body.take(90)
        with pytest.raises(UnavailableError):
            second_body.take(20)
        third_body.take(20)
        # It is memory: a quarter more, and no more.
        with pytest.raises(UnavailableError):
            third_body.take(20)
    with door.admission.arrive(flood) as body:
        body.take(100)


def test_whoever_holds_less_than_a_share_may_come_in_by_its_head_too() -> None:
    door = Door(max_requests=4, max_tokens=100)
    flood, other = Client("flood"), Client("other")
    with door.admission.admit(flood) as permit:
        permit.join_queue(90)
        permit.hand_over()
        assert door.admission.is_full(flood.owner)
        assert not door.admission.is_full(other.owner)
        with door.admission.arrive(other), door.admission.admit(other) as small:
            small.join_queue(50)
            assert door.admission.is_full(other.owner)
            with pytest.raises(UnavailableError), door.admission.arrive(other):
                pass


def test_several_answers_hold_a_place_each_of_a_share() -> None:
    door = Door(max_requests=4)
    flood, other = Client("flood"), Client("other")
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(door.admission.admit(flood))
        first, second = (stack.enter_context(door.admission.admit(other)) for _ in range(2))
        with pytest.raises(UnavailableError):
            first.join_queue(10, 2)
        second.leave_queue()
        first.join_queue(10, 2)
        with pytest.raises(UnavailableError):
            stack.enter_context(door.admission.admit(other))
        first.leave_queue()
        stack.enter_context(door.admission.admit(other))


def test_a_key_may_have_so_many_that_wait() -> None:
    door = Door(max_requests=10)
    limits = {"name": "a", "sha256": "0" * 64, "limits": {"queued": 1}}
    client = Client.of_entry(KeyEntry.model_validate(limits))
    with door.admission.admit(client) as permit:
        with pytest.raises(RateLimitError, match="1 requests of this API key wait"):
            door.admission.admit(client).__enter__()
        permit.leave_queue()
        with door.admission.admit(client):
            pass
