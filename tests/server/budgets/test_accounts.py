"""The use of clients, counted here."""

import asyncio

import pytest

from skipserve.budgets.accounts import OwnAccounts, Total
from skipserve.budgets.client import Client, Resource, Use
from skipserve.budgets.keys import KeyEntry
from skipserve.errors import RateLimitError

pytestmark = pytest.mark.fast


def test_a_request_is_paid_by_its_client() -> None:
    entry = KeyEntry.model_validate(
        {"name": "team", "sha256": "0" * 64, "limits": {"tokens_per_minute": 100, "concurrent": 1}}
    )
    client, accounts = Client.of_entry(entry, lambda: 0), OwnAccounts()

    async def ask() -> None:
        async with accounts.spend(client) as holding:
            with pytest.raises(RateLimitError, match="under way"):
                async with accounts.spend(client):
                    pass
            await holding.reserve({Resource.TOKENS: 60, Resource.FLOPS: 0})
            assert client.rate_headers["X-RateLimit-Remaining-Tokens"] == "40"
            holding.settle(Use(prompt_tokens=10))
        assert client.rate_headers["X-RateLimit-Remaining-Tokens"] == "90"
        expected = Total("team", 1, Use(prompt_tokens=10))
        assert await accounts.totals([client]) == (expected,)

    asyncio.run(ask())
