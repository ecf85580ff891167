"""WAV files of every form, against scipy, and those that lie."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from media_models import noise, wav_file
from scipy.io import wavfile

from skipserve.errors import UnusableImageError
from skipserve.media.wav import open_wav

pytestmark = pytest.mark.fast

WHOLE = wav_file(noise(500))


def written(samples: Any, rate: int = 16_000) -> bytes:
    """Return a file as scipy writes it."""
    buffer = io.BytesIO()
    wavfile.write(buffer, rate, samples)
    return buffer.getvalue()


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    """Return a file of parts, each with its length."""
    body = b"".join(
        name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
        for name, data in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def described(tag: int = 1, channels: int = 1, bits: int = 16, rate: int = 16_000) -> bytes:
    block = channels * bits // 8
    return struct.pack("<HHIIHH", tag, channels, rate, rate * block, block, bits)


def expected(content: bytes) -> Any:
    """Return what scipy reads, from -1 to 1."""
    _, values = wavfile.read(io.BytesIO(content))
    if values.dtype == np.uint8:
        values = (values.astype(np.float64) - 128) / 128
    elif values.dtype.kind == "i":
        values = values / (np.iinfo(values.dtype).max + 1.0)
    return values if values.ndim == 1 else values.mean(axis=1)


@pytest.mark.parametrize("shape", [(40,), (40, 2), (40, 8)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_samples_are_those_that_scipy_reads(dtype: Any, shape: tuple[int, ...]) -> None:
    draw = np.random.default_rng(0)
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        values = draw.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    else:
        values = draw.uniform(-2, 2, shape).astype(dtype)
    content = written(values, 8000)
    sound = open_wav(content)
    assert (sound.rate, sound.num_samples) == (8000, 40)
    found = sound.samples()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected(content), atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2])
def test_24_bits_are_read(channels: int) -> None:
    data = np.random.default_rng(0).integers(0, 256, 3 * 20 * channels, dtype=np.uint8).tobytes()
    content = riff((b"fmt ", described(bits=24, channels=channels)), (b"data", data))
    np.testing.assert_allclose(open_wav(content).samples(), expected(content), atol=1e-6)


@pytest.mark.parametrize(("tag", "bits"), [(1, 16), (1, 24), (3, 32)])
def test_the_extensible_form_says_its_own(tag: int, bits: int) -> None:
    guid = struct.pack("<H", tag) + bytes.fromhex("000000001000800000aa00389b71")
    extensible = described(0xFFFE, bits=bits) + struct.pack("<HHI", 22, bits, 4) + guid
    data = np.full(6, 0.25, "<f4").tobytes()
    plain = riff((b"fmt ", described(tag, bits=bits)), (b"data", data))
    content = riff((b"JUNK", b"odd"), (b"fmt ", extensible), (b"data", data), (b"LIST", b"x"))
    assert open_wav(content).samples().tolist() == open_wav(plain).samples().tolist()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "file is empty"),
        (b"RIFF", "cannot be decoded: WAV of 8"),
        (b"ID3" + bytes(60), "cannot be decoded: WAV of 8"),
        (b"RIFX" + WHOLE[4:], "cannot be decoded"),
        (WHOLE[:40], "may be cut off"),
        (WHOLE[:-1], "is cut off: it has 999 of 1000 bytes"),
        (WHOLE[:60], "is cut off: it has 16 of 1000 bytes"),
        (WHOLE[:40] + b"\xff\xff\xff\xff" + WHOLE[44:], "has 1000 of 4294967295 bytes"),
        (riff((b"data", b"1234"), (b"fmt ", described())), "may be cut off"),
        (riff((b"fmt ", described()[:9]), (b"data", b"1234")), "may be cut off"),
        (riff((b"fmt ", described(bits=12)), (b"data", b"1234")), "format 1, with 12 bits"),
        (riff((b"fmt ", described(6, bits=8)), (b"data", b"1234")), "format 6, with 8 bits"),
        (riff((b"fmt ", described(3, bits=16)), (b"data", b"1234")), "format 3, with 16 bits"),
        (riff((b"fmt ", described(channels=0)), (b"data", b"1234")), "has 0 channels"),
        (riff((b"fmt ", described(channels=9)), (b"data", b"1234")), "has 9 channels"),
        (riff((b"fmt ", described(rate=0)), (b"data", b"1234")), "contradicts itself"),
        (riff((b"fmt ", described()[:12] + b"\3\0\x10\0"), (b"data", b"1")), "contradicts itself"),
        (riff((b"fmt ", described()), (b"data", b"123")), "is cut off: it has 3 of 3 bytes"),
    ],
)
def test_what_cannot_be_read_is_told(content: bytes, told: str) -> None:
    with pytest.raises(UnusableImageError, match=told):
        open_wav(content)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_what_is_no_number_is_refused(bad: float) -> None:
    sound = open_wav(written(np.array([0.0, bad])))
    with pytest.raises(UnusableImageError, match="no finite numbers"):
        sound.samples()


@given(place=st.integers(0, 43), value=st.integers(0, 255), length=st.integers(0, 1044))
def test_a_damaged_file_is_read_or_refused(place: int, value: int, length: int) -> None:
    content = bytearray(WHOLE[:length])
    if place < len(content):
        content[place] = value
    try:
        samples = open_wav(bytes(content)).samples()
    except UnusableImageError:
        return
    assert samples.dtype == np.float32
    assert len(samples) <= 1000
