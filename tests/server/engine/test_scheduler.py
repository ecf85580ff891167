"""First come, first served, one at a time."""

import pytest
from fake_decoder import make_request

from skipserve.engine.scheduler import Scheduler
from skipserve.engine.sequence import Sequence
from skipserve.engine.types import Stage

pytestmark = pytest.mark.fast


def _scheduler(*names: str, max_tokens: int = 1) -> Scheduler:
    scheduler = Scheduler()
    for name in names:
        scheduler.add(Sequence(make_request(name, max_tokens=max_tokens)))
    return scheduler


def _scheduled(scheduler: Scheduler) -> list[str]:
    return [sequence.request.id for sequence in scheduler.schedule()]


def test_nothing_is_scheduled_where_there_is_nothing() -> None:
    assert _scheduled(Scheduler()) == []


def test_the_first_runs_until_it_is_complete() -> None:
    scheduler = _scheduler("a", "b", "c", max_tokens=2)
    (first,) = scheduler.schedule()
    first.generated_ids.append(9)
    scheduler.retire()
    assert _scheduled(scheduler) == ["a"]
    assert (scheduler.num_running, scheduler.num_waiting) == (1, 2)
    first.generated_ids.append(9)
    scheduler.retire()
    assert _scheduled(scheduler) == ["b"]
    assert (scheduler.num_running, scheduler.num_waiting) == (1, 1)


def test_waiting_time_is_booked_when_a_sequence_starts() -> None:
    scheduler = _scheduler("a", "b")
    assert Stage.QUEUE in scheduler.schedule()[0].stage_seconds
    scheduler.remove("a")
    assert Stage.QUEUE in scheduler.schedule()[0].stage_seconds


def test_removing_the_running_one_starts_the_next() -> None:
    scheduler = _scheduler("a", "b")
    assert scheduler.remove("a")
    assert _scheduled(scheduler) == ["b"]


def test_removing_a_waiting_one_leaves_the_order() -> None:
    scheduler = _scheduler("a", "b", "c")
    assert scheduler.remove("b")
    assert _scheduled(scheduler) == ["a"]
    assert scheduler.remove("a")
    assert _scheduled(scheduler) == ["c"]


def test_only_an_exact_id_is_removed() -> None:
    scheduler = _scheduler("request-1", "request-12")
    assert not scheduler.remove("request")
    assert not scheduler.remove("")
    assert scheduler.remove("request-1")
    assert _scheduled(scheduler) == ["request-12"]


def test_dropping_the_running_ones_starts_the_next() -> None:
    scheduler = _scheduler("a", "b")
    assert [s.request.id for s in scheduler.drop_running()] == ["a"]
    assert _scheduled(scheduler) == ["b"]
    assert (scheduler.num_running, scheduler.num_waiting) == (1, 0)
