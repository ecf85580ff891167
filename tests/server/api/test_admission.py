"""Tests of who may come in."""

import asyncio
from dataclasses import dataclass

import pytest
from prometheus_client import CollectorRegistry

from skipserve.api.admission import Admission
from skipserve.engine.service import EngineService
from skipserve.errors import UnavailableError
from skipserve.metrics.registry import ServerMetrics

pytestmark = pytest.mark.fast


@dataclass
class Engine:
    """As much of the engine as admission looks at."""

    is_ready: bool = True
    is_alive: bool = True
    num_running: int = 0


class Door:
    """An admission, its engine and the counts of those turned away."""

    def __init__(self, max_queued: int = 2) -> None:
        self.engine = Engine()
        self._registry = CollectorRegistry()
        metrics = ServerMetrics(self._registry, "m", [])
        service: EngineService = self.engine  # type: ignore[assignment]
        self.admission = Admission(service, metrics, max_queued)

    def refusal(self) -> str:
        with pytest.raises(UnavailableError) as caught, self.admission.admit():
            pass
        assert caught.value.retry_after_seconds > 0
        return caught.value.message

    def rejections(self, reason: str) -> float | None:
        labels = {"model": "m", "reason": reason}
        return self._registry.get_sample_value("skipserve_rejections_total", labels)


def test_the_queue_has_an_end() -> None:
    door = Door(max_queued=2)
    with door.admission.admit(), door.admission.admit():
        assert "too many" in door.refusal()
        door.engine.num_running = 1
        with door.admission.admit():
            assert "too many" in door.refusal()
    with door.admission.admit():
        pass
    assert door.rejections("queue_full") == 2


def test_an_engine_that_is_not_there() -> None:
    door = Door()
    door.engine.is_ready = False
    assert "loading" in door.refusal()
    door.engine.is_alive = False
    assert "not running" in door.refusal()
    assert not door.admission.is_ready
    assert door.rejections("not_ready") == 2


def test_draining_waits_for_those_inside() -> None:
    door = Door()

    async def drain() -> None:
        await asyncio.wait_for(door.admission.wait_idle(), 1)
        with door.admission.admit():
            door.admission.drain()
            assert "shutting down" in door.refusal()
            waiting = asyncio.create_task(door.admission.wait_idle())
            await asyncio.sleep(0)
            assert not waiting.done()
        await asyncio.wait_for(waiting, 1)

    asyncio.run(drain())
    assert not door.admission.is_ready
    assert door.rejections("draining") == 1


def test_a_place_is_given_back_after_an_error() -> None:
    door = Door(max_queued=1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), door.admission.admit():
            raise ZeroDivisionError
