"""How large the page pool and a step may be."""

import math
import re
from dataclasses import replace

import pytest
import torch
from fake_decoder import CONFIG, FakeDecoder
from hypothesis import given
from hypothesis import strategies as st

from skipserve.engine import memory
from skipserve.engine.engine import Engine
from skipserve.engine.limits import EngineLimits
from skipserve.engine.memory import (
    default_batch_tokens,
    describe_pool,
    describe_shortage,
    human_size,
    num_pool_pages,
    vision_bytes,
)
from skipserve.errors import EngineError
from skipserve.model.scoring import PIECE_ROWS

pytestmark = pytest.mark.fast

GIB = 2**30
PAGE_BYTES = FakeDecoder().cache_bytes_per_token() * 16
LIMITS = EngineLimits(max_running=1000, encoder_cache_bytes=0)


class Host:
    """A machine with so many bytes."""

    available = 0


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host()
    monkeypatch.setattr(memory, "available_bytes", lambda: host.available)
    return host


def needed(model: FakeDecoder, limits: EngineLimits, rows: int) -> int:
    return sum(need.num_bytes for need in memory._needs(model, limits, rows))


def test_the_pool_is_as_large_as_it_is_told() -> None:
    limits = replace(LIMITS, kv_cache_bytes=PAGE_BYTES * 7 + 5)
    assert num_pool_pages(FakeDecoder(), limits, 512) == 7
    assert Engine(FakeDecoder(), limits).num_cache_tokens == 7 * 16


def test_the_pool_is_never_larger_than_what_can_run() -> None:
    limits = EngineLimits(max_running=3, kv_cache_bytes=PAGE_BYTES * 10**6)
    assert num_pool_pages(FakeDecoder(), limits, 512) == 3 * CONFIG.max_positions / 16


def test_a_piece_of_a_prompt_is_scored_where_few_tokens_are_drawn() -> None:
    """Where many are, what scoring takes is over before."""
    model = FakeDecoder()
    of_one, of_many = (
        next(
            need.num_bytes
            for need in memory._needs(model, replace(LIMITS, max_running=count), 512)
            if need.part == "sampling"
        )
        for count in (1, 500)
    )
    vocab = CONFIG.sizes.decoder.vocab_size
    assert of_one >= PIECE_ROWS * vocab * (4 + 4 + 8)
    assert of_many == 500 * memory._SAMPLER_NUMBER_BYTES * vocab


def test_a_pool_without_a_page_is_refused() -> None:
    limits = replace(LIMITS, kv_cache_bytes=PAGE_BYTES - 1)
    with pytest.raises(EngineError) as caught:
        num_pool_pages(FakeDecoder(), limits, 512)
    [gib] = re.findall(r"at least --kv-cache-gib (\S+),", caught.value.message)
    assert "--kv-cache-gib asks for 4 KiB, but a page of 16 positions takes 4 KiB" in str(caught)
    mended = replace(LIMITS, kv_cache_bytes=int(float(gib) * GIB))
    assert num_pool_pages(FakeDecoder(), mended, 512) == CONFIG.max_positions / 16


def test_a_pool_that_there_is_no_memory_for_is_refused(host: Host) -> None:
    host.available = 10 * PAGE_BYTES
    limits = replace(LIMITS, kv_cache_bytes=11 * PAGE_BYTES)
    with pytest.raises(EngineError, match="asks for 44 KiB, but 40 KiB of memory are available"):
        num_pool_pages(FakeDecoder(), limits, 512)
    few = replace(limits, max_running=1, kv_cache_bytes=10**9)
    assert num_pool_pages(FakeDecoder(), few, 512) == 4, "all that one request could fill"


def test_a_quarter_of_what_is_available_is_taken(host: Host) -> None:
    host.available = 2**30
    num_pages = num_pool_pages(FakeDecoder(), replace(LIMITS, max_running=10**6), 16)
    assert num_pages == 2**28 // PAGE_BYTES


