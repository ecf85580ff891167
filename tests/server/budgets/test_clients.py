"""Tests of finding whoever has a key, and of a keys file that changes."""

import asyncio
import logging
from collections.abc import Sequence

import pytest

from skipserve.budgets.clients import Clients
from skipserve.budgets.keys import KeyEntry, KeysFileError, digest_of_key

pytestmark = pytest.mark.fast


def entry(name: str, *keys: str) -> KeyEntry:
    digests = [digest_of_key(key).hex() for key in keys]
    return KeyEntry.model_validate({"name": name, "sha256": digests})


class File:
    """A keys file that a test changes."""

    def __init__(self, *entries: KeyEntry) -> None:
        self.says: Sequence[KeyEntry] | KeysFileError = entries

    def read(self) -> Sequence[KeyEntry]:
        if isinstance(self.says, KeysFileError):
            raise self.says
        return self.says


def name_of(clients: Clients, key: str) -> str | None:
    client = clients.find(digest_of_key(key))
    return "nobody" if client is None else client.name


def test_without_keys_none_is_wanted() -> None:
    assert not Clients().are_wanted
    assert not Clients().are_isolated
    assert Clients(["k"]).are_wanted
    assert Clients([], None, File(entry("a", "1")).read).are_wanted


def test_keys_of_both_kinds_are_found() -> None:
    clients = Clients(["flag"], None, File(entry("a", "1", "2"), entry("b", "3")).read)
    assert [name_of(clients, key) for key in ("1", "2", "3", "flag", "4")] == [
        *("a", "a", "b", None, "nobody")
    ]
    assert list(clients.names) == ["a", "b"]
    assert [client.name for client in clients] == ["a", "b", None]


def test_a_cache_is_shared_unless_there_are_two() -> None:
    one = Clients(["k"])
    client = one.find(digest_of_key("k"))
    assert client is not None
    assert one.isolation(client) is None
    assert one.tells_cached(client)
    two = Clients(["k"], None, File(entry("a", "1", "2")).read)
    salts = {
        two.isolation(client)
        for key in ("k", "1", "2")
        if (client := two.find(digest_of_key(key))) is not None
    }
    assert len(salts - {None}) == 2
    assert None not in salts


@pytest.mark.parametrize(("keys", "tells"), [(["k"], True), (["k", "l"], False)])
def test_who_shares_a_cache_with_others_hears_nothing_of_it(keys: list[str], tells: bool) -> None:
    clients = Clients(keys, isolates=False)
    client = clients.find(digest_of_key("k"))
    assert client is not None
    assert clients.isolation(client) is None
    assert clients.tells_cached(client) == tells


def test_a_file_is_read_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    file = File(entry("a", "1"), entry("b", "2"))
    clients = Clients(["flag"], None, file.read)
    before = clients.find(digest_of_key("1"))
    file.says = [entry("a", "new"), entry("c", "3")]
    asyncio.run(clients.reload())
    assert [name_of(clients, key) for key in ("1", "2", "new", "3", "flag")] == [
        *("nobody", "nobody", "a", "c", None)
    ]
    assert clients.find(digest_of_key("new")) is before
    assert "2 names" in caplog.text


def test_a_broken_file_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    file = File(entry("a", "1"))
    clients = Clients([], None, file.read)
    file.says = KeysFileError("the keys file k.yaml: keys.0.name: this field is missing")
    asyncio.run(clients.reload())
    assert name_of(clients, "1") == "a"
    assert "k.yaml: keys.0.name: this field is missing; the keys stay as they were" in caplog.text
    with pytest.raises(KeysFileError):
        Clients([], None, file.read)


def test_without_a_file_there_is_nothing_to_read() -> None:
    clients = Clients(["k"])
    asyncio.run(clients.reload())
    assert name_of(clients, "k") is None
    assert not clients.have_file
