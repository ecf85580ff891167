"""What is said to the model: pictures as data URIs, and chat messages. Knows no HTTP."""

import base64
import io
import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, Protocol

from skipserve_client.errors import PictureError

Message = Mapping[str, Any]

# How files of the kinds that the server reads begin.
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
}


class Picture(Protocol):
    """A `PIL.Image.Image`, as far as it is needed here."""

    def getexif(self) -> MutableMapping[int, Any]:
        """Return what a camera noted."""

    def save(self, fp: io.BytesIO, format: str, **options: Any) -> None:
        """Write the picture as a file of the given format."""


# A path, the bytes of a picture file, or a PIL image.
ImageSource = str | os.PathLike[str] | bytes | Picture


def image_data_uri(image: ImageSource) -> str:
    """Return a picture as a data URI; a string that is one already is returned as it is.

    Raises:
        PictureError: the file cannot be read, or is not JPEG, PNG, WebP, GIF or BMP; or it is no
            picture at all.
    """
    if isinstance(image, str) and image.startswith("data:"):
        return image
    data = _picture_bytes(image)
    media_type = _media_type(data)
    if media_type is None:
        name = os.fspath(image) if isinstance(image, str | os.PathLike) else "the picture"
        raise PictureError(
            f"{name} is not a JPEG, PNG, WebP, GIF or BMP file" if data else f"{name} is empty"
        )
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def question_messages(image: ImageSource, question: str) -> list[Message]:
    """Return the chat that asks one question about one picture."""
    return [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": image_data_uri(image)}},
                {"type": "text", "text": question},
            ],
        }
    ]


def _picture_bytes(image: ImageSource) -> bytes:
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | os.PathLike):
        try:
            return Path(image).read_bytes()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise PictureError(f"no picture at {os.fspath(image)}: {reason}") from error
    if not hasattr(image, "getexif"):
        raise PictureError(
            "a picture is a path, the bytes of a picture file or a PIL image; this is of type "
            f"{type(image).__name__}"
        )
    return _as_png(image)


def _as_png(image: Picture) -> bytes:
    """Return the file of a PIL image, with the turn that a camera noted in it."""
    buffer = io.BytesIO()
    try:
        image.save(buffer, format="PNG", exif=image.getexif())
    except Exception as error:  # whatever Pillow makes of a mode or size that PNG does not know
        raise PictureError(f"the picture cannot be sent as PNG: {error}") from error
    return buffer.getvalue()


def _media_type(data: bytes) -> str | None:
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    for signature, media_type in _SIGNATURES.items():
        if data.startswith(signature):
            return media_type
    return None
