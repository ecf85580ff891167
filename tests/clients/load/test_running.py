"""Closed and open loops, with requests that end when the test says so."""

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest

from skipserve_client import PictureError
from skipserve_client.load.asking import Job
from skipserve_client.load.records import Record
from skipserve_client.load.running import Run

pytestmark = pytest.mark.fast

Making = Callable[..., Record]


def job(index: int, time: float | None = None) -> Job:
    return Job(index, "full", None, "?", time, b"")


def jobs(count: int) -> Iterator[Job]:
    return (job(index) for index in range(count))


class Answering:
    """Answers after a few turns of the loop, and counts how many wait for it."""

    def __init__(self, make: Making) -> None:
        self._make = make
        self.num_waiting = 0
        self.most_waiting = 0
        self.asked: list[int] = []

    async def send(self, job: Job, begun: float) -> Record:
        self.asked.append(job.index)
        self.num_waiting += 1
        self.most_waiting = max(self.most_waiting, self.num_waiting)
        for _ in range(1 + job.index % 3):
            await asyncio.sleep(0)
        self.num_waiting -= 1
        return self._make(index=job.index)


@pytest.mark.parametrize("concurrency", [1, 3, 50])
def test_a_closed_loop_has_so_many_under_way(record: Making, concurrency: int) -> None:
    answering = Answering(record)
    run = Run(answering.send)
    asyncio.run(run.closed(jobs(100), concurrency, 20, None))
    assert sorted(it.index for it in run.records) == answering.asked == list(range(20))
    assert answering.most_waiting == min(concurrency, 20)
    assert (run.num_sent, run.num_running) == (20, 0)
    assert run.seconds > 0
    assert run.cpu_share > 0


def test_a_closed_loop_begins_none_after_its_time(record: Making) -> None:
    answering = Answering(record)
    run = Run(answering.send)
    asyncio.run(run.closed(jobs(100), 4, None, 0.0))
    assert run.records == []


def test_an_open_loop_waits_for_no_answer(record: Making) -> None:
    async def loading() -> Run:
        answered = asyncio.Event()

        async def send(job: Job, begun: float) -> Record:
            if job.index == 9:
                answered.set()
            await answered.wait()
            return record(index=job.index)

        run = Run(send)
        await run.open(job(index, 0.001 * index) for index in range(10))
        return run

    assert len(asyncio.run(loading()).records) == 10


def test_an_open_loop_sends_none_before_its_time(record: Making) -> None:
    sent: list[tuple[float, float]] = []

    async def send(job: Job, begun: float) -> Record:
        assert job.scheduled_seconds is not None
        sent.append((job.scheduled_seconds, asyncio.get_running_loop().time() - begun))
        return record()

    run = Run(send)
    asyncio.run(run.open(job(index, 0.01 * index) for index in range(5)))
    assert len(sent) == 5
    # The loop's clock is that of `perf_counter`; it may round.
    assert all(at >= due - 0.001 for due, at in sent)


def test_records_are_told_as_they_come(record: Making) -> None:
    told: list[Record] = []
    run = Run(Answering(record).send, told.append)
    asyncio.run(run.closed(jobs(5), 2, None, None))
    assert told == run.records


def test_a_load_that_is_ended_keeps_what_it_has(record: Making) -> None:
    async def loading() -> Run:
        async def send(job: Job, begun: float) -> Record:
            if job.index == 3:
                task.cancel()
                await asyncio.Event().wait()
            return record(index=job.index)

        run = Run(send)
        task = asyncio.ensure_future(run.closed(jobs(9), 1, None, None))
        with pytest.raises(asyncio.CancelledError):
            await task
        return run

    run = asyncio.run(loading())
    assert ([it.index for it in run.records], run.num_running) == ([0, 1, 2], 1)
    assert run.seconds > 0


@pytest.mark.parametrize("is_open", [True, False])
def test_what_cannot_be_asked_ends_the_load(record: Making, is_open: bool) -> None:
    def broken() -> Iterator[Job]:
        yield job(0, 0.0)
        raise PictureError("no picture")

    run = Run(Answering(record).send)
    loading = run.open(broken()) if is_open else run.closed(broken(), 1, None, None)
    with pytest.raises(PictureError):
        asyncio.run(loading)


def test_a_process_that_is_held_up_notices(record: Making) -> None:
    async def send(job: Job, begun: float) -> Record:
        await asyncio.sleep(0.05)
        time.sleep(0.1)
        return record()

    run = Run(send)
    asyncio.run(run.closed(jobs(2), 1, None, None))
    assert max(run.delays_seconds) > 0.05
