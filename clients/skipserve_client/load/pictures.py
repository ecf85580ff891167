"""The pictures of a load: generated ones, each another, or the files of a folder; some repeated."""

import random
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Protocol

from skipserve_client.command_group import CommandError
from skipserve_client.messages import image_data_uri

_NUM_RECTANGLES = 8
_PNG = b"\x89PNG\r\n\x1a\n"
# As many pictures are kept as are likely to come again.
_MAX_KEPT = 256
_MAX_SIDE = 8192


@dataclass(frozen=True)
class Picture:
    """A picture as it is sent, and what records call it."""

    name: str
    uri: str


class PictureSource(Protocol):
    """Where pictures come from."""

    def picture(self, number: int) -> Picture:
        """Return the picture of a number; the same for the same one."""


@dataclass(frozen=True)
class Repeats:
    """Which picture a request shows: one of a few, so that some come again.

    Attributes:
        num: so many pictures there are; None where each request shows another.
        exponent: the k-th is shown in proportion to 1 / k**exponent: 0 shows all equally often.
    """

    num: int | None = None
    exponent: float = 0.0

    def number(self, index: int, seed: int) -> int:
        """Return the number of the picture that a request shows."""
        if self.num is None:
            return index
        weights = _cumulated(self.num, self.exponent)
        drawn = random.Random(f"{seed}/repeats/{index}")
        (number,) = drawn.choices(range(self.num), cum_weights=weights)
        return number


@lru_cache
def _cumulated(num: int, exponent: float) -> Sequence[float]:
    return list(accumulate((k + 1) ** -exponent for k in range(num)))


def read_repeats(text: str) -> Repeats:
    """Read `--repeat-pictures`: K, zipf:K or zipf:K:EXPONENT.

    Raises:
        CommandError: it is none of these.
    """
    kind, colon, rest = text.partition(":")
    num, _, exponent = (rest if colon else text).partition(":")
    try:
        found = Repeats(int(num), float(exponent or 1) if colon else 0.0)
    except ValueError:
        found = Repeats(0)
    is_known = not colon or kind == "zipf"
    if not is_known or not 1 <= (found.num or 0) <= 1_000_000 or not 0 <= found.exponent <= 10:
        raise CommandError(
            f"--repeat-pictures {text}: give how many pictures there are, which all come equally "
            "often, or zipf:K, where the k-th comes in proportion to 1/k (zipf:K:2: to 1/k**2)"
        )
    return found


@dataclass(frozen=True)
class GeneratedPictures:
    """Pictures of random rectangles, small as files: a server decodes them faster than photographs.

    Attributes:
        width: in pixels.
        height: in pixels.
        seed: of all of them.
    """

    width: int
    height: int
    seed: int

    def picture(self, number: int) -> Picture:
        """Return the picture of a number."""
        return _generated(self, number)


@lru_cache(_MAX_KEPT)
def _generated(source: GeneratedPictures, number: int) -> Picture:
    drawn = random.Random(f"{source.seed}/picture/{number}")
    data = rectangles_png(source.width, source.height, drawn)
    return Picture(f"generated-{number}", image_data_uri(data))


def read_size(text: str) -> tuple[int, int]:
    """Read `--picture-size`, WIDTHxHEIGHT in pixels.

    Raises:
        CommandError: it is not.
    """
    sides = text.split("x")
    if len(sides) == 2 and all(it.isdecimal() and 1 <= int(it[:5]) <= _MAX_SIDE for it in sides):
        return int(sides[0]), int(sides[1])
    raise CommandError(f"--picture-size {text}: give WIDTHxHEIGHT, such as 336x336")


def rectangles_png(width: int, height: int, drawn: random.Random) -> bytes:
    """Return a PNG file of random rectangles on a random ground."""
    rows = [bytearray(_color(drawn) * width)] * height
    rows = [bytearray(row) for row in rows]
    for _ in range(_NUM_RECTANGLES):
        left, right = sorted(drawn.randint(0, width) for _ in range(2))
        top, bottom = sorted(drawn.randint(0, height) for _ in range(2))
        painted = _color(drawn) * (right - left)
        for row in rows[top:bottom]:
            row[3 * left : 3 * right] = painted
    # Each row begins with its filter, which is none; 8 bits a channel, red, green and blue.
    pixels = b"".join(b"\0" + row for row in rows)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(pixels, 1)), (b"IEND", b""))
    return _PNG + b"".join(_chunk(*part) for part in parts)


def _color(drawn: random.Random) -> bytes:
    return drawn.randbytes(3)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@dataclass(frozen=True)
class FolderPictures:
    """The pictures of a folder, in the order of their names; after the last, the first again."""

    paths: tuple[Path, ...]

    @classmethod
    def read(cls, folder: Path, repeats: Repeats) -> "FolderPictures":
        """Find the pictures of a folder, or as many of them as there are to be.

        Raises:
            CommandError: there is no such folder, it holds none, or not as many.
            PictureError: a file cannot be read.
        """
        kinds = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"}
        if not folder.is_dir():
            raise CommandError(f"--pictures {folder}: there is no such folder")
        paths = sorted(it for it in folder.iterdir() if it.suffix.lower() in kinds)
        if len(paths) < (repeats.num or 1):
            raise CommandError(f"--pictures {folder}: it holds {len(paths)} pictures")
        return cls(tuple(paths[: repeats.num]))

    def picture(self, number: int) -> Picture:
        """Return the picture of a number."""
        return file_picture(self.paths[number % len(self.paths)])


@lru_cache(_MAX_KEPT)
def file_picture(path: Path) -> Picture:
    """Read a picture.

    Raises:
        PictureError: it cannot be read.
    """
    return Picture(str(path), image_data_uri(path))
