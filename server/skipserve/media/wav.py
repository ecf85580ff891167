"""Hostile bytes of a WAV file to samples. Knows no model.

The standard library reads no floats, and with Python 3.11 none of the files that say more of their
channels than two of them (WAVE_FORMAT_EXTENSIBLE), which those of 24 bits do.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skipserve.errors import UnusableImageError

# What a `fmt ` chunk calls whole numbers, floats, and what says which of them further on.
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_BITS = {_PCM: (8, 16, 24, 32), _FLOAT: (32, 64)}
READ = "WAV of 8, 16, 24 or 32 bits, or of floats, is read"

_HEADER = struct.Struct("<4sI4s")
_CHUNK = struct.Struct("<4sI")
_FORMAT = struct.Struct("<HHIIHH")
_SUBFORMAT_PLACE = 24
_MAX_CHANNELS = 8


@dataclass(frozen=True)
class WavFile:
    """A WAV file whose header is sound.

    Attributes:
        rate: samples a second.
        num_samples: of each channel.
        is_float: whether samples are floats.
        num_bits: of a sample.
        num_channels: how many there are.
        data: the samples, as the file has them.
    """

    rate: int
    num_samples: int
    is_float: bool
    num_bits: int
    num_channels: int
    data: memoryview

    def samples(self) -> NDArray[np.float32]:
        """Return the mean of the channels, from -1 to 1 where the file's numbers are whole, [N].

        Raises:
            UnusableImageError: one is not a number, or infinite.
        """
        if self.is_float:
            floats = np.frombuffer(self.data, dtype=f"<f{self.num_bits // 8}")
            with np.errstate(over="ignore"):
                values = floats.astype(np.float32)
        else:
            values = self._whole()
        if not np.isfinite(values).all():
            raise UnusableImageError("the sound holds samples that are no finite numbers")
        if self.num_channels == 1:
            return values
        mean: NDArray[np.float32] = values.reshape(-1, self.num_channels).mean(axis=1)
        return mean

    def _whole(self) -> NDArray[np.float32]:
        if self.num_bits == 8:  # without a sign
            unsigned = np.frombuffer(self.data, np.uint8).astype(np.float32)
            return (unsigned - np.float32(128)) / np.float32(128)
        if self.num_bits == 24:
            wide = np.zeros((len(self.data) // 3, 4), np.uint8)
            wide[:, 1:] = np.frombuffer(self.data, np.uint8).reshape(-1, 3)
            return wide.view("<i4")[:, 0].astype(np.float32) / np.float32(2**31)
        whole = np.frombuffer(self.data, dtype=f"<i{self.num_bits // 8}")
        return whole.astype(np.float32) / np.float32(2 ** (self.num_bits - 1))


def open_wav(content: bytes) -> WavFile:
    """Read the header of a WAV file; what it claims is compared with what is there.

    Raises:
        UnusableImageError: it is no WAV file, cut off, or of a form that is not read.
    """
    if not content:
        raise UnusableImageError("the sound file is empty")
    if len(content) < _HEADER.size or content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise UnusableImageError(f"the sound cannot be decoded: {READ}")
    described = memoryview(b"")
    for name, data, size in _chunks(content):
        if name == b"data" and len(described) >= _FORMAT.size:
            return _opened(described, data, size)
        if name == b"fmt ":
            described = data
    raise UnusableImageError(
        "the sound file has no description of its samples, or none of them: it may be cut off"
    )


def _opened(described: memoryview, data: memoryview, claimed: int) -> WavFile:
    tag, num_channels, rate, _, block, num_bits = _FORMAT.unpack_from(described)
    if tag == _EXTENSIBLE and len(described) >= _SUBFORMAT_PLACE + 2:
        tag = int.from_bytes(described[_SUBFORMAT_PLACE : _SUBFORMAT_PLACE + 2], "little")
    if num_bits not in _BITS.get(tag, ()):
        raise UnusableImageError(
            f"the sound's samples are of format {tag}, with {num_bits} bits: {READ}"
        )
    if not 1 <= num_channels <= _MAX_CHANNELS:
        raise UnusableImageError(
            f"the sound has {num_channels} channels; it may have 1 to {_MAX_CHANNELS}"
        )
    if block != num_channels * num_bits // 8 or not rate:
        raise UnusableImageError("the sound file contradicts itself about the size of its samples")
    if len(data) < claimed or len(data) % block:
        raise UnusableImageError(
            f"the sound file is cut off: it has {len(data)} of {claimed} bytes of samples"
        )
    return WavFile(rate, len(data) // block, tag == _FLOAT, num_bits, num_channels, data)


def _chunks(content: bytes) -> Iterator[tuple[bytes, memoryview, int]]:
    """Yield of each part of a file its name, its data as far as they go, and its claimed length.

    Each begins at an even place.
    """
    view, place = memoryview(content), _HEADER.size
    while place + _CHUNK.size <= len(content):
        name, size = _CHUNK.unpack_from(content, place)
        place += _CHUNK.size
        yield name, view[place : place + size], size
        place += size + size % 2
