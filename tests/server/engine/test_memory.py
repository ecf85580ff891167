"""How large the page pool and a step may be."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fake_decoder import CONFIG, FakeDecoder

from skipserve.engine import memory
from skipserve.engine.engine import Engine
from skipserve.engine.memory import default_batch_tokens, num_pool_pages, vision_bytes
from skipserve.engine.types import EngineLimits
from skipserve.errors import EngineError

pytestmark = pytest.mark.fast

PAGE_BYTES = FakeDecoder().cache_bytes_per_token() * 16
LIMITS = EngineLimits(max_running=1000, encoder_cache_bytes=0)


def test_the_pool_is_as_large_as_it_is_told() -> None:
    limits = replace(LIMITS, kv_cache_bytes=PAGE_BYTES * 7 + 5)
    assert num_pool_pages(FakeDecoder(), limits, 512) == 7
    assert Engine(FakeDecoder(), limits).num_cache_tokens == 7 * 16


def test_the_pool_is_never_larger_than_what_can_run() -> None:
    limits = EngineLimits(max_running=3, kv_cache_bytes=PAGE_BYTES * 10**6)
    assert num_pool_pages(FakeDecoder(), limits, 512) == 3 * CONFIG.max_positions / 16


def test_a_pool_without_a_page_is_refused() -> None:
    with pytest.raises(EngineError, match=f"a page takes {PAGE_BYTES}"):
        num_pool_pages(FakeDecoder(), replace(LIMITS, kv_cache_bytes=PAGE_BYTES - 1), 512)


def test_a_share_of_the_free_memory_is_taken_less_what_a_step_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = FakeDecoder()
    free = 4 * 2**20
    monkeypatch.setattr(memory, "_free_host_bytes", lambda: free)
    num_bytes = num_pool_pages(model, LIMITS, 16) * PAGE_BYTES
    assert free / 8 < num_bytes < free / 4
    assert num_pool_pages(model, LIMITS, 64) * PAGE_BYTES < num_bytes
    monkeypatch.setattr(memory, "_free_host_bytes", lambda: vision_bytes(model, 16))
    with pytest.raises(EngineError):
        num_pool_pages(model, LIMITS, 16)


class OnGpu(FakeDecoder):
    """Says that it is on a GPU."""

    device = torch.device("cuda")


def test_of_a_gpu_most_is_taken_less_what_the_rest_of_the_engine_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = 4 * 2**30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * free))
    model, limits = OnGpu(), replace(LIMITS, max_running=10**7)
    whole = num_pool_pages(model, limits, 16) * PAGE_BYTES
    assert 0.85 * free < whole <= 0.9 * free
    kept = replace(limits, encoder_cache_bytes=2**30)
    assert whole - num_pool_pages(model, kept, 16) * PAGE_BYTES == pytest.approx(2**30, rel=1e-3)
    monkeypatch.setattr(OnGpu, "uses_triton", True)
    with_graphs = num_pool_pages(model, limits, 16) * PAGE_BYTES
    assert whole - with_graphs > 18 * 20 * 2**20
    without = num_pool_pages(model, replace(limits, uses_graphs=False), 16) * PAGE_BYTES
    assert without == whole


def test_the_tower_is_given_room_for_all_pictures_of_a_step() -> None:
    model = FakeDecoder()
    assert vision_bytes(model, 400) > 10 * vision_bytes(model, 0)
    assert vision_bytes(model, 0) > 4 * 3 * CONFIG.sizes.vision.image_size**2


def test_this_machine_has_memory() -> None:
    assert 2**20 < memory._free_host_bytes() < 2**50
    assert num_pool_pages(FakeDecoder(), EngineLimits(), 512) > 0


@pytest.mark.parametrize(
    ("limit", "used", "unlimited"),
    [
        ("memory.max", "memory.current", "max\n"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "9223372036854771712\n"),
    ],
)
def test_a_control_group_limits_what_is_free(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str, used: str, unlimited: str
) -> None:
    folder = tmp_path / "memory" if "bytes" in limit else tmp_path
    folder.mkdir(exist_ok=True)
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    (folder / used).write_text("1000\n")
    (folder / limit).write_text("51000\n")
    assert memory._free_host_bytes() == 50_000
    (folder / limit).write_text(unlimited)
    assert memory._free_host_bytes() > 50_000


def test_a_cpu_gets_smaller_steps() -> None:
    assert default_batch_tokens(torch.device("cpu")) < default_batch_tokens(torch.device("cuda"))
