"""Hostile bytes to an RGB picture, or to frames, under limits that are checked before decoding.

Runs in the processes of `worker` and, for an operator's own files, offline: imports nothing heavy.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# Each plugin is imported by its name: `Image.init` would import all forty. The one of TIFF reads
# EXIF.
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from skipserve.errors import UnusableImageError
from skipserve.media.data_uri import FORMAT_OF_MEDIA_TYPE, EncodedImage
from skipserve.media.frames import check_frames, pick_frames

PLUGINS = (
    *(BmpImagePlugin, GifImagePlugin, JpegImagePlugin),
    *(PngImagePlugin, TiffImagePlugin, WebPImagePlugin),
)
_FORMATS = tuple(dict.fromkeys(FORMAT_OF_MEDIA_TYPE.values()))
# Those of them that hold frames.
_ANIMATED = ("GIF", "WEBP", "PNG")

_IMAGE, _VIDEO = "image", "video"
_READ = {_IMAGE: "JPEG, PNG, WebP, GIF and BMP", _VIDEO: "animated GIF, WebP and PNG"}

# So much of a file's beginning tells its format, as in Pillow.
_MAGIC_LENGTH = 16

# What shows through transparent pixels.
BACKGROUND = (255, 255, 255)

# Rows that are made opaque at a time, so that a large picture is not held four times.
_BAND_ROWS = 256

# A scan goes over the whole picture, whatever it weighs. Encoders write ten to a few dozen.
_MAX_SCANS = 100
_START_OF_SCAN = b"\xff\xda"

# Hears a picture's width and height before it is decoded, and raises where that should not be.
BeforeLoad = Callable[[int, int], None]
# The same of a video, and how many frames are decoded.
BeforeFrames = Callable[[int, int, int], None]


@dataclass(frozen=True)
class PixelLimits:
    """How much may be decoded.

    Attributes:
        image_pixels: width times height of one image.
        request_pixels: the same, over all images of a request.
    """

    image_pixels: int
    request_pixels: int


def decode_image(
    image: EncodedImage, max_pixels: int, before_load: BeforeLoad | None = None
) -> Image.Image:
    """Return an image as RGB, upright, opaque; of an animation the first frame.

    Args:
        image: the file.
        max_pixels: width times height that it may have.
        before_load: is told them before anything is decoded, of some files twice.

    Raises:
        UnusableImageError: it is broken, of another format, or over a limit.
    """
    with _refuses_broken(image.param, image.content):
        _check_scans(image)
        if (size := _webp_size(image.content)) is not None:
            # Its decoder takes memory for two canvases as soon as the file is opened.
            _check_size(size, max_pixels, image.param, before_load)
        with _open(image) as picture:
            _check_size(picture.size, max_pixels, image.param, before_load)
            return _as_shown(picture)


def decode_video(
    video: EncodedImage, num_frames: int, max_pixels: int, before_load: BeforeFrames
) -> Iterator[Image.Image]:
    """Yield the frames of a video that are shown, RGB and opaque, each gone before the next.

    Args:
        video: the file, or the pictures that are shown.
        num_frames: how many are.
        max_pixels: width times height times frames that it may have.
        before_load: is told these before anything is decoded; of some files twice, the second time
            with all frames.

    Raises:
        UnusableImageError: it is broken, of another format, or over a limit, or has too few frames.
    """
    if not video.frames:
        yield from _animation(video, num_frames, max_pixels, before_load)
        return
    size: tuple[int, int] | None = None

    def know_size(width: int, height: int) -> None:
        nonlocal size
        if size is None:
            size = width, height
            before_load(width, height, num_frames)
        elif size != (width, height):
            raise UnusableImageError(
                f"a frame of the video is {width} x {height} pixels, and the first {size[0]} x "
                f"{size[1]}: all are of one size",
                video.param,
            )

    for content in video.frames:
        yield decode_image(EncodedImage(content, video.param), max_pixels // num_frames, know_size)


def _animation(
    video: EncodedImage, num_frames: int, max_pixels: int, before_load: BeforeFrames
) -> Iterator[Image.Image]:
    with _refuses_broken(video.param, video.content, _VIDEO):
        if (size := _webp_size(video.content)) is not None:
            # As of a picture: its decoder takes memory before it tells how many frames there are.
            _check_size(size, max_pixels // num_frames, video.param)
            before_load(*size, num_frames)
        with _open(video, _ANIMATED) as opened:
            count = getattr(opened, "n_frames", 1)
            check_frames(count, num_frames, video.param)
            _check_size(opened.size, max_pixels // count, video.param)
            before_load(*opened.size, count)
            size = opened.size
            for number in pick_frames(count, num_frames):
                opened.seek(number)
                _check_still(size, opened.size, video.param)
                yield _as_shown(opened)


def _check_still(size: tuple[int, int], found: tuple[int, int], param: str) -> None:
    """Refuse a video that grows: a frame of a GIF may reach over its edge."""
    if found != size:
        raise UnusableImageError(
            f"the video is {size[0]} x {size[1]} pixels, and a frame reaches to {found[0]} x "
            f"{found[1]}",
            param,
        )


def _open(image: EncodedImage, formats: tuple[str, ...] = _FORMATS) -> ImageFile.ImageFile:
    """Open a file as `Image.open` does, but for Pillow's own limit: it does not tell the size."""
    for name in formats:
        factory, accepts = Image.OPEN[name]
        if accepts is None or accepts(image.content[:_MAGIC_LENGTH]) is True:
            return factory(io.BytesIO(image.content), "")
    raise UnidentifiedImageError


