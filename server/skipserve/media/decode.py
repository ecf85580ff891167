"""Hostile image bytes to an RGB picture, under limits that are checked before decoding."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from skipserve.errors import UnusableImageError
from skipserve.media.data_uri import FORMAT_OF_MEDIA_TYPE, EncodedImage

_FORMATS = tuple(dict.fromkeys(FORMAT_OF_MEDIA_TYPE.values()))

# So much of a file's beginning tells its format, as in Pillow.
_MAGIC_LENGTH = 16

# What shows through transparent pixels.
BACKGROUND = (255, 255, 255)


@dataclass(frozen=True)
class PixelLimits:
    """How much may be decoded.

    Attributes:
        image_pixels: width times height of one image.
        request_pixels: the same, over all images of a request.
    """

    image_pixels: int
    request_pixels: int


def decode_images(images: list[EncodedImage], limits: PixelLimits) -> list[Image.Image]:
    """Return images as RGB, upright, opaque; of an animation the first frame.

    Raises:
        UnusableImageError: one is broken, of another format, or over a limit.
    """
    budget = limits.request_pixels
    decoded = []
    for image in images:
        allowed = min(limits.image_pixels, budget)
        picture = _decode(image, allowed)
        budget -= picture.width * picture.height
        decoded.append(picture)
    return decoded


def _decode(image: EncodedImage, max_pixels: int) -> Image.Image:
    with _refuses_broken(image.param, image.content), _open(image.content) as picture:
        return as_shown(picture, max_pixels, image.param)


def _open(content: bytes) -> ImageFile.ImageFile:
    """Open a file as `Image.open` does, but for Pillow's own limit: it does not tell the size.

    Nothing is decoded before `_check_size` has seen the size.
    """
    Image.init()
    for name in _FORMATS:
        factory, accepts = Image.OPEN[name]
        if accepts is None or accepts(content[:_MAGIC_LENGTH]) is True:
            return factory(io.BytesIO(content), "")
    raise UnidentifiedImageError


def as_shown(picture: Image.Image, max_pixels: int, param: str) -> Image.Image:
    """Return an opened picture as a viewer shows it: RGB, upright, opaque.

    Raises:
        UnusableImageError: it is broken or has more than `max_pixels`.
    """
    with _refuses_broken(param):
        _check_size(picture, max_pixels, param)
        picture.load()
        return _flatten(ImageOps.exif_transpose(picture))


@contextmanager
def _refuses_broken(param: str, content: bytes | None = None) -> Iterator[None]:
    """Turn whatever Pillow raises into our own error, without Pillow's words."""
    try:
        yield
    except UnusableImageError:
        raise
    except Exception as error:
        raise UnusableImageError(_tell_fault(error, content), param) from error


def _tell_fault(error: Exception, content: bytes | None) -> str:
    if content == b"":
        return "the image file is empty"
    if "truncated" in str(error).lower() or _is_cut_webp(content or b""):
        return "the image file is cut off: its end is missing"
    return "the image cannot be decoded; JPEG, PNG, WebP, GIF and BMP are read"


def _is_cut_webp(content: bytes) -> bool:
    """Whether a WebP file is shorter than it says; Pillow does not tell why it fails."""
    return content[:4] == b"RIFF" and int.from_bytes(content[4:8], "little") + 8 > len(content)


def _check_size(picture: Image.Image, max_pixels: int, param: str) -> None:
    size, num_pixels = f"{picture.width} x {picture.height}", picture.width * picture.height
    if num_pixels == 0:
        raise UnusableImageError(f"the image is empty: it is {size} pixels", param)
    if num_pixels > max_pixels:
        raise UnusableImageError(
            f"the image is too large: it is {size} pixels, and at most {max_pixels} pixels are "
            "left for it",
            param,
        )


def _flatten(picture: Image.Image) -> Image.Image:
    """Return a picture with 8 bits a channel, on the background."""
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = _to_eight_bits(picture)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        canvas = Image.new("RGBA", picture.size, (*BACKGROUND, 255))
        picture = Image.alpha_composite(canvas, picture)
    return picture.convert("RGB")


def _to_eight_bits(picture: Image.Image) -> Image.Image:
    """Return a 16-bit grey picture with its upper 8 bits (Pillow's own conversion clips)."""
    return picture.convert("I").point(lambda value: value / 256).convert("L")
