"""Ray Serve's router for engines, without Ray around it: what it makes of a call."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import ray_wanted  # noqa: F401 - without Ray there is nothing to test
from ray.serve._private.common import DeploymentID
from ray.serve._private.request_router.common import ReplicaQueueLengthCache
from ray.serve.request_router import PendingRequest, ReplicaID, RunningReplica

from skipserve.ray.router import EngineRouter

NAMES = ("a", "b", "c", "d")
BUSY = 100


class Scene:
    """Four engines, and a router that knows how busy they are."""

    def __init__(self) -> None:
        self.replicas: list[Any] = [SimpleNamespace(replica_id=_id(name)) for name in NAMES]
        self.router = EngineRouter.__new__(EngineRouter)
        self.router._replica_queue_len_cache = ReplicaQueueLengthCache()
        self.router.initialize_state()

    def load(self, name: str, number: int) -> None:
        self.router._replica_queue_len_cache.update(_id(name), number)

    def choose(self, *avoided: str, content: bytes = b"picture", **others: Any) -> list[list[str]]:
        """Return whom a call may go to, by name, the best first."""
        route = {"route": (content, b"policy", avoided), **others}

        async def run() -> list[list[RunningReplica]]:
            pending = PendingRequest(args=[b""], kwargs=route, metadata=SimpleNamespace())  # type: ignore[arg-type]
            ranks = await self.router.choose_replicas(self.replicas, pending)
            assert pending.routing_context.should_backoff
            return ranks

        return [[it.replica_id.unique_id for it in rank] for rank in asyncio.run(run())]


def _id(name: str) -> ReplicaID:
    return ReplicaID(name, DeploymentID("Engine", "skipserve"))


def test_a_picture_goes_home_and_then_anywhere() -> None:
    scene = Scene()
    (home,), others = scene.choose()
    assert sorted([home, *others]) == list(NAMES)
    scene.replicas.reverse()
    assert scene.choose()[0] == [home]
    assert {scene.choose(content=bytes([it]))[0][0] for it in range(64)} == set(NAMES)


def test_a_home_that_is_too_busy_is_passed_by() -> None:
    scene = Scene()
    (home,), _ = scene.choose()
    scene.load(home, BUSY)
    (first,), others = scene.choose()
    assert first != home
    assert home in others


def test_whoever_lost_a_request_does_not_get_it_again() -> None:
    scene = Scene()
    (home,), _ = scene.choose()
    ranks = scene.choose(home)
    assert home not in {name for rank in ranks for name in rank}
    assert scene.choose(*NAMES) == []


def test_engines_that_come_and_go_are_known() -> None:
    scene = Scene()
    (home,), _ = scene.choose()
    scene.replicas = [it for it in scene.replicas if it.replica_id.unique_id != home]
    ranks = scene.choose()
    assert sorted(name for rank in ranks for name in rank) == sorted({*NAMES} - {home})


@pytest.mark.parametrize("others", [{"route": None}, {"route": (1, 2)}], ids=["none", "wrong"])
def test_a_call_that_cannot_be_read_goes_anywhere(others: dict[str, Any]) -> None:
    """An error would only be logged, and the request would wait for ever."""
    assert Scene().choose(**others) == [list(NAMES)]


def test_a_task_without_a_request_has_all() -> None:
    scene = Scene()
    assert asyncio.run(scene.router.choose_replicas(scene.replicas)) == [scene.replicas]
