"""Tests of the processes that decode pictures: real ones, killed and replaced."""

import asyncio
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hostile_pictures import flat_png, repeated_scans
from media_models import film, gif_of, noise, video_file, wav_file
from pictures import encode, random_picture
from PIL import Image
from server_process import is_running

from skipserve.errors import SkipserveError, UnavailableError, UnusableImageError
from skipserve.media.data_uri import EncodedImage
from skipserve.media.decode import PixelLimits, decode_image
from skipserve.media.fitting import Fitting
from skipserve.media.hearing import Hearing
from skipserve.media.kill import Kill
from skipserve.media.kinds import MediaKind, Pictures, Sounds, Videos
from skipserve.media.messages import WorkerSpec
from skipserve.media.pool import PicturePool, PoolSpec

MIB = 2**20
FITTING = Fitting(28, (0, 0, 0), {"shortest_edge": 28}, 3, True, 9_000_000)
SPEC = PoolSpec(
    WorkerSpec(
        Pictures(FITTING),
        bytes_per_pixel=20,
        granted_bytes=MIB,
        cpu_seconds=60,
        cpu_seconds_per_pixel=0,
    ),
    PixelLimits(image_pixels=9_000_000, request_pixels=10_000_000),
    num_workers=2,
    memory_bytes=180 * MIB,
)
SMALL = EncodedImage(encode(random_picture(60, 40), "JPEG"), "small")
LARGE = EncodedImage(encode(random_picture(2000, 1000), "PNG", compress_level=1), "large")
# Minutes, if it is let.
ENDLESS = EncodedImage(repeated_scans(3000, 100), "endless")

Run = Callable[[PicturePool], Awaitable[None]]


def run(act: Run, spec: PoolSpec = SPEC) -> list[Kill]:
    """Do something with a pool; return what was killed meanwhile. No process may be left."""
    killed: list[Kill] = []

    async def live() -> None:
        pool = PicturePool(spec, killed.append)
        await pool.start()
        process_ids: set[int] = set()
        try:
            await act(pool)
        finally:
            process_ids |= set(pool.process_ids)
            await pool.close()
        assert not any(map(is_running, process_ids))

    asyncio.run(live())
    return killed


def with_worker(**changes: Any) -> PoolSpec:
    return replace(SPEC, worker=msgspec.structs.replace(SPEC.worker, **changes))


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def expected(image: EncodedImage) -> bytes:
    return FITTING.fit(decode_image(image, 9_000_000), "")


def test_pictures_are_those_that_are_decoded_here() -> None:
    async def act(pool: PicturePool) -> None:
        fitted = await pool.fit([SMALL, LARGE], "a")
        assert [it.pixels for it in fitted] == [expected(SMALL), expected(LARGE)]
        assert [it.num_decoded for it in fitted] == [2400, 2_000_000]

    assert run(act) == []


def test_what_is_wrong_with_a_picture_is_told_with_its_place() -> None:
    async def act(pool: PicturePool) -> None:
        for content, words in {
            b"not an image": "cannot be decoded",
            encode(Image.new("L", (3001, 3000))): "3001 x 3000",
            flat_png(1, 9_000_000): "too thin",
        }.items():
            with pytest.raises(UnusableImageError, match=words) as caught:
                await pool.fit([EncodedImage(content, "here")], "a")
            assert caught.value.param == "here"
        await pool.fit([SMALL], "a")
        assert len(pool._all) == 1

    assert run(act) == []


def test_s08_all_images_of_a_request_share_a_budget() -> None:
    image = EncodedImage(encode(Image.new("L", (2500, 2000))), "p")

    async def act(pool: PicturePool) -> None:
        assert len(await pool.fit([image] * 2, "a")) == 2
        with pytest.raises(UnusableImageError, match="at most 1 pixels are left"):
            await pool.fit([image, image, SMALL], "a")

    run(act, replace(SPEC, limits=PixelLimits(9_000_000, 10_000_001)))


def test_a_picture_that_takes_too_long_costs_its_process_and_no_other() -> None:
    async def act(pool: PicturePool) -> None:
        with pytest.raises(UnusableImageError, match="takes more time") as caught:
            await pool.fit([ENDLESS], "a")
        assert caught.value.param == "endless"
        assert (await pool.fit([SMALL], "a"))[0].pixels == expected(SMALL)

    assert run(act, with_worker(cpu_seconds=0.3)) == [Kill.CPU_TIME]


VIDEOS, SOUNDS = Videos(FITTING, 8), Sounds(16_000, 1024, 128)


