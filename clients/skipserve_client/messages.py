"""What is said to the model: pictures and sounds as data URIs, and messages. Knows no HTTP."""

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
_WAV = "data:audio/wav;base64,"
_MAY_MOVE = tuple(f"data:image/{kind};base64" for kind in ("gif", "webp", "png"))
# Characters of base64 that are looked at, and the bit of a WebP's flags that says that it moves.
_TELLING = 4096
_WEBP_MOVES = 2


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
    return _data_uri(image, _picture_bytes(image), "JPEG, PNG, WebP, GIF or BMP")


def media_data_uri(source: ImageSource) -> str:
    """Return a picture, an animation or a sound as `image_data_uri` does; sounds are WAV files.

    Raises:
        PictureError: the file cannot be read, or is of none of these kinds.
    """
    if isinstance(source, str) and source.startswith("data:"):
        return source
    data = _picture_bytes(source)
    if data.startswith(b"RIFF") and data[8:12] == b"WAVE":
        return f"{_WAV}{base64.b64encode(data).decode()}"
    return _data_uri(source, data, "JPEG, PNG, WebP, GIF, BMP or WAV")


def may_move(uri: str) -> bool:
    """Whether a data URI of a picture can be of one that moves, and so is a video to some."""
    head, _, payload = uri.partition(",")
    if head not in _MAY_MOVE:
        return False
    try:
        # What tells it stands before the first picture.
        begin = base64.b64decode(payload[:_TELLING])
    except ValueError:
        return False
    if head.startswith("data:image/webp"):
        return begin[12:16] == b"VP8X" and any(it & _WEBP_MOVES for it in begin[20:21])
    return not head.startswith("data:image/png") or b"acTL" in begin.partition(b"IDAT")[0]


def question_messages(
    image: ImageSource, question: str, *, is_video: bool = False
) -> list[Message]:
    """Return the chat that asks one question about one picture, animation or sound.

    Args:
        image: any of them; sounds are told by what is in them.
        question: what is asked.
        is_video: whether a picture is sent as a video, for a model that takes videos.
    """
    part = _part(media_data_uri(image), is_video=is_video)
    return [{"role": "user", "content": [part, {"type": "text", "text": question}]}]


def _part(uri: str, *, is_video: bool) -> dict[str, Any]:
    if uri.startswith("data:audio/"):
        data = uri.partition(",")[2]
        return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    kind = "video_url" if is_video or uri.startswith("data:video/") else "image_url"
    return {"type": kind, kind: {"url": uri}}


def _data_uri(source: ImageSource, data: bytes, kinds: str) -> str:
    media_type = _media_type(data)
    if media_type is None:
        name = os.fspath(source) if isinstance(source, str | os.PathLike) else "the picture"
        raise PictureError(f"{name} is not a {kinds} file" if data else f"{name} is empty")
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


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
