"""Tests of who gets a place, and when."""

import asyncio

import pytest

from skipserve.media.places import Budget, Owner, Places

pytestmark = pytest.mark.fast


class Scene:
    """Holders of places, in the order in which they came to them."""

    def __init__(self, num_places: int) -> None:
        self.places = Places(num_places)
        self.served: list[Owner] = []
        self._leave: list[asyncio.Event] = []

    def ask(self, owner: Owner) -> asyncio.Task[None]:
        return asyncio.create_task(self._hold(owner))

    async def _hold(self, owner: Owner) -> None:
        async with self.places.hold(owner):
            self.served.append(owner)
            self._leave.append(asyncio.Event())
            await self._leave[-1].wait()

    async def leave(self) -> None:
        """Let the one go that came first."""
        self._leave.pop(0).set()
        await settle()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_owners_take_turns() -> None:
    """The first one of `a` found a free place, and another one of `a` had asked before `b`."""

    async def run() -> list[Owner]:
        scene = Scene(1)
        tasks = [scene.ask(owner) for owner in "aaaabbc"]
        await settle()
        for _ in tasks:
            await scene.leave()
        return scene.served

    assert "".join(map(str, asyncio.run(run()))) == "aabcaba"


def test_no_owner_holds_all_places() -> None:
    async def run() -> None:
        scene = Scene(3)
        tasks = [scene.ask("a") for _ in range(5)]
        await settle()
        assert scene.served == ["a", "a"]
        assert scene.places.num_waiting == 3
        tasks.append(scene.ask("b"))
        await settle()
        assert scene.served == ["a", "a", "b"]
        for _ in tasks:
            await scene.leave()
        assert scene.places.num_waiting == 0
        assert len(scene.served) == 6

    asyncio.run(run())


def test_a_single_place_is_for_all() -> None:
    async def run() -> None:
        scene = Scene(1)
        tasks = [scene.ask("a") for _ in range(3)]
        await settle()
        for _ in tasks:
            await scene.leave()
        assert scene.served == ["a"] * 3

    asyncio.run(run())


@pytest.mark.parametrize("is_told_late", [False, True])
def test_who_gives_up_holds_nothing_back(is_told_late: bool) -> None:
    async def run() -> None:
        scene = Scene(1)
        first, second, third = scene.ask("a"), scene.ask("b"), scene.ask("c")
        await settle()
        second.cancel()
        if not is_told_late:
            await settle()
        await scene.leave()
        assert scene.served == ["a", "c"]
        await scene.leave()
        assert scene.places.num_waiting == 0
        await asyncio.gather(first, second, third, return_exceptions=True)
        assert second.cancelled()
        fourth = scene.ask("b")
        await settle()
        assert scene.served[2:] == ["b"]
        await scene.leave()
        await fourth

    asyncio.run(run())


def test_who_gives_up_in_the_moment_of_the_turn_hands_it_on() -> None:
    async def run() -> None:
        scene = Scene(1)
        scene.ask("a")
        second = scene.ask("b")
        scene.ask("c")
        await settle()
        scene._leave.pop(0).set()  # the turn is handed over, and nobody has run since
        await asyncio.sleep(0)
        second.cancel()
        await settle()
        assert scene.served[-1] == "c"
        await scene.leave()

    asyncio.run(run())


def test_a_budget_is_lent_in_order_and_comes_back() -> None:
    async def run() -> list[int]:
        budget, lent = Budget(10), []
        leave = {amount: asyncio.Event() for amount in (6, 7, 1)}

        async def hold(amount: int) -> None:
            async with budget.hold(amount):
                lent.append(amount)
                await leave[amount].wait()

        tasks = [asyncio.create_task(hold(amount)) for amount in (6, 7, 1)]
        await settle()
        assert lent == [6]
        leave[6].set()
        await asyncio.gather(tasks[0])
        await settle()
        for event in leave.values():
            event.set()
        await asyncio.gather(*tasks)
        return lent

    assert asyncio.run(run()) == [6, 7, 1]


def test_who_wants_more_than_there_is_gets_all() -> None:
    async def run() -> None:
        budget = Budget(10)
        async with budget.hold(11):
            waiting = asyncio.create_task(_take(budget))
            await settle()
            assert not waiting.done()
            waiting.cancel()
            await settle()
        await _take(budget)

    asyncio.run(run())


async def _take(budget: Budget) -> None:
    async with budget.hold(1):
        pass
