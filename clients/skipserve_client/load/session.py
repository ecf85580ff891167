"""One load from beginning to end: the server, a warm-up, the load, what is shown meanwhile."""

import asyncio
import contextlib
import json
import resource
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.live import Live

from skipserve_client.calls import ChatOptions
from skipserve_client.discovery import check_choices
from skipserve_client.load.arrivals import Spacing
from skipserve_client.load.asking import Asking, row_policy, until
from skipserve_client.load.pictures import PictureSource, Repeats
from skipserve_client.load.records import Record
from skipserve_client.load.report import SCHEMA, Report, line_of, live_view
from skipserve_client.load.rows import Row
from skipserve_client.load.running import Run
from skipserve_client.load.sending import Lines, Sender
from skipserve_client.load.server import ServerInfo, look_at
from skipserve_client.load.slo import Slo
from skipserve_client.policy_choice import PolicyChoice

_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LIVE_SECONDS = 0.5
_LINE_SECONDS = 5.0


@dataclass(frozen=True)
class Order:
    """What to load a server with.

    Attributes:
        url: of the server.
        model: of its names, which to ask for; None for its first.
        options: of each request.
        weights: how often each policy is asked for; none for the server's default alone.
        pictures: None for texts alone.
        repeats: which of them a request shows.
        rows: what is asked, in turn; where the load follows a file of arrivals, its lines.
        concurrency: clients of a closed loop; None for an open one.
        rate: requests a second of an open loop; None where the rows say when.
        spacing: of these.
        requests: so many at most.
        duration_seconds: none is begun later.
        num_warm_up: requests before, which do not count; None for one a policy.
        slo: what is good, as it was written and as it is read.
        output: a file for the records.
        flags: what was asked for, for the records.
    """

    url: str
    api_key: str | None
    model: str | None
    options: ChatOptions
    weights: Mapping[PolicyChoice, float]
    pictures: PictureSource | None
    repeats: Repeats
    rows: Sequence[Row]
    concurrency: int | None
    rate: float | None
    spacing: Spacing
    requests: int | None
    duration_seconds: float | None
    num_warm_up: int | None
    timeout_seconds: float
    retries: int
    seed: int
    slo: tuple[str, Slo] | None
    output: Path | None
    flags: Mapping[str, Any]

    @property
    def way(self) -> str:
        """What kind of load it is, in words."""
        if self.concurrency is not None:
            return f"closed loop, {self.concurrency} at a time"
        if self.rate is None:
            return "open loop, arrivals of a file"
        return f"open loop, {self.rate:g} requests/s"

    def times(self) -> Iterator[float]:
        """Yield when the requests of an open loop are due."""
        rows = (row.seconds or 0.0 for row in self.rows)
        times = rows if self.rate is None else self.spacing.times(self.rate, f"{self.seed}/times")
        return until(times, self.requests, self.duration_seconds)


def carry_out(order: Order) -> Report:
    """Load the server; progress goes to the error stream, records to the file.

    Raises:
        ClientError: the server cannot be reached, or does not tell what it is.
        CommandError: it lacks a policy or a model.
        OSError: the file cannot be written.
    """
    _allow_connections()
    return asyncio.run(_carry_out(order))


def _allow_connections() -> None:
    """Let this process have as many connections as it may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _carry_out(order: Order) -> Report:
    console = Console(stderr=True)
    server = await look_at(order.url, order.api_key, order.model)
    named = [it for it in map(row_policy, order.rows) if it is not None]
    check_choices([*order.weights, *named], server.policies, "--policies")
    about = _about(order, server)
    lines = Lines(order.url, order.api_key, order.retries)
    sender = Sender(lines, order.timeout_seconds, tells_tokens=server.is_skipserve)
    with _writer(order.output, about) as write:
        run = Run(sender.send, write)
        try:
            is_interrupted = await _until_stopped(_load(order, server, run, console))
        finally:
            await lines.close()
    return Report(run, about, order.way, order.slo, is_interrupted)


async def _load(order: Order, server: ServerInfo, run: Run, console: Console) -> None:
    asking = _asking(order, server)
    with console.status("Warming up ..."):
        number = order.num_warm_up
        for job in asking.warm_up(max(1, len(order.weights)) if number is None else number):
            await run.send(job, perf_counter())
    async with _display(run, console):
        if order.concurrency is None:
            await run.open(asking.jobs(order.times()))
        else:
            clients, requests, seconds = order.concurrency, order.requests, order.duration_seconds
            await run.closed(asking.jobs(), clients, requests, seconds)


def _asking(order: Order, server: ServerInfo) -> Asking:
    options = order.options.copy()
    if server.is_skipserve:
        # What earlier loads have shown to the server is as if it had never been shown.
        options["cache_salt"] = secrets.token_hex(16)
    if order.model is not None or not server.is_skipserve:
        options["model"] = server.model.id
    return Asking(
        order.seed,
        options,
        order.weights,
        server.unnamed,
        order.pictures,
        order.repeats,
        order.rows,
        tells_tokens=server.is_skipserve,
    )


def _about(order: Order, server: ServerInfo) -> dict[str, Any]:
    """Return what says which load this is."""
    return {
        "kind": "load",
        "schema": SCHEMA,
        "begun_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "skipserve load",
        "flags": dict(order.flags),
        "seed": order.seed,
        "server": server.as_json(),
    }


async def _until_stopped(load: Coroutine[Any, Any, None]) -> bool:
    """Carry a load out, and return whether it was told to end before it was done."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(load)

    def stop() -> None:
        # The next one ends all of it, should the connections not close.
        for number in _ENDINGS:
            loop.remove_signal_handler(number)
        task.cancel()

    for number in _ENDINGS:
        loop.add_signal_handler(number, stop)
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


@contextmanager
def _writer(path: Path | None, about: Mapping[str, Any]) -> Iterator[Callable[[Record], None]]:
    """Yield what writes a record down as soon as it is there."""
    if path is None:
        yield lambda _: None
        return
    with path.open("w", encoding="utf-8") as file:

        def write(value: Mapping[str, Any]) -> None:
            file.write(json.dumps(value) + "\n")

        write(about)
        yield lambda record: write(record.as_json())


@asynccontextmanager
async def _display(run: Run, console: Console) -> AsyncIterator[None]:
    """Show how a load goes: a table that changes, or a line now and then."""
    is_live = console.is_terminal and not console.is_dumb_terminal
    showing = _show_live if is_live else _show_lines
    task = asyncio.create_task(showing(run, console))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _show_live(run: Run, console: Console) -> None:
    begun = perf_counter()
    with Live(console=console, transient=True, auto_refresh=False) as live:
        while True:
            live.update(live_view(run, perf_counter() - begun), refresh=True)
            await asyncio.sleep(_LIVE_SECONDS)


async def _show_lines(run: Run, console: Console) -> None:
    begun = perf_counter()
    while True:
        await asyncio.sleep(_LINE_SECONDS)
        line = line_of(run, perf_counter() - begun)
        console.print(line, markup=False, highlight=False, soft_wrap=True)
