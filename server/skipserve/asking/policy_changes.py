"""Adds skip policies while they are asked for, and removes them. Knows no HTTP."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

from skipserve.asking.policies import PolicyRegistry
from skipserve.asking.policy_file import PolicyFile
from skipserve.errors import ConflictError
from skipserve_policies.resolve import ResolvedPolicy
from skipserve_policies.schema import SkipPolicy

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Addition(NamedTuple):
    """A policy that was to be added.

    Attributes:
        policy: as it can be asked for.
        is_new: whether it was not there before.
    """

    policy: ResolvedPolicy
    is_new: bool


class PolicyChanges:
    """Changes the policies of a server, one change at a time, the file first.

    A change that was begun is done to its end, whoever asked for it stays or not.

    Args:
        policies: those of the server.
        file: keeps what is added over a restart.
        most: so many may be added.
        tell_user: says who besides requests needs a policy of a name, such as the server's default;
            None for nobody.
    """

    def __init__(
        self,
        policies: PolicyRegistry,
        file: PolicyFile,
        most: int,
        tell_user: Callable[[str], str | None],
    ) -> None:
        self._policies = policies
        self._file = file
        self._most = most
        self._tell_user = tell_user
        self._lock = asyncio.Lock()
        # The event loop itself would forget them.
        self._under_way: set[asyncio.Task[Any]] = set()

    async def add(self, name: str, policy: SkipPolicy, by: str | None) -> Addition:
        """Add a policy; one that is there already and says the same is left as it is.

        Args:
            name: what it is called from now on.
            policy: what it says.
            by: the name of whoever asks, for the log.

        Raises:
            ConflictError: the name has another meaning, or there are as many as may be.
            PolicyFitError: it contradicts itself or does not fit the loaded model.
            StorageError: the file cannot be written; nothing was changed.
        """
        return await self._to_its_end(self._add(name, policy, by))

    async def remove(self, name: str, by: str | None) -> None:
        """Remove a policy that was added.

        Raises:
            NotFoundError: there is none of that name.
            ConflictError: it was not added at run time, or somebody needs it.
            StorageError: the file cannot be written; nothing was changed.
        """
        await self._to_its_end(self._remove(name, by))

    async def _to_its_end(self, change: Coroutine[Any, Any, T]) -> T:
        task = asyncio.create_task(change)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await asyncio.shield(task)

    async def _add(self, name: str, policy: SkipPolicy, by: str | None) -> Addition:
        async with self._lock:
            if self._policies.added.get(name) == policy:
                return Addition(self._policies.find(name), is_new=False)
            self._check_place(name)
            resolved = await asyncio.to_thread(self._policies.resolve_added, name, policy)
            added = self._policies.added | {name: policy}
            self._file.commit(await asyncio.to_thread(self._file.stage, added))
            self._policies.add(resolved)
        logger.info(
            "the skip policy %s (digest %s) was added by the key %s", name, resolved.digest, by
        )
        return Addition(resolved, is_new=True)

    async def _remove(self, name: str, by: str | None) -> None:
        async with self._lock:
            self._check_removable(name)
            left = {it: policy for it, policy in self._policies.added.items() if it != name}
            staged = await asyncio.to_thread(self._file.stage, left)
            try:
                # Somebody may have come meanwhile.
                self._check_removable(name)
            except ConflictError:
                staged.discard()
                raise
            self._file.commit(staged)
            self._policies.remove(name)
        logger.info("the skip policy %s was removed by the key %s", name, by)

    def _check_place(self, name: str) -> None:
        if name in self._policies.added:
            raise ConflictError(
                f"the skip policy {name!r} was added before and says something else: a name keeps "
                "its meaning, so choose another, or remove that one first",
                param="name",
            )
        if name in self._policies.names:
            raise ConflictError(
                f"{name!r} is the name of a policy that ships, or of the model's or the operator's "
                "file: choose another",
                param="name",
            )
        if len(self._policies.added) >= self._most:
            raise ConflictError(
                f"{self._most} policies were added, as many as may be (--max-added-policies): "
                "remove one first",
                param="name",
            )

    def _check_removable(self, name: str) -> None:
        if name not in self._policies.added:
            # Says what is there instead, unless that is a policy of this name.
            self._policies.find(name)
            raise ConflictError(
                f"the skip policy {name!r} ships, or is of the model's or the operator's file: "
                "only those that were added at run time can be removed",
                param="name",
            )
        if (user := self._tell_user(name)) is not None:
            raise ConflictError(f"the skip policy {name!r} stays: {user}", param="name")
        if number := self._policies.num_holders(name):
            raise ConflictError(
                f"the skip policy {name!r} is in use (requests that wait or run: {number}): try "
                "again when they have ended",
                param="name",
            )
