"""Tests of decoding, with files that have broken others."""

import contextlib
import io
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from hostile_pictures import repeated_scans
from hypothesis import given
from hypothesis import strategies as st
from pictures import encode, random_picture
from PIL import Image, ImageOps, PngImagePlugin

from skipserve.errors import UnusableImageError
from skipserve.media.data_uri import EncodedImage
from skipserve.media.decode import as_shown, decode_image

pytestmark = pytest.mark.fast

MOST = 1_000_000
FORMATS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95},
    "PNG": {},
    "WEBP": {"lossless": True},
    "GIF": {},
    "BMP": {},
}
LOSSLESS = ["PNG", "WEBP", "BMP"]


def decode(content: bytes) -> Image.Image:
    return decode_image(EncodedImage(content, "messages[0]"), MOST)


def refused(content: bytes) -> UnusableImageError:
    with pytest.raises(UnusableImageError) as caught:
        decode(content)
    assert caught.value.param == "messages[0]"
    return caught.value


@pytest.mark.parametrize("file_format", FORMATS)
def test_every_format_is_read(file_format: str) -> None:
    picture = random_picture(31, 17)
    decoded = decode(encode(picture, file_format, **FORMATS[file_format]))
    assert decoded.mode == "RGB"
    assert decoded.size == (31, 17)
    if file_format in LOSSLESS:
        assert decoded.tobytes() == picture.tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_s16_pictures_stand_upright(orientation: int, file_format: str) -> None:
    picture = random_picture(24, 16)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(picture, file_format, exif=exif, **FORMATS[file_format])
    with Image.open(io.BytesIO(content)) as stored:
        expected = ImageOps.exif_transpose(stored).convert("RGB")
    decoded = decode(content)
    assert decoded.size == ((16, 24) if orientation > 4 else (24, 16))
    assert decoded.tobytes() == expected.tobytes()


def test_s16_alpha_lies_on_white() -> None:
    picture = random_picture(20, 10, "RGBA")
    values = np.asarray(picture, dtype=np.float64)
    alpha = values[..., 3:] / 255
    expected = values[..., :3] * alpha + 255 * (1 - alpha)
    decoded = np.asarray(decode(encode(picture)), dtype=np.float64)
    assert np.abs(decoded - expected).max() <= 1


@pytest.mark.parametrize(
    ("mode", "transparent", "options"),
    [
        ("L", 7, {"transparency": 7}),
        ("RGB", (7, 8, 9), {"transparency": (7, 8, 9)}),
        ("P", 3, {"transparency": 3}),
        ("LA", (90, 0), {}),
        ("RGBA", (1, 2, 3, 0), {}),
    ],
)
def test_s16_transparent_pixels_are_white(
    mode: str, transparent: int | tuple[int, ...], options: dict[str, Any]
) -> None:
    picture = Image.new(mode, (4, 2), transparent)
    if mode == "P":
        picture.putpalette([value % 256 for value in range(768)])
    decoded = decode(encode(picture, **options))
    assert decoded.tobytes() == b"\xff" * 24


def test_s16_a_palette_is_looked_up() -> None:
    picture = random_picture(30, 20).quantize(16)
    assert decode(encode(picture)).tobytes() == picture.convert("RGB").tobytes()


def test_s16_sixteen_bits_keep_their_brightness() -> None:
    values = np.linspace(0, 65535, 512).astype(np.uint16).reshape(16, 32)
    decoded = np.asarray(decode(encode(Image.fromarray(values))))
    assert np.abs(decoded[..., 0].astype(int) - (values >> 8)).max() <= 1


def test_one_bit_a_pixel() -> None:
    picture = Image.new("1", (8, 8), 1)
    assert decode(encode(picture)).tobytes() == b"\xff" * 192


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_the_first_frame(file_format: str) -> None:
    red, blue = (Image.new("RGB", (8, 8), color) for color in ("red", "blue"))
    options = {"lossless": True} if file_format == "WEBP" else {}
    content = encode(red, file_format, save_all=True, append_images=[blue] * 3, **options)
    assert decode(content).getpixel((0, 0)) == (255, 0, 0)


