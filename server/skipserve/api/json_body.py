"""Reads JSON as it arrives: counts what it holds before it is parsed, and sets pictures aside.

A picture, and so a video or a sound, is one long string of few kinds of characters: it costs a
copy. All else may become many objects, so that there is a ceiling for it, and for how many values
it may hold.
"""

import json
import re
import secrets
import string
import sys
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from typing import Any

from skipserve.errors import BodyTooLargeError, InvalidRequestError

MAX_VALUES = 16_384
# What a picture's data URI begins with, or that of a video or a sound, all of one length; and what
# it is made of: base64, the breaks of its lines, parameters before it, commas between frames.
_URI_HEADS = (b"data:image", b"data:video", b"data:audio")
_HEAD_SIZE = len(_URI_HEADS[0])
_BASE64 = (string.ascii_letters + string.digits + "+/=\r\n").encode()
_OF_URI = _BASE64 + b",:;._-%\t \"'()!*~&#$"
# What the base64 of a JPEG, PNG, GIF or WebP begins with where it stands alone; of WAV as of WebP.
_FILE_HEADS = (b"/9j/", rb"\/9j", b"iVBORw0KGg", b"R0lGOD", b"UklGR")
# The longest escape, such as \u002b, but for its last byte.
_OPEN_ESCAPE = 5
# The last string may have no end.
_TOKENS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}:]', re.DOTALL)
_FREE_ESCAPES = 1024
_BOM = b"\xef\xbb\xbf"
_MAX_NAME = 200
# A value and its name are at most so many.
_MAX_TOKENS = 4 * MAX_VALUES


@dataclass
class JsonBody:
    """A body that has arrived, within its limits.

    Attributes:
        text: the JSON, with a name in the place of each picture.
        pictures: the data URIs by those names, which no client can guess.
    """

    text: bytes
    pictures: dict[str, str]

    def parse(self) -> Any:
        """Return the value, and let go of what it was read from.

        Raises:
            JSONDecodeError: it is not JSON.
            InvalidRequestError: it is not UTF-8, is nested too deeply, says a field twice, or has a
                number that is too long.
        """
        text, pictures = self.text, self.pictures
        self.text, self.pictures = b"", {}
        try:
            value = json.loads(text.decode(), object_pairs_hook=_fields)
        except UnicodeDecodeError as error:
            raise InvalidRequestError("the body cannot be read as UTF-8 JSON") from error
        except RecursionError as error:
            raise InvalidRequestError("the body is nested too deeply") from error
        except json.JSONDecodeError:
            raise
        except ValueError as error:
            most = sys.get_int_max_str_digits()
            raise InvalidRequestError(f"a number may have at most {most} digits") from error
        return _with_pictures(value, pictures) if pictures else value


def _fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; others than this server might take the first of two values."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        [(name, number)] = Counter(name for name, _ in pairs).most_common(1)
        shown = json.dumps(name)[1:-1][:_MAX_NAME]
        raise InvalidRequestError(f"{shown} is given {number} times; send it once", shown)
    return fields


def _with_pictures(value: Any, pictures: dict[str, str]) -> Any:
    """Put pictures into their places; not by recursion, which has an end."""
    whole = [value]
    open_values: list[Any] = [whole]
    while open_values:
        outer = open_values.pop()
        if not isinstance(outer, dict | list):
            continue
        if isinstance(outer, dict):
            for name in outer.keys() & pictures.keys():
                outer[pictures[name]] = outer.pop(name)
        for place, inner in tuple(outer.items() if isinstance(outer, dict) else enumerate(outer)):
            if isinstance(inner, str):
                outer[place] = pictures.get(inner, inner)
            else:
                open_values.append(inner)
    return whole[0]


class _Picture:
    """A string that is a picture so far.

    Args:
        plain: the characters that it may hold.
        start: what it begins with, in lower case.
    """

    def __init__(self, plain: bytes, start: bytes = b"") -> None:
        self._plain = plain
        self._wanted_start = start
        self._parts: list[bytes] = []
        self._start = b""
        self._num_escapes = 0
        self._num_bytes = 0

    @property
    def content(self) -> bytes:
        """What has come of it, without escapes."""
        return b"".join(self._parts)

    def take(self, part: bytes) -> bool:
        """Take the next part, in which escapes are whole; False if it is none of a picture."""
        self._num_bytes += len(part)
        if b"\\" in part:
            self._num_escapes += part.count(b"\\")
            # Encoders escape / or +: two characters of 64. More would cost too much.
            if self._num_escapes * 8 > self._num_bytes + _FREE_ESCAPES:
                return False
            part = _unescape(part)
        if part.translate(None, self._plain) or not self._begins_well(part):
            return False
        self._parts.append(part)
        return True

    def _begins_well(self, part: bytes) -> bool:
        self._start += part[: len(self._wanted_start) - len(self._start)]
        return self._wanted_start.startswith(self._start.lower())


