"""What is said to the model: pictures as data URIs, and chat messages. Knows no HTTP."""

import base64
import io
import os
from collections.abc import Mapping
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

    def save(self, fp: io.BytesIO, format: str) -> None:
        """Write the picture as a file of the given format."""


# A path, the bytes of a picture file, or a PIL image.
ImageSource = str | os.PathLike[str] | bytes | Picture


def image_data_uri(image: ImageSource) -> str:
    """Return a picture as a data URI; a string that is one already is returned as it is.

    Raises:
        PictureError: the file cannot be read, or is not JPEG, PNG, WebP, GIF or BMP.
    """
    if isinstance(image, str) and image.startswith("data:"):
        return image
    data = _picture_bytes(image)
    return f"data:{_media_type(data)};base64,{base64.b64encode(data).decode()}"


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
        except OSError as error:
            reason = error.strerror or "it cannot be read"
            raise PictureError(f"no picture at {os.fspath(image)}: {reason}") from error
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _media_type(data: bytes) -> str:
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    for signature, media_type in _SIGNATURES.items():
        if data.startswith(signature):
            return media_type
    raise PictureError("the picture is not a JPEG, PNG, WebP, GIF or BMP file")