def test_s20_ten_thousand_frames_cost_one() -> None:
    frames = [Image.new("L", (1, 1), index % 2 * 255) for index in range(2000)]
    content = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(content).size == (1, 1)


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 3), (3, 1), (1, 1000), (1000, 1), (65535, 1), (200, 1), (1, 200)]
)
def test_s15_odd_shapes(size: tuple[int, int]) -> None:
    assert decode(encode(random_picture(*size))).size == size


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that claims a size and holds nothing."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in (
            (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(b"")),
            (b"IEND", b""),
        )
    )


def test_s20_pixels_are_counted_before_decoding() -> None:
    error = refused(png_header(1001, 1000))
    assert "1001 x 1000" in error.message


def claiming(file_format: str, width: int, height: int) -> bytes:
    """Return a file that claims a size and holds a small picture."""
    if file_format == "PNG":
        return png_header(width, height)
    content = bytearray(encode(random_picture(8, 8), file_format, **FORMATS[file_format]))
    sides = struct.pack("<II", width, height) if file_format == "BMP" else b""
    if file_format == "JPEG":  # behind the marker of the frame: length, bits, height, width
        place, sides = content.index(b"\xff\xc0") + 5, struct.pack(">HH", height, width)
    elif file_format == "GIF":
        place, sides = 6, struct.pack("<HH", width, height)
    else:
        place = 18
    content[place : place + len(sides)] = sides
    return bytes(content)


# The larger ones are over Pillow's own two limits, which speak of bombs and not of the size.
@pytest.mark.parametrize("side", [1001, 10_000, 20_000])
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "BMP"])
def test_s20_a_size_over_the_limit_is_told(file_format: str, side: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        error = refused(claiming(file_format, side, side + 1))
    assert error.message == (
        f"the image is too large: it is {side} x {side + 1} pixels, "
        "and at most 1000000 pixels are left for it"
    )


def test_s20_a_large_webp_and_a_large_animation_are_told() -> None:
    frames = [Image.new("L", (1200, 1200), level) for level in (0, 255)]
    for file_format, options in {"WEBP": {}, "GIF": {"save_all": True}}.items():
        content = encode(frames[0], file_format, append_images=frames[1:], **options)
        assert "it is 1200 x 1200 pixels" in refused(content).message


def test_s20_a_claim_beyond_all_measure() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for side in (100_000, 2**31 - 1):
            assert f"{side} x {side} pixels" in refused(png_header(side, side)).message


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_what_has_no_pixels(size: tuple[int, int]) -> None:
    refused(png_header(*size))
    with pytest.raises(UnusableImageError, match=f"is empty: it is {size[0]} x {size[1]} pixels"):
        as_shown(Image.new("RGB", size), 100, "messages[0]")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("file_format", FORMATS)
def test_a_file_that_is_cut_off_is_told(file_format: str, share: float) -> None:
    content = encode(random_picture(200, 160), file_format, **FORMATS[file_format])
    assert "is cut off" in refused(content[: int(len(content) * share)]).message


def test_an_empty_file_is_told() -> None:
    assert refused(b"").message == "the image file is empty"


@pytest.mark.parametrize("file_format", FORMATS)
def test_s20_the_size_is_told_before_anything_is_decoded(file_format: str) -> None:
    sizes: list[tuple[int, int]] = []

    def refuse(*size: int) -> None:
        sizes.append((size[0], size[1]))
        raise UnusableImageError("not today")

    content = encode(random_picture(60, 40), file_format, **FORMATS[file_format])
    with pytest.raises(UnusableImageError, match="not today"):
        decode_image(EncodedImage(content[: len(content) // 2], ""), MOST, refuse)
    assert sizes == [(60, 40)]


@pytest.mark.parametrize("kind", ["VP8 ", "VP8L", "VP8X"])
def test_s20_the_canvas_of_a_webp_is_read_from_its_header(kind: str) -> None:
    picture = random_picture(8, 8, "RGBA" if kind == "VP8X" else "RGB")
    content = bytearray(encode(picture, "WEBP", lossless=kind == "VP8L"))
    assert content[12:16].decode() == kind
    side = 16_383
    if kind == "VP8X":
        content[24:30] = (side - 1).to_bytes(3, "little") * 2
    elif kind == "VP8L":
        content[21:25] = ((side - 1) | (side - 1) << 14).to_bytes(4, "little")
    else:
        content[26:30] = side.to_bytes(2, "little") * 2
    assert f"it is {side} x {side} pixels" in refused(bytes(content)).message


@pytest.mark.parametrize("orientation", range(9))
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "I;16"])
def test_large_pictures_are_decoded_in_bands_to_the_same_pixels(
    orientation: int, mode: str
) -> None:
    """As Pillow would show them, step by step and whole."""
    picture = random_picture(30, 600, "RGBA" if mode in {"P", "I;16"} else mode)
    picture = picture.convert("RGB").quantize(64) if mode == "P" else picture
    picture = picture.convert("L").convert("I").convert("I;16") if mode == "I;16" else picture
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"transparency": 3} if mode == "P" else {}
    content = encode(picture, exif=exif, **options)
    with Image.open(io.BytesIO(content)) as stored:
        shown = ImageOps.exif_transpose(stored)
    if mode == "I;16":
        shown = shown.convert("I").point(lambda value: value / 256).convert("L")
    elif mode != "RGB":
        shown = shown.convert("RGBA")
        shown = Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown)
    assert decode(content).tobytes() == shown.convert("RGB").tobytes()


