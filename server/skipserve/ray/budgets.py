"""What clients use, counted in one place for several ingresses. No Ray."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from skipserve.budgets.accounts import Holding, OwnAccounts, Total
from skipserve.budgets.client import Client, Cost, Resource, Spending, Use
from skipserve.budgets.keys import KeyLimits
from skipserve.errors import SkipserveError, UnavailableError
from skipserve.ray.wire import Fault

# The one place answers in milliseconds, or it is gone.
_ANSWER_SECONDS = 5.0


class Who(msgspec.Struct, frozen=True):
    """A client as ingresses know it.

    Attributes:
        owner: what it is known by.
        name: of its key in the keys file; None for others.
        limits: by their names; what is left out has no limit.
    """

    owner: bytes
    name: str | None
    limits: dict[str, int]

    @classmethod
    def of(cls, client: Client) -> "Who":
        """Return a client that has a key."""
        assert isinstance(client.owner, bytes)
        return cls(client.owner, client.name, client.limits.model_dump(exclude_none=True))


class Answer(msgspec.Struct, frozen=True):
    """What is said to an ingress.

    Attributes:
        rates: what replies say of the client's rates.
        fault: why the request may not go on; None where it may.
    """

    rates: dict[str, str]
    fault: Fault | None = None


@dataclass
class _Ticket:
    """A request under way.

    Attributes:
        ingress: where it came in.
        spending: what it holds.
        holding: gives that back.
    """

    ingress: str
    spending: Spending
    holding: ExitStack


class SharedBudgets:
    """Holds what all ingresses count.

    Args:
        clock: the time in nanoseconds.
    """

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._clients: dict[bytes, Client] = {}
        self._tickets: dict[str, _Ticket] = {}

    def open(self, ingress: str, ticket: str, who: Who) -> Answer:
        """Count a request as under way, unless its client may not have one more."""
        client, stack = self._client(who), ExitStack()
        try:
            spending = stack.enter_context(client.spend())
        except SkipserveError as error:
            return _refusal(client, error)
        self._tickets[ticket] = _Ticket(ingress, spending, stack)
        return Answer(client.rate_headers)

    def reserve(self, ticket: str, bounds: list[dict[Resource, int]]) -> Answer:
        """Reserve the most that a request may cost."""
        held = self._tickets.get(ticket)
        if held is None:
            error = UnavailableError("what the request may use is not known any more; try again")
            return Answer({}, Fault.of("", error, is_lost=False))
        client = held.spending.client
        try:
            held.spending.reserve(*bounds)
        except SkipserveError as error:
            return _refusal(client, error)
        return Answer(client.rate_headers)

    def close(self, ticket: str, used: Use | None) -> None:
        """Let a request that has ended pay what it took; None where no engine had it."""
        held = self._tickets.pop(ticket, None)
        if held is None:
            return
        if used is not None:
            held.spending.settle(used)
        held.holding.close()

    def count(self, who: Who, used: Use | None) -> None:
        """Count a request that has ended, of a client without limits."""
        client = self._client(who)
        client.num_requests += 1
        client.used += used or Use()

    def totals(self, owners: Iterable[bytes]) -> list[Total | None]:
        """Return what clients have used; None of those that nobody has heard of."""
        known = (self._clients.get(owner) for owner in owners)
        return [None if it is None else Total(it.name, it.num_requests, it.used) for it in known]

    def keep(self, ingresses: Collection[str]) -> None:
        """Give back what requests hold whose ingresses are gone."""
        for ticket in [it for it, held in self._tickets.items() if held.ingress not in ingresses]:
            self.close(ticket, None)

    def _client(self, who: Who) -> Client:
        client = self._clients.get(who.owner)
        if client is None:
            client = self._clients[who.owner] = Client(who.owner, who.name, self._clock)
        client.limit(KeyLimits(**who.limits))
        return client


class Owner(Protocol):
    """The way to the one place."""

    async def open(self, ticket: str, who: Who) -> Answer:
        """As `SharedBudgets.open`."""

    async def reserve(self, ticket: str, bounds: list[dict[Resource, int]]) -> Answer:
        """As `SharedBudgets.reserve`."""

    async def close(self, ticket: str, used: Use | None) -> None:
        """As `SharedBudgets.close`."""

    async def count(self, who: Who, used: Use | None) -> None:
        """As `SharedBudgets.count`."""

    async def totals(self, owners: list[bytes]) -> list[Total | None]:
        """As `SharedBudgets.totals`."""


class SharedAccounts:
    """Counts what clients with keys use where all ingresses do; others are counted here.

    Args:
        owner: the way to that place.
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._own = OwnAccounts()
        self._telling: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def spend(self, client: Client) -> AsyncIterator[Holding]:
        """Count a request as under way, and hold what it reserves until it has ended.

        Raises:
            RateLimitError: as many are under way as may be, or in this minute.
            UnavailableError: it cannot be counted now.
        """
        if not isinstance(client.owner, bytes):
            async with self._own.spend(client) as holding:
                yield holding
            return
        who, ticket = Who.of(client), uuid.uuid4().hex
        held = _SharedHolding(self._owner, client, ticket, is_limited=bool(who.limits))
        try:
            if held.is_limited:
                await held.take(self._owner.open(ticket, who))
            yield held
        finally:
            ended = (
                self._owner.close(ticket, held.used)
                if held.is_limited
                else self._owner.count(who, held.used)
            )
            self._tell(ended)

    async def totals(self, clients: Iterable[Client]) -> tuple[Total, ...]:
        """Return what each of some clients has used."""
        asked = list(clients)
        owners = [it.owner for it in asked if isinstance(it.owner, bytes)]
        told = dict(zip(owners, await _answered(self._owner.totals(owners)), strict=True))
        totals = []
        for client in asked:
            total = told.get(client.owner) if isinstance(client.owner, bytes) else None
            totals.append(total or Total(client.name, client.num_requests, client.used))
        return tuple(totals)

    def _tell(self, news: Coroutine[Any, Any, None]) -> None:
        """Say what nobody waits for."""
        telling = asyncio.create_task(news)
        self._telling.add(telling)
        telling.add_done_callback(self._forget)

    def _forget(self, telling: asyncio.Task[None]) -> None:
        self._telling.discard(telling)
        if not telling.cancelled():
            # One that could not be told is given back when the ingress ends.
            telling.exception()