def largest_sound() -> bytes:
    """Return as many samples as are heard, of as many channels and bits as are read."""
    num_samples = Hearing(16_000, 1024, 128).max_samples
    values = np.random.default_rng(0).uniform(-1, 1, (num_samples, 8))
    block, size = 64, values.nbytes
    described = struct.pack("<IHHIIHH", 16, 3, 8, 16_000, 16_000 * block, block, 64)
    body = b"WAVEfmt " + described + b"data" + struct.pack("<I", size) + values.tobytes()
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    ("kind", "content"),
    [(VIDEOS, video_file(film(40))), (SOUNDS, wav_file(noise(9000))), (SOUNDS, largest_sound())],
    ids=["video", "sound", "largest sound"],
)
def test_videos_and_sounds_are_those_that_are_decoded_here(kind: MediaKind, content: bytes) -> None:
    file = EncodedImage(content, "p")

    async def act(pool: PicturePool) -> None:
        (made,) = await pool.fit([file], "a")
        assert made.pixels == kind.make(file, 9_000_000, lambda *_: None).content
        with pytest.raises(UnusableImageError) as caught:
            await pool.fit([EncodedImage(content[:-100], "here")], "a")
        assert caught.value.param == "here"
        assert len(pool._all) == 1

    # What is granted without asking, as the server grants it.
    assert run(act, with_worker(kind=kind, granted_bytes=32 * MIB)) == []


def test_a_large_video_asks_for_the_memory_of_a_frame() -> None:
    """Of a WebP before its decoder is made, which takes that of two."""
    frames = [Image.new("RGB", (2000, 1800), (20 * number, 9, 9)) for number in range(9)]
    video = EncodedImage(video_file(frames), "p")
    spec = replace(with_worker(kind=VIDEOS), limits=PixelLimits(40_000_000, 40_000_000))

    async def act(pool: PicturePool) -> None:
        (made,) = await pool.fit([video], "a")
        assert made.num_decoded == 9 * 2000 * 1800
        assert len(made.pixels) == VIDEOS.num_bytes

    assert run(act, spec) == []


@pytest.mark.parametrize(
    ("kind", "content", "noun"),
    [
        (VIDEOS, gif_of(200_000), "video"),
        (SOUNDS, b"RIFF\0\0\0\0WAVE" + (b"JUNK" + bytes(4)) * 1_000_000, "sound"),
    ],
    ids=["video", "sound"],
)
def test_files_of_many_pieces_cost_their_process_its_time(
    kind: MediaKind, content: bytes, noun: str
) -> None:
    async def act(pool: PicturePool) -> None:
        with pytest.raises(UnusableImageError, match=f"the {noun} takes more time") as caught:
            await pool.fit([EncodedImage(content, "p")], "a")
        assert caught.value.param == "p"

    assert run(act, with_worker(kind=kind, cpu_seconds=0.05)) == [Kill.CPU_TIME]


def test_all_frames_share_the_pixels_of_a_request() -> None:
    video = EncodedImage(video_file(film(40)), "p")

    async def act(pool: PicturePool) -> None:
        assert len(await pool.fit([video] * 2, "a")) == 2
        with pytest.raises(UnusableImageError, match="too large"):
            await pool.fit([video] * 3, "a")

    limits = PixelLimits(40 * 480, 3 * 40 * 480 - 1)
    run(act, replace(with_worker(kind=VIDEOS), limits=limits))


def test_time_is_counted_for_each_picture_anew() -> None:
    async def act(pool: PicturePool) -> None:
        for _ in range(10):
            await pool.fit([LARGE], "a")

    # Each takes a tenth of a second, or what a slow machine makes of it.
    assert run(act, with_worker(cpu_seconds=0.01, cpu_seconds_per_pixel=4e-7)) == []


def test_a_picture_gets_no_more_memory_than_its_size_needs() -> None:
    async def act(pool: PicturePool) -> None:
        with pytest.raises(UnusableImageError, match="more memory"):
            await pool.fit([EncodedImage(flat_png(3000, 3000), "p")], "a")
        await pool.fit([SMALL], "a")

    # Pillow takes four bytes a pixel: 36 MB, where 24 are to spare.
    assert run(act, with_worker(bytes_per_pixel=1)) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_crash_is_the_error_of_one_request(number: signal.Signals) -> None:
    async def act(pool: PicturePool) -> None:
        lost = asyncio.create_task(pool.fit([ENDLESS], "a"))
        await until(lambda: not pool._idle)
        [process_id] = pool.process_ids
        os.kill(process_id, number)
        with pytest.raises(SkipserveError, match="has crashed") as caught:
            await lost
        assert (caught.value.status, caught.value.param) == (500, "endless")
        assert (await pool.fit([SMALL], "a"))[0].pixels == expected(SMALL)

    assert run(act) == [Kill.CRASHED]


def test_a_process_that_died_while_it_waited_is_replaced_unseen() -> None:
    async def act(pool: PicturePool) -> None:
        await pool.fit([SMALL], "a")
        [process_id] = pool.process_ids
        os.kill(process_id, signal.SIGKILL)
        await until(lambda: not is_running(process_id))
        await pool.fit([SMALL], "a")

    assert run(act) == []