def test_s20_a_jpeg_has_so_many_scans_and_no_more() -> None:
    assert decode(repeated_scans(64, 90)).size == (64, 64)
    error = refused(repeated_scans(64, 200))
    assert "at most 100" in error.message


def test_a_picture_that_is_given_stays_as_it_is() -> None:
    picture = random_picture(9, 5)
    picture.getexif()[0x0112] = 6
    before = picture.tobytes()
    assert as_shown(picture, MOST, "").size == (5, 9)
    assert (picture.size, picture.tobytes()) == ((9, 5), before)


def test_s20_compressed_text_does_not_unfold() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("bomb", "x" * 80_000_000, zip=True)
    refused(encode(random_picture(4, 4), pnginfo=info))


POLYGLOTS = {
    "tiff": encode(random_picture(4, 4), "TIFF"),
    "dds": encode(random_picture(4, 4), "DDS"),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "pdf": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
    "psd": b"8BPS\x00\x01" + b"\x00" * 60,
    "fits": b"SIMPLE  =                    T" + b" " * 2850,
    "wmf": b"\xd7\xcd\xc6\x9a" + b"\x00" * 60,
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "gd": b"\xff\xfe\x00\x04\x00\x04" + b"\x00" * 60,
    "ppm": b"P6 1 1 255 abc",
    "ico": encode(random_picture(16, 16), "ICO"),
}


@pytest.mark.parametrize("name", POLYGLOTS)
def test_s17_s18_s19_formats_off_the_list(name: str) -> None:
    error = refused(POLYGLOTS[name])
    assert "cannot be decoded" in error.message


@pytest.mark.parametrize(
    "content", [b"", b"\x00", b"not an image", b"\x89PNG\r\n\x1a\n", b"GIF89a"]
)
def test_what_is_no_image(content: bytes) -> None:
    refused(content)


def test_s21_a_broken_chunk() -> None:
    content = bytearray(encode(random_picture(16, 16)))
    content[content.index(b"IDAT")] ^= 0x80
    refused(bytes(content))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file_format", FORMATS)
@given(data=st.data())
def test_s21_broken_files_are_refused_or_read(file_format: str, data: st.DataObject) -> None:
    content = bytearray(encode(random_picture(24, 16), file_format))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    for place in (
        data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8)) if content else []
    ):
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(UnusableImageError):
        assert decode(bytes(content)).mode == "RGB"