class _SharedHolding:
    """What one request holds of a client that all ingresses count.

    Attributes:
        is_limited: whether its client has limits.
        used: what its questions took; None where no engine had one.
    """

    def __init__(self, owner: Owner, client: Client, ticket: str, *, is_limited: bool) -> None:
        self.is_limited = is_limited
        self.used: Use | None = None
        self._owner = owner
        self._client = client
        self._ticket = ticket

    async def take(self, asking: Coroutine[Any, Any, Answer]) -> None:
        """Wait for an answer, and go on if that says so.

        Raises:
            SkipserveError: it says why not.
            UnavailableError: there is none.
        """
        answer = await _answered(asking)
        if answer.rates:
            self._client.tell_rates(answer.rates)
        if answer.fault is not None:
            raise answer.fault.error

    async def reserve(self, *bounds: Cost) -> None:
        """Reserve the most that the request may cost."""
        if self.is_limited:
            told = [dict(bound) for bound in bounds]
            await self.take(self._owner.reserve(self._ticket, told))

    def settle(self, use: Use) -> None:
        """Note what a question took."""
        self.used = use if self.used is None else self.used + use


async def _answered(asking: Coroutine[Any, Any, Any]) -> Any:
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            return await asking
    except SkipserveError:
        raise
    except Exception as error:
        raise UnavailableError("what keys use cannot be counted now; try again later") from error


def _refusal(client: Client, error: SkipserveError) -> Answer:
    return Answer(client.rate_headers, Fault.of("", error, is_lost=False))
