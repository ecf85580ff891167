"""Tests of one who asks: rates, what is reserved and comes back, rights."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skipserve.budgets.client import Client, Cost, Resource, Rights, Use
from skipserve.budgets.keys import KeyEntry
from skipserve.errors import InvalidRequestError, RateLimitError

pytestmark = pytest.mark.fast

SHA256 = "0" * 64


class Clock:
    """A clock that stands still unless a test moves it."""

    now = 0

    def __call__(self) -> int:
        return self.now


def entry(name: str = "team", **fields: Any) -> KeyEntry:
    return KeyEntry.model_validate({"name": name, "sha256": SHA256} | fields)


def limited(clock: Clock | None = None, **limits: int) -> Client:
    return Client.of_entry(entry(limits=limits), clock or Clock())


def cost(tokens: int, flops: int = 0) -> Cost:
    return {Resource.TOKENS: tokens, Resource.FLOPS: flops}


def test_questions_of_one_request_are_reserved_together_and_paid_with_the_last() -> None:
    client = limited(tokens_per_minute=100)
    with client.spend() as spending:
        with pytest.raises(InvalidRequestError, match="may cost 120 tokens"):
            spending.reserve(cost(60), cost(60))
        spending.reserve(cost(60), cost(40))
        spending.settle(Use(10, 0, 5))
        assert client.rate_headers["X-RateLimit-Remaining-Tokens"] == "0"
        spending.settle(Use(10, 0, 5))
        assert client.rate_headers["X-RateLimit-Remaining-Tokens"] == "70"
    assert client.used == Use(20, 0, 10)
    # One of them never began.
    with client.spend() as spending:
        spending.reserve(cost(40), cost(30))
        spending.settle(Use(10, 0, 5))
    assert client.rate_headers["X-RateLimit-Remaining-Tokens"] == "55"


def test_requests_of_a_minute_are_counted() -> None:
    clock = Clock()
    client = limited(clock, requests_per_minute=2)
    for _ in range(2):
        with client.spend():
            pass
    with pytest.raises(RateLimitError, match="2 requests a minute") as caught, client.spend():
        pass
    assert (caught.value.retry_after_seconds, caught.value.reason) == (30, "requests")
    clock.now += 30 * 10**9
    with client.spend():
        pass
    assert client.num_requests == 3


def test_what_is_reserved_and_not_used_comes_back() -> None:
    client = limited(tokens_per_minute=100, flops_per_minute=1000)
    with client.spend() as spending:
        spending.reserve(cost(80, 900))
        assert client.rate_headers["X-RateLimit-Remaining-Tokens"] == "20"
        spending.settle(Use(50, 30, 10, 400, 800))
    assert client.rate_headers == {
        "X-RateLimit-Limit-Tokens": "100",
        "X-RateLimit-Remaining-Tokens": "70",
        "X-RateLimit-Reset-Tokens": "18",
        "X-RateLimit-Limit-Flops": "1000",
        "X-RateLimit-Remaining-Flops": "600",
        "X-RateLimit-Reset-Flops": "24",
    }
    assert client.used == Use(50, 30, 10, 400, 800)


def test_a_request_that_never_runs_costs_nothing() -> None:
    client = limited(tokens_per_minute=100)
    with client.spend() as spending:
        spending.reserve(cost(100))
    assert client.rate_headers["X-RateLimit-Remaining-Tokens"] == "100"


def test_one_that_lacks_something_reserves_nothing() -> None:
    client = limited(tokens_per_minute=100, flops_per_minute=60)
    with client.spend() as first, client.spend() as second:
        first.reserve(cost(10, 50))
        with pytest.raises(RateLimitError, match="60 FLOPs a minute") as caught:
            second.reserve(cost(10, 40))
        assert (caught.value.retry_after_seconds, caught.value.reason) == (30, "flops")
        assert client.rate_headers["X-RateLimit-Remaining-Tokens"] == "90"


def test_what_could_never_be_paid_is_another_error() -> None:
    client = limited(tokens_per_minute=100)
    with client.spend() as spending, pytest.raises(InvalidRequestError, match="max_tokens") as it:
        spending.reserve(cost(101))
    assert "101 tokens" in it.value.message
    assert "100 a minute" in it.value.message


def test_so_many_are_under_way() -> None:
    client = limited(concurrent=2)
    with client.spend(), client.spend():
        with pytest.raises(RateLimitError, match="2 requests under way") as caught, client.spend():
            pass
        assert caught.value.reason == "concurrent"
    with client.spend():
        pass


def test_so_many_wait() -> None:
    client = limited(queued=3)
    client.check_queue(2)
    with pytest.raises(RateLimitError, match="3 requests of this API key wait"):
        client.check_queue(3)
    Client("somebody").check_queue(10**6)


@given(
    st.lists(st.tuples(st.integers(0, 120), st.integers(0, 120), st.integers(0, 5)), max_size=30)
)
def test_requests_at_once_never_use_more_than_there_is(
    requests: list[tuple[int, int, int]],
) -> None:
    client, used = limited(tokens_per_minute=200), 0

    async def ask(bound: int, took: int, num_turns: int) -> None:
        nonlocal used
        try:
            with client.spend() as spending:
                spending.reserve(cost(bound))
                for _ in range(num_turns):
                    await asyncio.sleep(0)
                spending.settle(Use(prompt_tokens=min(took, bound)))
                used += min(took, bound)
        except RateLimitError:
            pass

    async def burst() -> None:
        await asyncio.gather(*(ask(*request) for request in requests))

    asyncio.run(burst())
    assert used <= 200
    assert client.rate_headers["X-RateLimit-Remaining-Tokens"] == str(200 - used)


def test_a_changed_file_changes_limits_and_forgets_no_use() -> None:
    client = limited(tokens_per_minute=100)
    with client.spend() as spending:
        spending.reserve(cost(60))
        client.follow(entry(limits={"tokens_per_minute": 150, "flops_per_minute": 9}))
        spending.settle(Use(prompt_tokens=60, computed_flops=5))
    assert client.rate_headers["X-RateLimit-Remaining-Tokens"] == "90"
    # The request had reserved none of these.
    assert client.rate_headers["X-RateLimit-Remaining-Flops"] == "9"
    client.follow(entry())
    assert client.rate_headers == {}


def test_rights() -> None:
    assert Rights().has("anything")
    client = Client.of_entry(entry(policies=["full"], admin=True))
    assert client.rights == Rights(frozenset({"full"}), takes_inline=False)
    assert client.is_admin
    client.follow(entry(policies=["full"], inline_policies=True))
    assert client.rights.takes_inline
    client.follow(entry(inline_policies=False))
    assert (client.rights.has("x"), client.rights.takes_inline) == (True, False)


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("", "testclient", False),
    ],
)
def test_whose_an_address_is(first: str, second: str, is_same: bool) -> None:
    clients = Client.of_address(first), Client.of_address(second)
    assert (clients[0].owner == clients[1].owner) == is_same
    assert (clients[0].owner_number == clients[1].owner_number) == is_same


def test_the_engine_s_number_fits_a_message() -> None:
    assert 0 <= Client(b"x" * 32).owner_number < 2**56
    assert Client.of_entry(entry("a")).owner_number != Client.of_entry(entry("b")).owner_number