def _check_scans(image: EncodedImage) -> None:
    content = image.content
    if content[:2] == b"\xff\xd8" and (num_scans := content.count(_START_OF_SCAN)) > _MAX_SCANS:
        raise UnusableImageError(
            f"the image is a JPEG of {num_scans} scans; it may have at most {_MAX_SCANS}",
            image.param,
        )


def _webp_size(content: bytes) -> tuple[int, int] | None:
    """Return the width and height that a WebP file claims; None where it is of another form.

    Source: RFC 9649, sections 2.7 and 3.4, and RFC 6386, section 9.1.
    """
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP":
        return None
    match content[12:16]:
        case b"VP8X":
            return _little(content[24:27]) + 1, _little(content[27:30]) + 1
        case b"VP8L":
            sides = _little(content[21:25])
            return (sides & 0x3FFF) + 1, (sides >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            return _little(content[26:28]) & 0x3FFF, _little(content[28:30]) & 0x3FFF
    return None


def _little(content: bytes) -> int:
    return int.from_bytes(content, "little")


def as_shown(picture: Image.Image, max_pixels: int, param: str) -> Image.Image:
    """Return an opened picture as a viewer shows it: RGB, upright, opaque.

    Raises:
        UnusableImageError: it is broken or has more than `max_pixels`.
    """
    with _refuses_broken(param):
        _check_size(picture.size, max_pixels, param)
        return _as_shown(picture)


def _as_shown(picture: Image.Image) -> Image.Image:
    picture.load()
    return _flatten(_upright(picture))


@contextmanager
def _refuses_broken(
    param: str, content: bytes | None = None, medium: str = _IMAGE
) -> Iterator[None]:
    """Turn whatever Pillow raises into our own error, without Pillow's words."""
    try:
        yield
    except UnusableImageError:
        raise
    except Exception as error:
        raise UnusableImageError(_tell_fault(error, content, medium), param) from error


def _tell_fault(error: Exception, content: bytes | None, medium: str) -> str:
    if isinstance(error, MemoryError):
        return f"the {medium} takes more memory to decode than one of its size may"
    if content == b"":
        return f"the {medium} file is empty"
    if "truncated" in str(error).lower() or _is_cut_webp(content or b""):
        return f"the {medium} file is cut off: its end is missing"
    return f"the {medium} cannot be decoded; {_READ[medium]} are read"


def _is_cut_webp(content: bytes) -> bool:
    """Whether a WebP file is shorter than it says; Pillow does not tell why it fails."""
    return content[:4] == b"RIFF" and int.from_bytes(content[4:8], "little") + 8 > len(content)


def _check_size(
    given: tuple[int, int], max_pixels: int, param: str, before_load: BeforeLoad | None = None
) -> None:
    width, height = given
    size, num_pixels = f"{width} x {height}", width * height
    if num_pixels == 0:
        raise UnusableImageError(f"the image is empty: it is {size} pixels", param)
    if num_pixels > max_pixels:
        raise UnusableImageError(
            f"the image is too large: it is {size} pixels, and at most {max_pixels} pixels are "
            "left for it",
            param,
        )
    if before_load is not None:
        before_load(width, height)


def _upright(picture: Image.Image) -> Image.Image:
    """Return a picture turned as its EXIF says; itself, and no copy, where that says nothing."""
    orientation = picture.getexif().get(ExifTags.Base.Orientation)
    return ImageOps.exif_transpose(picture) if orientation in range(2, 9) else picture


def _flatten(picture: Image.Image) -> Image.Image:
    """Return a picture with 8 bits a channel, on the background."""
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = _to_eight_bits(picture)
    if picture.has_transparency_data:
        return _opaque(picture)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _opaque(picture: Image.Image) -> Image.Image:
    """Return a picture on the background, made a band at a time."""
    width, height = picture.size
    shown = Image.new("RGB", picture.size)
    for top in range(0, height, _BAND_ROWS):
        bottom = min(top + _BAND_ROWS, height)
        band = picture.crop((0, top, width, bottom)).convert("RGBA")
        canvas = Image.new("RGBA", band.size, (*BACKGROUND, 255))
        shown.paste(Image.alpha_composite(canvas, band).convert("RGB"), (0, top))
    return shown


def _to_eight_bits(picture: Image.Image) -> Image.Image:
    """Return a 16-bit grey picture with its upper 8 bits (Pillow's own conversion clips)."""
    return picture.convert("I").point(lambda value: value / 256).convert("L")