@given(
    available=st.integers(0, 2**36),
    cached=st.integers(0, 2**34),
    max_running=st.integers(1, 4096),
    rows=st.integers(16, 4096),
)
def test_two_engines_that_start_together_fit(
    available: int, cached: int, max_running: int, rows: int
) -> None:
    """Neither sees the other's pool, which fills later; both get the same, or are told."""
    model = FakeDecoder()
    limits = EngineLimits(max_running=max_running, encoder_cache_bytes=cached)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "available_bytes", lambda: available)
        if int(0.9 * available) < needed(model, limits, rows) + 4 * PAGE_BYTES:
            with pytest.raises(EngineError, match="of memory are missing"):
                num_pool_pages(model, limits, rows)
            return
        taken = num_pool_pages(model, limits, rows) * PAGE_BYTES
    total = taken + needed(model, limits, rows)
    assert taken >= 4 * PAGE_BYTES, "room for a useful request"
    assert total <= 0.9 * available
    assert 2 * total <= available or taken == 4 * PAGE_BYTES


def test_what_is_missing_is_said_with_what_would_help(host: Host) -> None:
    model, limits = FakeDecoder(), replace(LIMITS, encoder_cache_bytes=256 * 2**20)
    host.available = 100 * 2**20
    with pytest.raises(EngineError) as caught:
        num_pool_pages(model, limits, 512)
    told = caught.value.message
    expected = needed(model, limits, 512) + 4 * PAGE_BYTES - 0.9 * host.available
    assert told.startswith(f"{human_size(expected)} of memory are missing: 100 MiB are available")
    assert "needed are projected images 256 MiB (--encoder-cache-mib 256), " in told, (
        "the largest first"
    )
    for words in ("--max-batch-tokens 512", "--max-running-requests 1000", "set --kv-cache-gib"):
        assert words in told
    assert "for keys and values, 16 KiB at least" in told
    assert num_pool_pages(model, replace(limits, kv_cache_bytes=PAGE_BYTES * 9), 512) == 9


def test_the_last_byte_decides(host: Host) -> None:
    model = FakeDecoder()
    enough = math.ceil((needed(model, LIMITS, 64) + 4 * PAGE_BYTES) / 0.9)
    host.available = enough
    assert num_pool_pages(model, LIMITS, 64) == 4
    host.available = enough - 2
    with pytest.raises(EngineError, match="of memory are missing"):
        num_pool_pages(model, LIMITS, 64)


@pytest.mark.parametrize(
    ("num_bytes", "words"),
    [
        (0, "0 KiB"),
        (4096, "4 KiB"),
        (2**20 - 1, "1,024 KiB"),
        (1.5 * 2**20, "1.5 MiB"),
        (1234 * 2**20, "1.21 GiB"),
        (80 * 2**30, "80 GiB"),
        (2**42, "4,096 GiB"),
    ],
)
def test_sizes_are_said_as_people_say_them(num_bytes: float, words: str) -> None:
    assert human_size(num_bytes) == words


def test_the_pool_is_described() -> None:
    assert (
        describe_pool(FakeDecoder(), 4096)
        == "room for 4,096 positions of keys and values, in 1 MiB"
    )
    assert describe_shortage(FakeDecoder(), CONFIG.max_positions) is None


def test_what_a_pool_is_too_small_for_is_said() -> None:
    told = describe_shortage(FakeDecoder(), 48)
    assert told is not None
    assert "at most 48 positions, and a picture takes 4 of them; the model can use 64" in told
    [gib] = re.findall(r"--kv-cache-gib (\S+)$", told)
    limits = replace(LIMITS, kv_cache_bytes=int(float(gib) * GIB))
    assert num_pool_pages(FakeDecoder(), limits, 512) == 4

    class Roomy(FakeDecoder):
        config = replace(CONFIG, max_positions=4096)

    told = describe_shortage(Roomy(), 1000)
    assert told is not None
    assert "a picture" not in told


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


def test_on_a_gpu_what_is_missing_is_said_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**20, 2**36))
    monkeypatch.setattr(OnGpu, "uses_triton", True)
    with pytest.raises(EngineError, match=r"1 MiB are .* the GPU.* graphs 432 MiB \(--no-cuda"):
        num_pool_pages(OnGpu(), LIMITS, 16)
    asked = replace(LIMITS, kv_cache_bytes=2**30)
    with pytest.raises(EngineError, match="1 MiB of memory are available on the GPU"):
        num_pool_pages(OnGpu(), replace(asked, max_running=10**7), 16)


def test_this_machine_has_room() -> None:
    assert num_pool_pages(FakeDecoder(), EngineLimits(), 512) > 0


def test_a_cpu_gets_smaller_steps() -> None:
    assert default_batch_tokens(torch.device("cpu")) < default_batch_tokens(torch.device("cuda"))
