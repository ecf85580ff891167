"""Decides which sequences run in the next step: first come, first served, one at a time."""

from collections import deque

from skipserve.engine.sequence import Sequence
from skipserve.engine.types import Stage


class Scheduler:
    """Holds the sequences that are under way, in their order of arrival."""

    def __init__(self) -> None:
        self._running: list[Sequence] = []
        self._waiting: deque[Sequence] = deque()

    @property
    def num_running(self) -> int:
        """Sequences that take part in the next step."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Sequences that have not started."""
        return len(self._waiting)

    def add(self, sequence: Sequence) -> None:
        """Line a sequence up."""
        self._waiting.append(sequence)
        self._admit()

    def remove(self, request_id: str) -> bool:
        """Forget a request wherever it is; return whether it was here."""
        found = [s for s in (*self._running, *self._waiting) if s.request.id == request_id]
        self._running = [s for s in self._running if s not in found]
        self._waiting = deque(s for s in self._waiting if s not in found)
        self._admit()
        return bool(found)

    def schedule(self) -> list[Sequence]:
        """Return the sequences whose pending rows run now."""
        return list(self._running)

    def retire(self) -> None:
        """Let go of the sequences that are complete."""
        self._running = [s for s in self._running if s.finish_reason is None]
        self._admit()

    def drop_running(self) -> list[Sequence]:
        """Forget the sequences of the last step and return them."""
        dropped, self._running = self._running, []
        self._admit()
        return dropped

    def _admit(self) -> None:
        if self._waiting and not self._running:
            sequence = self._waiting.popleft()
            sequence.mark(Stage.QUEUE)
            self._running.append(sequence)
