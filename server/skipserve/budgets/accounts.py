"""Where the use of clients is counted and held to their limits: here, unless somebody else does."""

from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from skipserve.budgets.client import Client, Cost, Spending, Use


@dataclass(frozen=True)
class Total:
    """What a client has used in all.

    Attributes:
        name: of its key in the keys file; None for others.
        num_requests: how many it has sent.
        used: what those that have ended took.
    """

    name: str | None
    num_requests: int
    used: Use


class Holding(Protocol):
    """What one request holds of its client's rates."""

    async def reserve(self, *bounds: Cost) -> None:
        """Reserve the most that the request may cost: all of it, or nothing.

        Args:
            bounds: the most that each of its questions may cost, all of the same resources.

        Raises:
            InvalidRequestError: the client can never have so much.
            RateLimitError: it has not so much now.
        """

    def settle(self, use: Use) -> None:
        """Note what a question took. With the last one the request is paid."""


class Accounts(Protocol):
    """Counts what clients use."""

    def spend(self, client: Client) -> AbstractAsyncContextManager[Holding]:
        """Count a request as under way, and hold what it reserves until it has ended.

        Raises:
            RateLimitError: as many are under way as may be, or in this minute.
        """

    async def totals(self, clients: Iterable[Client]) -> tuple[Total, ...]:
        """Return what each of some clients has used."""


class OwnAccounts:
    """Counts here: for a server that is alone."""

    @asynccontextmanager
    async def spend(self, client: Client) -> AsyncIterator[Holding]:
        """Count a request as under way, and hold what it reserves until it has ended.

        Raises:
            RateLimitError: as many are under way as may be, or in this minute.
        """
        with client.spend() as spending:
            yield _OwnHolding(spending)

    async def totals(self, clients: Iterable[Client]) -> tuple[Total, ...]:
        """Return what each of some clients has used."""
        return tuple(Total(it.name, it.num_requests, it.used) for it in clients)


class _OwnHolding:
    """What one request holds of a client that is counted here."""

    def __init__(self, spending: Spending) -> None:
        self._spending = spending

    async def reserve(self, *bounds: Cost) -> None:
        """Reserve the most that the request may cost."""
        self._spending.reserve(*bounds)

    def settle(self, use: Use) -> None:
        """Note what a question took."""
        self._spending.settle(use)
