"""Tests of what crosses the socket to a decoding process."""

import msgspec
import pytest

from skipserve.media.fitting import Fitting
from skipserve.media.kinds import Pictures, Sounds, Videos
from skipserve.media.messages import (
    Decode,
    Fitted,
    FromWorker,
    Grant,
    Refused,
    ToWorker,
    Want,
    WorkerSpec,
    from_worker,
    pack,
    spec_from_json,
    spec_to_json,
    to_worker,
)

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("message", [Decode(b"\x00\xff", 9), Grant()])
def test_what_goes_to_a_worker(message: ToWorker) -> None:
    assert to_worker(pack(message)) == message


@pytest.mark.parametrize("message", [Want(7), Fitted(b"\x00\xff", 9, 0.5), Refused("no")])
def test_what_comes_from_a_worker(message: FromWorker) -> None:
    assert from_worker(pack(message)) == message


@pytest.mark.parametrize("content", [b"", b"\xff" * 9, pack(Grant()), msgspec.msgpack.encode(1)])
def test_what_is_no_message(content: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        from_worker(content)


@pytest.mark.parametrize("size", [None, {"shortest_edge": 28}, {"height": 28, "width": 28}])
@pytest.mark.parametrize("background", [None, (1, 2, 3)])
def test_a_spec_survives_a_command_line(
    size: dict[str, int] | None, background: tuple[int, int, int] | None
) -> None:
    fitting = Fitting(28, background, size, 3, True, 9)
    for kind in (Pictures(fitting), Videos(fitting, 8), Sounds(16_000, 32, 16)):
        spec = WorkerSpec(kind, 20, 7, 1.0, 1e-9, logs_json=True)
        assert spec_from_json(spec_to_json(spec)) == spec
