"""Lets honest and hostile clients at a server together, and says what the honest ones see of it.

As a script: `soak.py 300` starts the demo as it is shipped, for so many seconds. Its pool
of pages is full before anyone comes: what grows then is not what settings bound.
"""

import random
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
from full_pool import SHIPPED_POOL, fill_pool
from hostile_bodies import CHAT
from hostile_traffic import do_one
from pictures import data_uri, encode, question, random_picture
from process_tree import resident_bytes
from server_process import ServerProcess

MIB = 2**20
# The p99 of a plain "Hi" may grow by so much.
MOST_TIMES = 4.0
# The smallest of the limits that are shipped.
MOST_BYTES = 2048 * MIB
# After the first minute memory may grow by so much: an allocator's noise.
MOST_GROWTH = 64 * MIB
_SETTLING_SECONDS = 60.0
_NUM_GOOD = 6
_LOOK_SECONDS = 0.25
_PAUSE_SECONDS = 0.2


@dataclass
class Seen:
    """What honest clients saw, and what it took.

    Attributes:
        quiet, mixed: seconds that a plain "Hi" took without and with hostile clients.
        num_equal: answers that were what they are without.
        wrong: the others.
        deeds: what hostile clients did.
        memory: of the server and its children, by seconds since the hostile ones came.
        faults: what went wrong with a hostile one that must not.
    """

    quiet: list[float] = field(default_factory=list)
    mixed: list[float] = field(default_factory=list)
    num_equal: int = 0
    wrong: list[Any] = field(default_factory=list)
    deeds: list[str] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)
    faults: list[BaseException] = field(default_factory=list)

    @property
    def times_slower(self) -> float:
        """The p99 of a plain "Hi" over what it was."""
        return float(np.percentile(self.mixed, 99) / np.percentile(self.quiet, 99))

    @property
    def most_bytes(self) -> int:
        """The most memory that was seen at once."""
        return max(size for _, size in self.memory)

    def growth(self, span_seconds: float) -> int:
        """Return how many bytes more there were in the last so many seconds than in the first.

        Of each the median: how many costly pictures are decoded at once is chance, and lasts for
        moments. What a server keeps is there in every look.
        """
        last = self.memory[-1][0] - span_seconds
        first_sizes = [size for seconds, size in self.memory if seconds <= span_seconds]
        last_sizes = [size for seconds, size in self.memory if seconds > last]
        return int(np.median(last_sizes) - np.median(first_sizes))


def soak(server: ServerProcess, seconds: float, num_hostile: int = 2, seed: int = 0) -> Seen:
    """Let honest and hostile clients at a server for a time, the honest ones alone before."""
    seen, questions = Seen(), _good_questions()
    with server.client() as client:
        answers = [_content(client.post(CHAT, json=body)) for body in questions]
        for _ in range(2):
            _ask_all(client, questions, answers, seen, seen.quiet)
        begun = time.monotonic()
        with _hostile(server, num_hostile, seed, seen), _watched(server, begun, seen):
            while time.monotonic() - begun < seconds:
                _ask_all(client, questions, answers, seen, seen.mixed)
    return seen


def _good_questions() -> list[dict[str, Any]]:
    pictures = [data_uri(encode(random_picture(50, 40, seed=seed))) for seed in range(_NUM_GOOD)]
    return [question("What is it?", url, max_tokens=8, temperature=0) for url in pictures]


def _ask_all(
    client: httpx.Client,
    questions: list[dict[str, Any]],
    answers: list[Any],
    seen: Seen,
    taken: list[float],
) -> None:
    """Ask the questions whose answers are known, and time a plain one beside each."""
    for body, answer in zip(questions, answers, strict=True):
        given = _content(client.post(CHAT, json=body))
        if given == answer:
            seen.num_equal += 1
        else:
            seen.wrong.append(given)
        begun = time.monotonic()
        reply = client.post(CHAT, json=question("Hi", max_tokens=1, temperature=0))
        taken.append(time.monotonic() - begun)
        if reply.status_code != 200:
            seen.wrong.append(reply.text)


def _content(reply: httpx.Response) -> Any:
    whole = reply.json()
    return whole["choices"][0]["message"]["content"] if reply.status_code == 200 else whole


@contextmanager
def _hostile(server: ServerProcess, number: int, seed: int, seen: Seen) -> Iterator[None]:
    """Have so many hostile clients at work, one deed after the other."""
    is_over = threading.Event()

    def work(index: int) -> None:
        chance = random.Random(seed * 1000 + index)
        while not is_over.wait(_PAUSE_SECONDS):
            try:
                seen.deeds.append(do_one(server.url, chance))
            except AssertionError as error:
                seen.faults.append(error)

    with ThreadPoolExecutor(number) as threads:
        workers = [threads.submit(work, index) for index in range(number)]
        try:
            yield
        finally:
            is_over.set()
    # One that broke would have left the server in peace since.
    for worker in workers:
        worker.result()


@contextmanager
def _watched(server: ServerProcess, begun: float, seen: Seen) -> Iterator[None]:
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(_LOOK_SECONDS):
            now = time.monotonic() - begun
            seen.memory.append((now, resident_bytes(server.process_id)))

    with ThreadPoolExecutor(1) as threads:
        threads.submit(look)
        try:
            yield
        finally:
            is_over.set()


def _report(seen: Seen, seconds: float) -> bool:
    """Print what was seen; return whether all of it is as it should be."""
    span = min(_SETTLING_SECONDS, seconds / 2)
    growth = seen.growth(span)
    checks = {
        f"{seen.num_equal} good answers equal, {len(seen.wrong)} not": not seen.wrong,
        f'a plain "Hi": p99 {1000 * np.percentile(seen.mixed, 99):.0f} ms, '
        f"{seen.times_slower:.1f} times its quiet value; at most {MOST_TIMES:g}": (
            seen.times_slower < MOST_TIMES
        ),
        f"memory at most {seen.most_bytes / MIB:.0f} MiB; at most {MOST_BYTES / MIB:.0f}": (
            seen.most_bytes < MOST_BYTES
        ),
        f"memory from the first {span:.0f} s to the last grew by {growth / MIB:.0f} MiB; at most "
        f"{MOST_GROWTH / MIB:.0f}": growth <= MOST_GROWTH,
        f"{len(seen.deeds)} hostile deeds, {len(seen.faults)} answered as none may be": (
            not seen.faults
        ),
    }
    for text, is_met in checks.items():
        sys.stdout.write(f"{'met   ' if is_met else 'MISSED'}  {text}\n")
    for wrong in (*seen.wrong[:5], *seen.faults[:5]):
        sys.stdout.write(f"        {wrong!r}\n")
    return all(checks.values())


if __name__ == "__main__":
    SECONDS = float(sys.argv[1])
    with ServerProcess("demo", *SHIPPED_POOL) as demo:
        fill_pool(demo)
        sys.exit(not _report(soak(demo, SECONDS), SECONDS))
