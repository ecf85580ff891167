"""Runs a load: in a closed loop, where each client waits for its answer, or in an open one."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from time import perf_counter

from skipserve_client.command_group import CommandError
from skipserve_client.errors import ClientError
from skipserve_client.load.asking import Job
from skipserve_client.load.records import Record

_LOOK_SECONDS = 0.02

Sending = Callable[[Job, float], Awaitable[Record]]


@dataclass
class Run:
    """A load under way.

    Attributes:
        records: of the requests that ended, in the order of their ends.
        num_sent: requests that were begun.
        begun: when the load began, by `perf_counter`.
        seconds: from there to the end of the last request; 0 before the end.
        cpu_share: processor time of this process over that time.
        delays_seconds: how late this process came to what was due, looked at now and then: by so
            much, answers may have been seen late. The other programs of a busy machine show here.
    """

    send: Sending
    on_record: Callable[[Record], None] = lambda _: None
    records: list[Record] = field(default_factory=list)
    num_sent: int = 0
    begun: float = 0.0
    seconds: float = 0.0
    cpu_share: float = 0.0
    delays_seconds: list[float] = field(default_factory=list)

    @property
    def num_running(self) -> int:
        """Requests under way."""
        return self.num_sent - len(self.records)

    async def closed(
        self, jobs: Iterator[Job], concurrency: int, requests: int | None, seconds: float | None
    ) -> None:
        """Let so many clients ask, each as soon as it has its answer.

        Args:
            jobs: what is asked.
            concurrency: clients.
            requests: so many in all; None for no limit.
            seconds: none is begun later; None for no limit.
        """
        limited = islice(jobs, requests)

        async def ask() -> None:
            while seconds is None or perf_counter() - self.begun < seconds:
                job = next(limited, None)
                if job is None:
                    return
                await self._take(job)

        async with self._going() as group:
            for _ in range(concurrency):
                group.create_task(ask())

    async def open(self, jobs: Iterator[Job]) -> None:
        """Send each request when it is due, whatever has become of those before."""
        async with self._going() as group:
            for job in jobs:
                assert job.scheduled_seconds is not None
                wait = self.begun + job.scheduled_seconds - perf_counter()
                # Also where none is due to wait for: else nothing else would come to its turn.
                await asyncio.sleep(max(0.0, wait))
                group.create_task(self._take(job))

    async def _take(self, job: Job) -> None:
        self.num_sent += 1
        record = await self.send(job, self.begun)
        self.records.append(record)
        self.on_record(record)

    @asynccontextmanager
    async def _going(self) -> AsyncIterator[asyncio.TaskGroup]:
        """Yield what runs the clients, and note when they begin and end, however they end."""
        self.begun, cpu = perf_counter(), time.process_time()
        noting = asyncio.create_task(self._note_delays())
        try:
            async with asyncio.TaskGroup() as group:
                yield group
        except* (ClientError, CommandError, OSError) as errors:
            raise errors.exceptions[0] from None
        finally:
            noting.cancel()
            self.seconds = perf_counter() - self.begun
            self.cpu_share = (time.process_time() - cpu) / self.seconds

    async def _note_delays(self) -> None:
        while True:
            due = perf_counter() + _LOOK_SECONDS
            await asyncio.sleep(_LOOK_SECONDS)
            self.delays_seconds.append(perf_counter() - due)
