"""Floods a server on one core with clients that never wait, in turns with as many as it takes."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import IO, Annotated

import typer
from flood import Replies, flood, milliseconds
from options import Model, Output
from report import RESULTS, Row, show, write
from timing import track

# Under the flood, of what there is without.
TARGET_THROUGHPUT, TARGET_P99 = 0.9, 2.0
# All of the few are let in: so many run, and so many wait.
NUM_FEW, NUM_RUNNING, NUM_WAITING = 24, 8, 24

_TICKS = os.sysconf("SC_CLK_TCK")
_BODY = {
    "messages": [{"role": "user", "content": "How many red squares are there?"}],
    "max_tokens": 4,
    "temperature": 0,
}


@dataclass(frozen=True)
class Server:
    """A server on one core.

    Attributes:
        url: where it listens.
        process_id: of the process that speaks HTTP.
        engine_id: of the engine's.
    """

    url: str
    process_id: int
    engine_id: int


@dataclass(frozen=True)
class Round:
    """What came of some clients in a time.

    Attributes:
        replies: to them.
        server_seconds: processor time of the process that speaks HTTP.
        engine_seconds: of the engine.
    """

    replies: Replies
    server_seconds: float
    engine_seconds: float

    @property
    def throughput(self) -> float:
        """Answers a second."""
        return len(self.replies.accepted) / self.replies.seconds

    @property
    def per_cpu_second(self) -> float:
        """Answers a second of processor time: what a core has to itself, or shares."""
        return len(self.replies.accepted) / (self.server_seconds + self.engine_seconds)

    @property
    def p99(self) -> float:
        """Milliseconds of all answers but a hundredth."""
        return milliseconds(self.replies.accepted, 99)


def main(
    model: Model = "demo",
    clients: Annotated[int, typer.Option(min=NUM_FEW, help="Of the flood.")] = 200,
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each turn.")] = 5.0,
    repeats: Annotated[int, typer.Option(min=1, help="Timed turns, after one that is not.")] = 8,
    output: Output = RESULTS / "overload.json",
) -> None:
    """Compare what is answered under a flood, on kept connections and on new ones, and without."""
    kinds = {"few": (NUM_FEW, False), "kept": (clients, False), "new": (clients, True)}
    turns: dict[str, list[Round]] = {kind: [] for kind in kinds}
    with _on_one_core(model) as server:
        for number in track(repeats + 1, "overload"):
            for kind, (num_clients, reconnects) in kinds.items():
                taken = _take(server, num_clients, seconds, reconnects=reconnects)
                if number:
                    turns[kind].append(taken)
    rows = [
        *_rows_of(f"{NUM_FEW} clients", turns["few"]),
        *_flood_rows(f"{clients} clients", turns["few"], turns["kept"]),
        *_flood_rows(f"{clients} that reconnect", turns["few"], turns["new"]),
    ]
    show(rows)
    write("overload", rows, sys.argv[1:], output)


@contextmanager
def _on_one_core(model: str) -> Iterator[Server]:
    """Run a server on the first core that there is, and this process on the others."""
    first, *others = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {first})
    command = [
        *(sys.executable, "-m", "skipserve_client", "serve", "--model", model, "--port", "0"),
        *("--num-threads", "1", "--max-running-requests", str(NUM_RUNNING)),
        *("--max-queued-requests", str(NUM_WAITING), "--log-format", "json"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    with process, process.stderr as lines:
        try:
            os.sched_setaffinity(0, set(others) or {first})
            url = _read_url(lines)
            # A pipe that nobody reads would hold the server up.
            threading.Thread(target=lines.read, daemon=True).start()
            yield Server(url, process.pid, _engine_of(process.pid))
        finally:
            os.sched_setaffinity(0, {first, *others})
            process.kill()


def _read_url(lines: IO[bytes]) -> str:
    for line in lines:
        if found := re.search(r'serves .* on (http://[^\s"]+)', line.decode()):
            return found[1]
    raise RuntimeError("the server ended before it was ready")


def _engine_of(process_id: int) -> int:
    for child in Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split():
        if b"skipserve.service.process" in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    raise RuntimeError("the server has no engine")


def _take(server: Server, num_clients: int, seconds: float, *, reconnects: bool) -> Round:
    before = _cpu_seconds(server.process_id), _cpu_seconds(server.engine_id)
    replies = flood(server.url, _BODY, num_clients, seconds, reconnects=reconnects)
    if not replies.accepted or (num_clients > NUM_RUNNING + NUM_WAITING and not replies.refused):
        # Too short: the machine was at something else, or the queue is not full yet.
        return _take(server, num_clients, 2 * seconds, reconnects=reconnects)
    after = _cpu_seconds(server.process_id), _cpu_seconds(server.engine_id)
    return Round(replies, after[0] - before[0], after[1] - before[1])


def _cpu_seconds(process_id: int) -> float:
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _rows_of(name: str, turns: list[Round]) -> Iterator[Row]:
    yield Row(f"{name}/answers", median(it.throughput for it in turns), "1/s")
    yield Row(f"{name}/answers/p99", median(it.p99 for it in turns), "ms")
    yield Row(f"{name}/answers/of a CPU second", median(it.per_cpu_second for it in turns), "1/s")


def _flood_rows(name: str, few: list[Round], flooded: list[Round]) -> Iterator[Row]:
    """Yield what a flood does, each turn beside that of the few that came just before it."""
    yield from _rows_of(name, flooded)
    pairs = list(zip(few, flooded, strict=True))
    share = 100 * median(many.throughput / each.throughput for each, many in pairs)
    yield Row(f"{name}/share of the throughput", share, "%", 100 * TARGET_THROUGHPUT)
    of_cpu = 100 * median(many.per_cpu_second / each.per_cpu_second for each, many in pairs)
    yield Row(f"{name}/share of it a CPU second", of_cpu, "%")
    times = median(many.p99 / each.p99 for each, many in pairs)
    yield Row(f"{name}/p99 over that of the few", times, "x", TARGET_P99, is_limit=True)
    refused = [it.replies.refused for it in flooded]
    rate = median(len(it.replies.refused) / it.replies.seconds for it in flooded)
    yield Row(f"{name}/refusals", rate, "1/s")
    for percent in (50, 99):
        late = median(milliseconds(it, percent) for it in refused)
        yield Row(f"{name}/refusals/p{percent}", late, "ms")
    yield Row(f"{name}/refusals/CPU of each", median(_cost_ms(*pair) for pair in pairs), "ms")


def _cost_ms(few: Round, flooded: Round) -> float:
    """Return what a refusal costs: what the answers do not explain, at their price without."""
    of_answers = few.server_seconds / len(few.replies.accepted) * len(flooded.replies.accepted)
    num_refused = len(flooded.replies.refused)
    return 1000 * (flooded.server_seconds - of_answers) / num_refused if num_refused else 0.0


if __name__ == "__main__":
    typer.run(main)
