"""What there is only so much of, shared among those who wait: places by turns, memory in order."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

# The digest of a key, or an address.
Owner = bytes | str


class Places:
    """Gives places to owners by turns; where there are several, no owner holds them all.

    Args:
        num_places: how many there are.
    """

    def __init__(self, num_places: int) -> None:
        self._num_free = num_places
        self._most_each = max(num_places - 1, 1)
        self._held: Counter[Owner] = Counter()
        # Owners in the order of their next turns.
        self._waiting: dict[Owner, deque[asyncio.Future[None]]] = {}

    @property
    def num_waiting(self) -> int:
        """How many wait for a place."""
        return sum(map(len, self._waiting.values()))

    @asynccontextmanager
    async def hold(self, owner: Owner) -> AsyncGenerator[None, None]:
        """Hold a place, as soon as it is the owner's turn."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append(turn)
        self._hand_out()
        try:
            await turn
        except asyncio.CancelledError:
            self._give_up(owner, turn)
            raise
        try:
            yield
        finally:
            self._give_back(owner)

    def _give_up(self, owner: Owner, turn: asyncio.Future[None]) -> None:
        if not turn.cancelled():
            # The place came in the same moment.
            self._give_back(owner)
        elif turn in (turns := self._waiting.get(owner, deque())):
            turns.remove(turn)
            if not turns:
                del self._waiting[owner]

    def _give_back(self, owner: Owner) -> None:
        self._num_free += 1
        self._held[owner] -= 1
        if not self._held[owner]:
            del self._held[owner]
        self._hand_out()

    def _hand_out(self) -> None:
        while self._num_free and (owner := self._next_owner()) is not None:
            turns = self._waiting.pop(owner)
            turn = turns.popleft()
            if turns:
                self._waiting[owner] = turns
            # One that was given up need not know it yet.
            if not turn.done():
                turn.set_result(None)
                self._num_free -= 1
                self._held[owner] += 1

    def _next_owner(self) -> Owner | None:
        return next((it for it in self._waiting if self._held[it] < self._most_each), None)


class Budget:
    """Lends amounts of what there is, to those first who asked first.

    Args:
        total: what there is.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._left = total
        # A small one does not pass a large one, which would wait for ever.
        self._line = asyncio.Lock()
        self._returned = asyncio.Event()

    @asynccontextmanager
    async def hold(self, amount: int) -> AsyncGenerator[None, None]:
        """Hold an amount, or all that there is, as soon as there is so much."""
        amount = min(amount, self._total)
        async with self._line:
            while amount > self._left:
                self._returned.clear()
                await self._returned.wait()
            self._left -= amount
        try:
            yield
        finally:
            self._left += amount
            self._returned.set()
