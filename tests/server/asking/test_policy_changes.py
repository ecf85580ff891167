"""Tests of policies that come and go while a server runs."""

import asyncio
import gc
import logging
import weakref
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from skipserve.asking.policies import PolicyFiles, PolicyRegistry
from skipserve.asking.policy_changes import PolicyChanges
from skipserve.asking.policy_file import PolicyFile, Staged
from skipserve.errors import ConflictError, NotFoundError, PolicyFitError, StorageError
from skipserve_policies.catalog import load_catalog
from skipserve_policies.schema import SkipPolicy
from skipserve_policies.sizes import KNOWN_MODELS

pytestmark = pytest.mark.fast

T = TypeVar("T")

SIZES = KNOWN_MODELS["llava-1.5-7b"]


def skipping(*layers: int) -> SkipPolicy:
    rule = {"action": "skip_ffn", "layers": list(layers)}
    return SkipPolicy.model_validate({"rules": [rule]})


class Parts:
    """A registry that can be changed."""

    def __init__(self, path: Path, most: int = 3) -> None:
        self.file = PolicyFile(path)
        files = PolicyFiles(path.parent, added=self.file)
        self.policies = PolicyRegistry.from_files(files, SIZES, "the list")
        self.users: dict[str, str] = {}
        self.changes = PolicyChanges(self.policies, self.file, most, self.users.get)

    def add(self, name: str, policy: SkipPolicy) -> bool:
        return self.run(self.changes.add(name, policy, "ops")).is_new

    def remove(self, name: str) -> None:
        self.run(self.changes.remove(name, "ops"))

    def run(self, change: Coroutine[Any, Any, T]) -> T:
        return asyncio.run(change)

    @property
    def kept(self) -> dict[str, SkipPolicy]:
        return PolicyFile(self.file.path).read(())


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(tmp_path / "added.yaml")


def test_an_added_policy_is_there_at_once_and_after_a_restart(parts: Parts) -> None:
    assert parts.add("mine", skipping(5))
    again = Parts(parts.file.path)
    for policies in (parts.policies, again.policies):
        found = policies.find("mine")
        assert (found.layers, found.is_added, found.label) == ({"skip_ffn": (5,)}, True, "added")
        assert not policies.find("full").is_added
        assert policies.find("full").label == "full"
    again.remove("mine")
    with pytest.raises(NotFoundError):
        again.policies.find("mine")
    assert again.kept == {}


def test_the_same_again_changes_nothing(parts: Parts) -> None:
    assert parts.add("mine", skipping(5))
    before = parts.file.path.stat().st_mtime_ns
    assert not parts.add("mine", skipping(5))
    assert parts.file.path.stat().st_mtime_ns == before


def test_a_name_keeps_its_meaning(parts: Parts) -> None:
    parts.add("mine", skipping(5))
    with pytest.raises(ConflictError, match="says something else"):
        parts.add("mine", skipping(6))
    with pytest.raises(ConflictError, match="a policy that ships"):
        parts.add("full", skipping(5))
    assert parts.kept == {"mine": skipping(5)}
    assert parts.policies.find("mine").layers == {"skip_ffn": (5,)}


def test_no_more_than_may_be(parts: Parts) -> None:
    for index in range(3):
        parts.add(f"mine-{index}", skipping(index))
    with pytest.raises(ConflictError, match="3 policies were added, as many as may be"):
        parts.add("mine-3", skipping(3))
    parts.remove("mine-0")
    assert parts.add("mine-3", skipping(3))


def test_what_does_not_fit_is_not_kept(parts: Parts) -> None:
    with pytest.raises(PolicyFitError, match="layer 99 does not exist") as caught:
        parts.add("mine", skipping(99))
    assert caught.value.param == "policy"
    assert not parts.file.path.exists()


def test_what_ships_stays(parts: Parts) -> None:
    with pytest.raises(ConflictError, match="only those that were added"):
        parts.remove("full")
    with pytest.raises(NotFoundError, match="the nearest are"):
        parts.remove("ful")


def test_a_policy_that_somebody_needs_stays(parts: Parts) -> None:
    parts.add("mine", skipping(5))
    with (
        parts.policies.hold("mine"),
        parts.policies.hold("mine"),
        pytest.raises(ConflictError, match="wait or run: 2"),
    ):
        parts.remove("mine")
    parts.users["mine"] = "it is the default"
    with pytest.raises(ConflictError, match="it is the default"):
        parts.remove("mine")
    assert parts.kept == {"mine": skipping(5)}
    parts.users.clear()
    parts.remove("mine")


def test_whoever_comes_while_the_file_is_written_finds_the_policy(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts.add("mine", skipping(5))
    stage, hold = parts.file.stage, parts.policies.hold("mine")

    def stage_with_company(policies: dict[str, SkipPolicy]) -> Staged:
        hold.__enter__()
        return stage(policies)

    monkeypatch.setattr(parts.file, "stage", stage_with_company)
    with pytest.raises(ConflictError, match="wait or run: 1"):
        parts.remove("mine")
    hold.__exit__(None, None, None)
    assert parts.policies.find("mine").layers == {"skip_ffn": (5,)}
    assert parts.kept == {"mine": skipping(5)}
    assert len(list(parts.file.path.parent.iterdir())) == 1


def test_a_file_that_cannot_be_written_changes_nothing(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts.add("mine", skipping(5))

    def refuse(_: object) -> Staged:
        raise StorageError("read-only")

    monkeypatch.setattr(parts.file, "stage", refuse)
    with pytest.raises(StorageError):
        parts.add("other", skipping(6))
    with pytest.raises(StorageError):
        parts.remove("mine")
    assert parts.policies.find("mine").is_added
    assert "other" not in parts.policies.resolved
    assert parts.policies.added == {"mine": skipping(5)}


def test_changes_at_once_take_turns(parts: Parts) -> None:
    async def change() -> list[object]:
        additions = (parts.changes.add(f"mine-{it}", skipping(it), "ops") for it in range(5))
        return await asyncio.gather(*additions, return_exceptions=True)

    results = asyncio.run(change())
    assert sum(isinstance(result, ConflictError) for result in results) == 2
    assert parts.kept == parts.policies.added
    assert len(parts.kept) == 3


def test_a_change_is_done_though_whoever_asked_has_left(parts: Parts) -> None:
    async def leave() -> None:
        asking = asyncio.create_task(parts.changes.add("mine", skipping(5), "ops"))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert asking.cancelled()
        # Takes its turn behind the other.
        await parts.changes.add("other", skipping(6), "ops")

    asyncio.run(leave())
    assert list(parts.kept) == ["mine", "other"] == list(parts.policies.added)


def test_nothing_is_left_of_policies_that_are_gone(parts: Parts) -> None:
    left: list[weakref.ref[object]] = []
    for index in range(20):
        parts.add("mine", skipping(index))
        resolved = parts.policies.find("mine")
        left += [weakref.ref(resolved), weakref.ref(resolved.plan)]
        del resolved
        parts.remove("mine")
    gc.collect()
    assert [it for it in left if it() is not None] == []
    assert parts.policies.names == load_catalog().keys()


def test_the_log_says_who_did_it(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        parts.add("mine", skipping(5))
        parts.remove("mine")
    added, removed = (it for it in caplog.messages if it.startswith("the skip policy mine"))
    assert added.endswith("was added by the key ops")
    assert removed.endswith("was removed by the key ops")
