"""The way to the ledger by Ray Serve's handle: msgpack there, msgpack back."""

from contextvars import Context
from typing import Any

import msgspec
from ray.serve.handle import DeploymentHandle

from skipserve.budgets.accounts import Total
from skipserve.budgets.client import Resource, Use
from skipserve.ray.budgets import Answer, Who

_pack = msgspec.msgpack.encode


class LedgerOwner:
    """What counts for all ingresses, as one of them sees it.

    Args:
        ledger: the handle.
        ingress: the name of that one.
    """

    def __init__(self, ledger: DeploymentHandle[Any], ingress: str) -> None:
        self._ledger = ledger
        self._ingress = ingress

    async def open(self, ticket: str, who: Who) -> Answer:
        """Count a request as under way."""
        packed = await self._call("open", self._ingress, ticket, _pack(who))
        return msgspec.msgpack.decode(packed, type=Answer)

    async def reserve(self, ticket: str, bounds: list[dict[Resource, int]]) -> Answer:
        """Reserve the most that a request may cost."""
        packed = await self._call("reserve", ticket, _pack(bounds))
        return msgspec.msgpack.decode(packed, type=Answer)

    async def close(self, ticket: str, used: Use | None) -> None:
        """Let a request that has ended pay."""
        await self._call("close", ticket, _pack(used))

    async def count(self, who: Who, used: Use | None) -> None:
        """Count a request that has ended."""
        await self._call("count", _pack(who), _pack(used))

    async def totals(self, owners: list[bytes]) -> list[Total | None]:
        """Return what clients have used."""
        packed = await self._call("totals", owners)
        return msgspec.msgpack.decode(packed, type=list[Total | None])

    async def _call(self, method: str, *arguments: Any) -> Any:
        # As in `ServeHandle`: each call in a context of its own.
        return await Context().run(getattr(self._ledger, method).remote, *arguments)
