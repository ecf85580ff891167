"""Who asks a question, for all that is done before the engine."""

import time
from dataclasses import dataclass, field

from skipserve.budgets.client import Client


@dataclass(frozen=True)
class Asker:
    """Who asks.

    Attributes:
        client: what may be asked for, and whose turns are taken.
        isolation: what its cached work is kept apart by; None where it shares with others.
        asked: when, on the clock of `perf_counter`.
    """

    client: Client = field(default_factory=lambda: Client(""))
    isolation: bytes | None = None
    asked: float = field(default_factory=time.perf_counter)
