"""Frames, and what is no frame."""

import asyncio
import io
import struct
from pathlib import Path

import msgspec
import pytest
from fake_decoder import make_request

from skipserve.engine.limits import EngineLimits, EngineSpec
from skipserve.engine.reports import EngineState, Failed
from skipserve.service import ipc
from skipserve.service.ipc import FrameError, pack, read_from_engine, read_to_engine
from skipserve.service.messages import Cancel, FromEngine, Progress, Submit, ToEngine

pytestmark = pytest.mark.fast


def _from_engine(data: bytes, count: int = 1) -> list[FromEngine | None]:
    async def read() -> list[FromEngine | None]:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        return [await read_from_engine(reader) for _ in range(count)]

    return asyncio.run(read())


def test_messages_to_the_engine_come_one_by_one() -> None:
    messages: list[ToEngine] = [Submit(make_request(num_images=1)), Cancel("r")]
    stream = io.BytesIO(b"".join(pack(message) for message in messages))
    assert [read_to_engine(stream) for _ in range(3)] == [*messages, None]


def test_messages_from_the_engine_come_one_by_one() -> None:
    messages: list[FromEngine] = [Progress(EngineState()), Failed("r", "no")]
    data = b"".join(pack(message) for message in messages)
    assert _from_engine(data, count=3) == [*messages, None]


@pytest.mark.parametrize("num_bytes", [0, 3, 4, 6])
def test_a_frame_that_is_cut_off_is_an_end(num_bytes: int) -> None:
    assert read_to_engine(io.BytesIO(pack(Cancel("r"))[:num_bytes])) is None
    assert _from_engine(pack(Progress(EngineState()))[:num_bytes]) == [None]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x80",
        msgspec.msgpack.encode({"type": "stop"}),
        msgspec.msgpack.encode({"type": "cancel", "request_id": 7}),
        msgspec.msgpack.encode({"type": "progress", "state": {"num_running": "many"}}),
        pack(Cancel("r"))[4:-1],
    ],
)
def test_what_is_no_message_is_an_error(body: bytes) -> None:
    frame = struct.pack(">I", len(body)) + body
    with pytest.raises(FrameError, match="not a message"):
        read_to_engine(io.BytesIO(frame))
    with pytest.raises(FrameError, match="not a message"):
        _from_engine(frame)


def test_a_frame_over_the_limit_is_neither_sent_nor_read(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pack(Cancel("r" * 100))
    monkeypatch.setattr(ipc, "MAX_FRAME_BYTES", len(frame) - 5)
    with pytest.raises(FrameError, match="over the limit"):
        pack(Cancel("r" * 100))
    with pytest.raises(FrameError, match="over the limit"):
        read_to_engine(io.BytesIO(frame))
    with pytest.raises(FrameError, match="over the limit"):
        _from_engine(frame)
    assert read_to_engine(io.BytesIO(pack(Cancel("r" * 99)))) == Cancel("r" * 99)


def test_a_spec_survives_the_command_line() -> None:
    limits = EngineLimits(max_batch_tokens=64, kv_cache_bytes=2**33, reuses_prefixes=False)
    spec = EngineSpec(
        Path("/models/a b"), device="cpu", num_threads=2, limits=limits, stall_seconds=0.5
    )
    assert ipc.spec_from_json(ipc.spec_to_json(spec)) == spec