@pytest.mark.parametrize("is_large", [False, True])
def test_what_nobody_waits_for_is_killed(is_large: bool) -> None:
    async def act(pool: PicturePool) -> None:
        lost = asyncio.create_task(pool.fit([ENDLESS], "a"))
        await until(lambda: not pool._idle)
        [process_id] = pool.process_ids
        # Large ones hold memory, which must come back.
        await until(lambda: not is_large or pool._memory._left < SPEC.memory_bytes)
        lost.cancel()
        await asyncio.gather(lost, return_exceptions=True)
        assert lost.cancelled()
        assert not is_running(process_id)
        await pool.fit([LARGE], "a")
        assert pool._memory._left == SPEC.memory_bytes

    assert run(act, with_worker(granted_bytes=MIB if is_large else 200 * MIB)) == [Kill.GIVEN_UP]


def test_a_small_picture_that_is_given_up_costs_no_process() -> None:
    async def act(pool: PicturePool) -> None:
        await pool.fit([SMALL], "a")
        before = set(pool._all)
        given_up = asyncio.create_task(pool.fit([SMALL], "a"))
        while pool._idle:
            await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        assert given_up.cancelled()
        if pool._idle:  # on a machine that is busy it may have taken too long
            assert pool._all == before
        await pool.fit([SMALL], "a")

    run(act)


def test_one_owner_s_costly_pictures_leave_a_place_to_others() -> None:
    async def act(pool: PicturePool) -> None:
        costly = [asyncio.create_task(pool.fit([ENDLESS], "a")) for _ in range(4)]
        await until(lambda: pool.num_waiting == 3)
        assert (await pool.fit([SMALL], "b"))[0].pixels == expected(SMALL)
        assert not any(task.done() for task in costly)
        for task in costly:
            task.cancel()
        await asyncio.gather(*costly, return_exceptions=True)
        assert pool.num_waiting == 0

    assert run(act) == [Kill.GIVEN_UP]


def test_large_pictures_wait_for_memory_and_small_ones_do_not() -> None:
    async def act(pool: PicturePool) -> None:
        costly = asyncio.create_task(pool.fit([ENDLESS], "a"))
        await until(lambda: pool._memory._left < 40 * MIB)
        large = asyncio.create_task(pool.fit([LARGE], "b"))
        small = await pool.fit([SMALL], "c")
        assert small[0].pixels == expected(SMALL)
        assert not large.done()
        costly.cancel()
        assert (await large)[0].pixels == expected(LARGE)
        await asyncio.gather(costly, return_exceptions=True)

    run(act, replace(SPEC, num_workers=3))


def test_a_process_is_replaced_after_so_many_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skipserve.media.pool._PICTURES_EACH", 2)

    async def act(pool: PicturePool) -> None:
        num_left = []
        for _ in range(4):
            await pool.fit([SMALL], "a")
            num_left.append(len(pool.process_ids))
        assert num_left == [1, 0, 1, 0]

    assert run(act) == []


def test_a_closed_pool_ends_what_it_decodes_and_begins_nothing() -> None:
    async def act(pool: PicturePool) -> None:
        tasks = [asyncio.create_task(pool.fit([ENDLESS], "a")) for _ in range(3)]
        await until(lambda: not pool._idle)
        await pool.close()
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(error) for error in errors} == {UnavailableError}
        assert pool.process_ids == []

    assert run(act) == []


def test_a_process_that_says_nonsense_is_believed_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A picture may have taken it over."""
    (tmp_path / "liar.py").write_text(
        "import socket, sys\n"
        "connection = socket.socket(fileno=int(sys.argv[1]))\n"
        "connection.recv(1000)\n"
        "connection.sendall(bytes([255] * 8))\n"
        "connection.recv(1)\n"
    )

    def start(command: list[str], **options: Any) -> Any:
        return popen([sys.executable, str(tmp_path / "liar.py"), *command[3:]], **options)

    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", start)

    async def act(pool: PicturePool) -> None:
        with pytest.raises(SkipserveError, match="has crashed"):
            await pool.fit([SMALL], "a")

    assert run(act) == [Kill.CRASHED]


def test_processes_know_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKIPSERVE_API_KEY", "secret")

    async def act(pool: PicturePool) -> None:
        await pool.fit([SMALL], "a")
        [process_id] = pool.process_ids
        assert b"secret" not in Path(f"/proc/{process_id}/environ").read_bytes()

    run(act)


def test_processes_end_with_their_server() -> None:
    """Even while they decode."""
    code = """
import asyncio, os, signal, sys
sys.path[:0] = sys.argv[1].split(os.pathsep)
import test_pool
async def act(pool):
    task = asyncio.create_task(pool.fit([test_pool.ENDLESS], "a"))
    await test_pool.until(lambda: not pool._idle)
    print(*pool.process_ids, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
test_pool.run(act)
"""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    process_id = int(done.stdout)
    asyncio.run(until(lambda: not is_running(process_id)))
