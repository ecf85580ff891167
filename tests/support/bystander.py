"""Someone who asks a server for little, in a process of its own: what else is done holds it not up.

As a script: `bystander.py URL` prints an empty line, asks once at least, and until its input
ends, then prints what it saw as JSON.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx
from hostile_bodies import CHAT
from pictures import question

_PAUSE_SECONDS = 0.2
_PATIENCE_SECONDS = 60.0


@dataclass
class Sight:
    """What a bystander saw.

    Attributes:
        hi, health: how long a plain "Hi" and a probe took, in seconds.
        num_refused: how many of them were not answered with a 200.
    """

    hi: list[float] = field(default_factory=list)
    health: list[float] = field(default_factory=list)
    num_refused: int = 0

    def ask(self, url: str, method: str, path: str, body: object) -> float:
        """Ask on a new connection; return how long it took."""
        begun = time.monotonic()
        try:
            with httpx.Client(base_url=url, timeout=_PATIENCE_SECONDS, trust_env=False) as client:
                self.num_refused += client.request(method, path, json=body).status_code != 200
        except httpx.TransportError:
            self.num_refused += 1
        return time.monotonic() - begun


@contextmanager
def bystanding(url: str) -> Iterator[Sight]:
    """Have a bystander at a server while the context lasts; then it is known what it saw.

    However short that is, it has asked each question once.
    """
    sight = Sight()
    with subprocess.Popen(
        [sys.executable, __file__, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        # Attacks may be over in less time than it takes to start.
        process.stdout.readline()
        try:
            yield sight
        finally:
            output, _ = process.communicate()
    seen: dict[str, Any] = json.loads(output)
    vars(sight).update(seen)


def _watch(url: str) -> Sight:
    sight, is_over = Sight(), threading.Event()

    def probe() -> None:
        sight.health.append(sight.ask(url, "GET", "/health", None))

    def say_hi() -> None:
        sight.hi.append(sight.ask(url, "POST", CHAT, question("Hi", max_tokens=1)))

    def ask_on(ask: Callable[[], None]) -> None:
        ask()
        while not is_over.wait(_PAUSE_SECONDS):
            ask()

    threads = [threading.Thread(target=ask_on, args=(ask,)) for ask in (probe, say_hi)]
    sys.stdout.write("\n")
    sys.stdout.flush()
    for thread in threads:
        thread.start()
    sys.stdin.read()
    is_over.set()
    for thread in threads:
        thread.join()
    return sight


if __name__ == "__main__":
    json.dump(asdict(_watch(sys.argv[1])), sys.stdout)
