"""Tests of who gives way when there are too many connections."""

import resource
from dataclasses import dataclass

import pytest

from skipserve.api.connections import ConnectionLimits, Connections, room_for_connections

pytestmark = pytest.mark.fast


@dataclass(eq=False)
class Client:
    """A connection that remembers whether it had to give way."""

    address: str = "a"
    gave_way: bool = False
    is_owed: bool = False

    def give_way(self) -> None:
        self.gave_way = True

    def cut_off(self) -> bool:
        return self.is_owed


def connections(num: int, per_address: int = 100) -> Connections:
    return Connections(ConnectionLimits(num, per_address, 1.0, 1.0), lambda error: None)


def test_whoever_waits_longest_gives_way() -> None:
    all_of_them = connections(3)
    first, second, third, fourth = (Client() for _ in range(4))
    for client in (first, second, third):
        assert all_of_them.enter(client)
    all_of_them.note(first, is_idle=False)
    all_of_them.note(third, is_idle=True)
    assert all_of_them.enter(fourth)
    assert [it.gave_way for it in (first, second, third, fourth)] == [False, True, False, False]
    all_of_them.leave(second)
    all_of_them.note(first, is_idle=True)
    assert all_of_them.enter(Client())
    assert (first.gave_way, third.gave_way) == (False, True)


def test_nobody_who_is_served_gives_way() -> None:
    all_of_them = connections(2)
    busy = [Client(), Client()]
    for client in busy:
        assert all_of_them.enter(client)
        all_of_them.note(client, is_idle=False)
    assert not all_of_them.enter(Client())
    all_of_them.leave(busy[0])
    all_of_them.leave(busy[0])
    assert all_of_them.enter(Client())
    assert not any(it.gave_way for it in busy)


def test_an_address_has_a_limit_of_its_own() -> None:
    all_of_them = connections(10, per_address=2)
    other, first, second = Client("b"), Client("a"), Client("a")
    for client in (other, first, second, Client("a")):
        assert all_of_them.enter(client)
    assert (other.gave_way, first.gave_way, second.gave_way) == (False, True, False)


def test_clients_without_a_whole_reply_are_counted_at_the_end() -> None:
    all_of_them = connections(10)
    for is_owed in (True, False, True):
        all_of_them.enter(Client(is_owed=is_owed))
    assert all_of_them.cut_off() == 2


def test_there_is_room_for_as_many_as_there_are_descriptors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: raised.append(limits))
    for limits, wanted, room in [
        ((256, 4096), 1024, 1024),
        ((256, 512), 1024, 384),
        ((4096, 4096), 1024, 1024),
        ((256, resource.RLIM_INFINITY), 1024, 1024),
        ((64, 64), 1024, 1),
    ]:
        monkeypatch.setattr(resource, "getrlimit", lambda _, limits=limits: limits)
        assert room_for_connections(wanted) == room
    assert raised == [(1152, 4096), (512, 512), (1152, resource.RLIM_INFINITY)]
