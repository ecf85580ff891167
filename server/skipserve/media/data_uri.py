"""Takes the bytes of an image, a video or a sound out of a data URI. Fetches nothing."""

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass

from skipserve.errors import FeatureOffError, InvalidRequestError, UnusableImageError
from skipserve.media.frames import check_frames, pick_frames
from skipserve_policies.sizes import FRAMES_SHOWN, Modality

# What a data URI may declare, and the Pillow plugins that may read it.
FORMAT_OF_MEDIA_TYPE = {
    "image/jpeg": "JPEG",
    "image/jpg": "JPEG",
    "image/png": "PNG",
    "image/webp": "WEBP",
    "image/gif": "GIF",
    "image/bmp": "BMP",
    "image/x-ms-bmp": "BMP",
}

# Pictures, one after the other, with a comma between: vLLM's form of a video.
_PICTURES = "video/jpeg"
# What holds frames, and what sounds.
_VIDEO_TYPES = ("image/gif", "image/webp", "image/png", "image/apng", _PICTURES)
_AUDIO_TYPES = ("audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave")
_TYPES: dict[Modality, tuple[str, ...]] = {
    Modality.IMAGE: tuple(FORMAT_OF_MEDIA_TYPE),
    Modality.VIDEO: _VIDEO_TYPES,
    Modality.AUDIO: _AUDIO_TYPES,
}
_EXAMPLES = {
    Modality.IMAGE: "image/png",
    Modality.VIDEO: "image/gif",
    Modality.AUDIO: "audio/wav",
}
# What to call one of a kind, in messages.
NOUNS = {Modality.IMAGE: "image", Modality.VIDEO: "video", Modality.AUDIO: "sound"}

# Between the type and the encoding, RFC 2397 has parameters: charset=utf-8, name="a, b.png".
_HEAD = re.compile(
    r'data:([^;,]{1,100})(?:;[^;,="]{1,100}=(?:"[^"]{0,300}"|[^;,"]{0,300}))*; *base64 *,',
    re.IGNORECASE,
)
_LONGEST_HEAD = 1024
# What of base64 and its lines is escaped in URIs.
_ESCAPES = (("%2B", "+"), ("%2F", "/"), ("%3D", "="), ("%0D", "\r"), ("%0A", "\n"))


@dataclass(frozen=True)
class EncodedImage:
    """A file of an image, a video or a sound as it came.

    Attributes:
        content: its bytes.
        param: the field of the request that held it.
        frames: the files of the frames that are shown, of a video that came as pictures; there is
            no other content then.
    """

    content: bytes
    param: str
    frames: tuple[bytes, ...] = ()


def is_data_uri(url: str) -> bool:
    """Whether a URL is meant as one that holds its data."""
    return url[:_LONGEST_HEAD].strip().lower().startswith("data:")


def decode_data_uri(
    url: str, param: str, max_bytes: int, modality: Modality = Modality.IMAGE
) -> EncodedImage:
    """Return the bytes in a `data:image/...;base64,` URI, or in one of a video or a sound.

    Args:
        url: the URI.
        param: the field that held it, for messages.
        max_bytes: what the file may weigh; checked before decoding.
        modality: what it must be.

    Raises:
        FeatureOffError: the URL is remote.
        InvalidRequestError: it is not of the form of a data URI with base64.
        UnusableImageError: the declared type is not on the list, the base64 is not valid, or the
            file is too heavy.
    """
    head = _HEAD.match(url[:_LONGEST_HEAD])
    if head is None:
        raise _wrong_url(url, param, modality)
    noun, media_type = NOUNS[modality], head.group(1).strip().lower()
    if media_type not in _TYPES[modality]:
        raise UnusableImageError(
            f"the declared type of {_a(modality)} must be one of " + ", ".join(_TYPES[modality]),
            param,
        )
    payload = _base64(url, head.end())
    num_bytes = _decoded_length(payload)
    if num_bytes > max_bytes:
        raise UnusableImageError(
            f"the {noun} file holds {num_bytes} bytes; it may hold at most {max_bytes} bytes", param
        )
    if media_type == _PICTURES:
        return EncodedImage(b"", param, tuple(_pictures(payload, param)))
    return EncodedImage(_decoded(payload, noun, param), param)


def _pictures(payload: str, param: str) -> Iterator[bytes]:
    """Yield the pictures that are shown of those of a video; the others are not decoded."""
    count = payload.count(",") + 1 if payload else 0
    check_frames(count, FRAMES_SHOWN, param)
    pictures = payload.split(",")
    for number in pick_frames(count, FRAMES_SHOWN):
        yield _decoded(pictures[number], "video", param)


def _decoded(payload: str, noun: str, param: str) -> bytes:
    try:
        content = base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnusableImageError(f"the {noun} is not valid base64", param) from error
    if len(content) != _decoded_length(payload):
        raise UnusableImageError(f"the {noun} is not valid base64: wrong padding", param)
    return content


def _a(modality: Modality) -> str:
    return f"{'an' if modality is Modality.IMAGE else 'a'} {NOUNS[modality]}"


def _base64(url: str, start: int) -> str:
    """Return what follows the head, as one line in base64's own characters."""
    payload = url[start:]
    if "%" in payload:
        for escape, character in _ESCAPES:
            payload = payload.replace(escape, character).replace(escape.lower(), character)
    if "\n" in payload or "\r" in payload:
        # Encoders for mail break lines, and YAML indents them.
        return "".join(map(str.strip, payload.replace("\r", "\n").split("\n")))
    return payload


def _decoded_length(payload: str) -> int:
    return len(payload) // 4 * 3 - payload[-2:].count("=")


def _wrong_url(url: str, param: str, modality: Modality) -> FeatureOffError | InvalidRequestError:
    noun, example = NOUNS[modality], _EXAMPLES[modality]
    if is_data_uri(url):
        return InvalidRequestError(
            f"a data URI must begin with data:{example};base64, or another allowed {noun} type",
            param,
        )
    return FeatureOffError(
        f"{noun}s are taken from data URIs only: fetching URLs is switched off on this server; "
        "--media-hosts or --allow-any-media-host switches it on",
        param,
    )
