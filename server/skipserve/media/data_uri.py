"""Takes the bytes of an image out of a data URI in a request. Fetches nothing."""

import base64
import binascii
import re
from dataclasses import dataclass

from skipserve.errors import FeatureOffError, InvalidRequestError, UnusableImageError

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
    """An image file as it came.

    Attributes:
        content: its bytes.
        param: the field of the request that held it.
    """

    content: bytes
    param: str


def is_data_uri(url: str) -> bool:
    """Whether a URL is meant as one that holds its data."""
    return url[:_LONGEST_HEAD].strip().lower().startswith("data:")


def decode_data_uri(url: str, param: str, max_bytes: int) -> EncodedImage:
    """Return the bytes in a `data:image/...;base64,` URI.

    Args:
        url: the URI.
        param: the field that held it, for messages.
        max_bytes: what the image may weigh; checked before decoding.

    Raises:
        FeatureOffError: the URL is remote.
        InvalidRequestError: it is not of the form of a data URI with base64.
        UnusableImageError: the declared type is not on the list, the base64 is not valid, or the
            image is too heavy.
    """
    head = _HEAD.match(url[:_LONGEST_HEAD])
    if head is None:
        raise _wrong_url(url, param)
    media_type = head.group(1).strip().lower()
    if media_type not in FORMAT_OF_MEDIA_TYPE:
        raise UnusableImageError(
            "the declared type of an image must be one of " + ", ".join(FORMAT_OF_MEDIA_TYPE),
            param,
        )
    payload = _base64(url, head.end())
    num_bytes = _decoded_length(payload)
    if num_bytes > max_bytes:
        raise UnusableImageError(
            f"the image file holds {num_bytes} bytes; it may hold at most {max_bytes} bytes", param
        )
    try:
        content = base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnusableImageError("the image is not valid base64", param) from error
    if len(content) != num_bytes:
        raise UnusableImageError("the image is not valid base64: wrong padding", param)
    return EncodedImage(content, param)


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


def _wrong_url(url: str, param: str) -> FeatureOffError | InvalidRequestError:
    if is_data_uri(url):
        return InvalidRequestError(
            "a data URI must begin with data:image/png;base64, or another allowed image type", param
        )
    return FeatureOffError(
        "images are taken from data URIs only: fetching URLs is switched off on this server; "
        "--media-hosts or --allow-any-media-host switches it on",
        param,
    )
