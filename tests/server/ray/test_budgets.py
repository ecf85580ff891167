"""Limits that several ingresses hold together."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import msgspec
import pytest

from skipserve.budgets.accounts import Total
from skipserve.budgets.client import Client, Cost, Resource, Use
from skipserve.budgets.keys import KeyEntry
from skipserve.errors import InvalidRequestError, RateLimitError, UnavailableError
from skipserve.ray.budgets import Answer, SharedAccounts, SharedBudgets, Who

pytestmark = pytest.mark.fast

T = TypeVar("T")


class Clock:
    """A clock that stands still unless a test moves it."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


class Wire:
    """The way of an ingress to the one place: all that travels is msgpack."""

    def __init__(self, shared: SharedBudgets, ingress: str) -> None:
        self._shared, self._ingress = shared, ingress
        self.is_cut = False

    def _there(self, value: T, type_: Any) -> T:
        if self.is_cut:
            raise ConnectionError
        there: T = msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=type_)
        return there

    async def open(self, ticket: str, who: Who) -> Answer:
        answer = self._shared.open(self._ingress, ticket, self._there(who, Who))
        return self._there(answer, Answer)

    async def reserve(self, ticket: str, bounds: list[dict[Resource, int]]) -> Answer:
        answer = self._shared.reserve(ticket, self._there(bounds, list[dict[Resource, int]]))
        return self._there(answer, Answer)

    async def close(self, ticket: str, used: Use | None) -> None:
        self._shared.close(ticket, self._there(used, Use | None))

    async def count(self, who: Who, used: Use | None) -> None:
        self._shared.count(self._there(who, Who), self._there(used, Use | None))

    async def totals(self, owners: list[bytes]) -> list[Total | None]:
        return self._there(self._shared.totals(owners), list[Total | None])


class Ingress:
    """An ingress with the clients of the one keys file."""

    def __init__(self, shared: SharedBudgets, name: str, **limits: int) -> None:
        entry = {"name": "team", "sha256": "0" * 64, "limits": limits}
        self.client = Client.of_entry(KeyEntry.model_validate(entry))
        self.wire = Wire(shared, name)
        self.accounts = SharedAccounts(self.wire)

    async def ask(self, tokens: int, used: int | None, during: Callable[[], Any] = int) -> None:
        """Send a request that may cost so many tokens and takes so many; None fails before."""
        async with self.accounts.spend(self.client) as holding:
            await holding.reserve(cost(tokens))
            outcome = during()
            if asyncio.iscoroutine(outcome):
                await outcome
            if used is not None:
                holding.settle(Use(prompt_tokens=used))
        # What nobody waits for.
        for _ in range(3):
            await asyncio.sleep(0)


def cost(tokens: int) -> Cost:
    return {Resource.TOKENS: tokens, Resource.FLOPS: 0}


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def two(shared: SharedBudgets, **limits: int) -> tuple[Ingress, Ingress]:
    return Ingress(shared, "one", **limits), Ingress(shared, "two", **limits)


def test_two_ingresses_have_one_rate() -> None:
    clock = Clock()
    one, two_ = two(SharedBudgets(clock), tokens_per_minute=100)

    async def scenario() -> None:
        await one.ask(60, 50)
        with pytest.raises(RateLimitError, match="100 tokens a minute") as caught:
            await two_.ask(60, 50)
        assert caught.value.retry_after_seconds == 6
        assert two_.client.rate_headers["X-RateLimit-Remaining-Tokens"] == "50"
        await two_.ask(50, 20)
        clock.now += 60 * 10**9
        await one.ask(100, 1)

    run(scenario())


def test_two_ingresses_have_one_count_of_requests_under_way() -> None:
    one, two_ = two(SharedBudgets(), concurrent=1)

    async def scenario() -> None:
        async def try_elsewhere() -> None:
            with pytest.raises(RateLimitError, match="1 requests under way"):
                await two_.ask(1, 1)

        await one.ask(1, 1, try_elsewhere)
        await two_.ask(1, 1)

    run(scenario())


def test_what_can_never_be_paid_is_invalid() -> None:
    one, _ = two(SharedBudgets(), tokens_per_minute=100)

    async def scenario() -> None:
        with pytest.raises(InvalidRequestError, match="may cost 101 tokens") as caught:
            await one.ask(101, 1)
        assert caught.value.param == "max_tokens"

    run(scenario())


@pytest.mark.parametrize("limits", [{}, {"tokens_per_minute": 1000}], ids=["free", "limited"])
def test_use_is_counted_once_for_all(limits: dict[str, int]) -> None:
    one, two_ = two(SharedBudgets(), **limits)

    async def scenario() -> None:
        assert await one.accounts.totals([one.client]) == (Total("team", 0, Use()),)
        await one.ask(10, 7)
        await two_.ask(10, 5)
        # One that failed before the engine had it.
        await two_.ask(10, None)
        expected = Total("team", 3, Use(prompt_tokens=12))
        assert await one.accounts.totals([one.client]) == (expected,)
        assert await two_.accounts.totals([two_.client]) == (expected,)

    run(scenario())


def test_what_a_lost_ingress_held_comes_back() -> None:
    clock = Clock()
    shared = SharedBudgets(clock)
    one, two_ = two(shared, tokens_per_minute=100, concurrent=1)

    async def scenario() -> None:
        async def lose() -> None:
            shared.keep({"one", "two"})
            with pytest.raises(RateLimitError):
                await two_.ask(60, 1)
            shared.keep({"two"})
            await two_.ask(100, 1)

        await one.ask(60, 50, lose)
        # It comes back, and what it says of that request is not heard.
        assert two_.client.rate_headers["X-RateLimit-Remaining-Tokens"] == "0"
        await two_.ask(99, 1)

    run(scenario())


def test_without_the_one_place_what_has_limits_is_refused() -> None:
    limited, _ = two(SharedBudgets(), tokens_per_minute=100)
    free, _ = two(SharedBudgets())
    limited.wire.is_cut = free.wire.is_cut = True

    async def scenario() -> None:
        with pytest.raises(UnavailableError, match="cannot be counted"):
            await limited.ask(1, 1)
        await free.ask(1, 1)

    run(scenario())


def test_a_ledger_that_was_started_anew_knows_of_no_request() -> None:
    one, _ = two(SharedBudgets(), tokens_per_minute=100)

    async def scenario() -> None:
        async with one.accounts.spend(one.client) as holding:
            one.wire._shared = SharedBudgets()
            with pytest.raises(UnavailableError, match="not known any more"):
                await holding.reserve(cost(10))

    run(scenario())


def test_whoever_has_no_key_is_counted_where_it_asks() -> None:
    accounts = SharedAccounts(Wire(SharedBudgets(), "one"))
    client = Client.of_address("10.0.0.1")

    async def scenario() -> None:
        async with accounts.spend(client) as holding:
            await holding.reserve(cost(10))
            holding.settle(Use(prompt_tokens=3))
        expected = Total(None, 1, Use(prompt_tokens=3))
        assert await accounts.totals([client]) == (expected,)

    run(scenario())
