"""How many connections there may be, and which gives way: one whose client keeps it waiting."""

import logging
import resource
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import h11

from skipserve.api.access_log import LineLimit
from skipserve.api.door import Refusal
from skipserve.errors import SkipserveError

logger = logging.getLogger("skipserve.connections")

# For the engine, the model's files, the log, and a probe that comes when all else is taken.
_KEPT_DESCRIPTORS = 128


@dataclass(frozen=True)
class ConnectionLimits:
    """What connections may cost.

    Attributes:
        num_connections: how many there may be.
        num_per_address: how many of one address.
        header_seconds: how long a client may take to send the head of a request.
        write_seconds: how long it may leave what it was sent unread.
    """

    num_connections: int
    num_per_address: int
    header_seconds: float
    write_seconds: float


class TurnAway(Protocol):
    """Says how a request is turned away by its head."""

    def __call__(self, request: h11.Request, address: str, *, is_first: bool) -> Refusal | None:
        """Return how; None where it may come in."""


def _let_in(request: h11.Request, address: str, *, is_first: bool) -> None:
    """Turn nobody away."""


class Connection(Protocol):
    """One client's connection."""

    address: str

    def give_way(self) -> None:
        """End it, so that another can come in."""

    def cut_off(self) -> bool:
        """End it, for the server ends; return whether its client was owed anything."""


class Connections:
    """All connections of a server.

    Whoever comes when there is no room takes the place of the one whose client has let it wait
    longest: for a request, the rest of one, or for what was sent to be read. So whatever number of
    clients that do nothing has come, a probe gets in.

    Attributes:
        limits: what they may cost.
        record_refusal: hears of an error that a client is told before it has a request.
        lines: how many lines may be logged of all this.
        turn_away: says how a request is turned away by its head; None where it may come in.

    Args:
        limits: as above.
        record_refusal: as above.
        turn_away: as above.
    """

    def __init__(
        self,
        limits: ConnectionLimits,
        record_refusal: Callable[[SkipserveError], None],
        turn_away: TurnAway = _let_in,
    ) -> None:
        self.limits = limits
        self.record_refusal = record_refusal
        self.lines = LineLimit(logger)
        self.turn_away = turn_away
        self._open: set[Connection] = set()
        self._num_of_address: Counter[str] = Counter()
        # In the order in which they began to wait for their clients.
        self._idle: dict[Connection, None] = {}

    def enter(self, connection: Connection) -> bool:
        """Take a new connection in; False where there is no room, and none that gives way."""
        address = connection.address
        if self._num_of_address[address] >= self.limits.num_per_address:
            own = (other for other in self._idle if other.address == address)
            if not self._make_room(next(own, None)):
                return False
        if len(self._open) >= self.limits.num_connections and not self._make_room(
            next(iter(self._idle), None)
        ):
            return False
        self._open.add(connection)
        self._num_of_address[address] += 1
        self._idle[connection] = None
        return True

    def leave(self, connection: Connection) -> None:
        """Forget a connection that has ended; called again, it does nothing."""
        if connection not in self._open:
            return
        self._open.remove(connection)
        self._idle.pop(connection, None)
        self._num_of_address[connection.address] -= 1
        if not self._num_of_address[connection.address]:
            del self._num_of_address[connection.address]

    def note(self, connection: Connection, *, is_idle: bool) -> None:
        """Note whether a connection waits for its client; it keeps its turn where it did before."""
        if not is_idle:
            self._idle.pop(connection, None)
        elif connection in self._open:
            self._idle.setdefault(connection)

    def cut_off(self) -> int:
        """End all connections; return how many clients are left without a whole reply."""
        num_owed = sum([connection.cut_off() for connection in tuple(self._open)])
        self.lines.close()
        return num_owed

    def _make_room(self, connection: Connection | None) -> bool:
        if connection is None:
            return False
        self.leave(connection)
        connection.give_way()
        return True


def room_for_connections(wanted: int) -> int:
    """Let this process have the descriptors that so many connections need, as far as it may.

    Returns:
        How many connections there are descriptors for.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted + _KEPT_DESCRIPTORS
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(min(wanted, most - _KEPT_DESCRIPTORS), 1)