def _unescape(part: bytes) -> bytes:
    """Return what a part of a string stands for; itself where that is none of a picture."""
    try:
        return str(json.loads(b'"%b"' % part)).encode("ascii")
    except ValueError:
        return part


class JsonScanner:
    """Takes a body in pieces; each costs a few passes at the speed of C, whatever it holds.

    Args:
        max_text_bytes: what the body may hold besides pictures.
        max_values: how many values; names of fields count too.
    """

    def __init__(self, max_text_bytes: int, max_values: int = MAX_VALUES) -> None:
        self._max_text_bytes = max_text_bytes
        self._max_values = max_values
        self._nonce = secrets.token_hex(8)
        self._held = b""
        self._text = bytearray()
        self._num_values = 0
        self._is_in_string = False
        self._picture: _Picture | None = None
        self._pictures: dict[str, str] = {}

    def feed(self, piece: bytes) -> None:
        """Take the next piece.

        Raises:
            BodyTooLargeError: there is too much text.
            InvalidRequestError: there are too many values.
        """
        self._scan(self._held + piece, is_last=False)

    def finish(self) -> JsonBody:
        """Return the whole.

        Raises:
            BodyTooLargeError: there is too much text.
            InvalidRequestError: there are too many values.
        """
        self._scan(self._held, is_last=True)
        if self._picture is not None:  # a string without an end
            self._become_text(b"")
        return JsonBody(bytes(self._text).removeprefix(_BOM), self._pictures)

    def _scan(self, data: bytes, *, is_last: bool) -> None:
        # Of the same length, and in it each quote is the beginning or the end of a string.
        mask = data.replace(rb"\\", b"__").replace(rb"\"", b"__")
        end = len(data)
        if not is_last and (escape := mask.rfind(b"\\", max(end - _OPEN_ESCAPE, 0))) >= 0:
            end = escape
        at = 0
        while (quote := mask.find(b'"', at, end)) >= 0:
            self._take(data[at:quote])
            at = quote + 1
            if self._is_in_string:
                self._close_string()
            elif is_last or self._can_tell(mask, at, end):
                self._open_string(data[at : at + _HEAD_SIZE])
            else:
                at = quote
                break
        else:
            self._take(data[at:end])
            at = end
        self._held = data[at:]

    @staticmethod
    def _can_tell(mask: bytes, at: int, end: int) -> bool:
        """Whether enough of a string is there to say what it is."""
        return end - at >= _HEAD_SIZE or mask.find(b'"', at, end) >= 0

    def _open_string(self, head: bytes) -> None:
        self._is_in_string = True
        self._count(1, b"")
        self._add(b'"')
        if head.lower() in _URI_HEADS:
            # The slash behind it may be escaped.
            self._picture = _Picture(_OF_URI, head.lower() + b"/")
        elif head.startswith(_FILE_HEADS):
            self._picture = _Picture(_BASE64)

    def _close_string(self) -> None:
        self._is_in_string = False
        if self._picture is not None:
            name = f"{self._nonce}-{len(self._pictures)}"
            self._pictures[name] = self._picture.content.decode("ascii")
            self._picture = None
            self._add(name.encode())
        self._add(b'"')

    def _take(self, part: bytes) -> None:
        """Take a part of a string, or what stands between two."""
        if self._picture is not None:
            if not self._picture.take(part):
                self._become_text(part)
            return
        if not self._is_in_string:
            self._count(part.count(b",") + part.count(b"[") + part.count(b"{"), part)
        self._add(part)

    def _become_text(self, part: bytes) -> None:
        """Go on with a string that began like a picture and is none."""
        assert self._picture is not None
        begun, self._picture = self._picture, None
        self._add(json.dumps(begun.content.decode("ascii"))[1:-1].encode())
        self._add(part)

    def _add(self, part: bytes) -> None:
        self._text += part
        if len(self._text) > self._max_text_bytes:
            raise BodyTooLargeError(
                f"the body may hold at most {self._max_text_bytes} bytes besides its pictures",
                _field_at_end(self._text),
            )

    def _count(self, number: int, part: bytes) -> None:
        self._num_values += number
        if self._num_values > self._max_values:
            raise InvalidRequestError(
                f"the body may hold at most {self._max_values} values and names of fields",
                _field_at_end(self._text + part[:_MAX_NAME]),
            )


def _field_at_end(text: bytes | bytearray) -> str | None:
    """Return the field of the request at which its text ends; None where there is none."""
    depth, last, name = 0, None, None
    for found in islice(_TOKENS.finditer(text), _MAX_TOKENS):
        token = found[0]
        if token in b"[{":
            depth += 1
        elif token in b"]}":
            depth -= 1
        elif token != b":":
            last = token
        elif depth == 1:
            name = last
    return None if name is None else _readable(name)


def _readable(name: bytes) -> str | None:
    try:
        text: str = json.loads(name)
        text.encode()
    except ValueError:
        return None
    return text[:_MAX_NAME]
