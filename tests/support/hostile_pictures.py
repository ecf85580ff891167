"""Pictures that are small as files and costly to decode, made by code."""

import struct
import zlib

from pictures import encode
from PIL import Image


def repeated_scans(side: int, num_scans: int) -> bytes:
    """Return a flat progressive JPEG whose last scan comes again and again."""
    content = encode(Image.new("RGB", (side, side), "red"), "JPEG", progressive=True)
    start = content.rindex(b"\xff\xda")
    scan = content[start:-2]
    num_there = content.count(b"\xff\xda")
    return content[:-2] + scan * (num_scans - num_there) + content[-2:]


def flat_png(width: int, height: int, colour: int = 2) -> bytes:
    """Return a black PNG, 8 bits a channel: of 3 channels, or of 4 with `colour` 6."""
    num_channels = {0: 1, 2: 3, 6: 4}[colour]
    packer = zlib.compressobj(9)
    row = bytes(1 + num_channels * width)
    rows = max(2**20 // len(row), 1)
    data = b"".join(
        packer.compress(row * min(rows, height - top)) for top in range(0, height, rows)
    )
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data + packer.flush()), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def webp_canvas(side: int) -> bytes:
    """Return an animated WebP whose frames are of a few pixels on a large canvas."""
    red, blue = (Image.new("RGB", (2, 2), colour) for colour in ("red", "blue"))
    content = bytearray(encode(red, "WEBP", save_all=True, append_images=[blue]))
    content[24:30] = (side - 1).to_bytes(3, "little") * 2
    return bytes(content)


def exif_of_many_faults(num_faults: int) -> bytes:
    """Return a small PNG whose EXIF has so many entries, each of them larger than the file."""
    entries = b"".join(
        struct.pack("<HHII", index, 2, 2**31 - 1, 0) for index in range(1, num_faults + 1)
    )
    exif = b"II*\0" + struct.pack("<IH", 8, num_faults) + entries + bytes(4)
    return encode(Image.new("RGB", (8, 8)), exif=exif)
