"""Tests of the scan that a body passes before it is parsed."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media_models import noise, wav_file
from pictures import encode, random_picture

from skipserve.api.json_body import JsonBody, JsonScanner
from skipserve.errors import BodyTooLargeError, InvalidRequestError

pytestmark = pytest.mark.fast

PICTURE = "data:image/png;base64," + "AB+/" * 100 + "=="
TEXTS = st.sampled_from(
    [PICTURE, "data:image", "DATA:IMAGE/gif;base64,AA", "data:image of a cat", "data:image/\u00e9"]
) | st.text(alphabet='da:\\"/[{,\n\u00e9\U0001f600', max_size=30)
VALUES = st.recursive(
    TEXTS | st.none() | st.integers(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def scan(body: bytes, size: int = 7, max_text_bytes: int = 10**6, **limits: int) -> JsonBody:
    scanner = JsonScanner(max_text_bytes, **limits)
    for at in range(0, len(body), size):
        scanner.feed(body[at : at + size])
    return scanner.finish()


@settings(max_examples=60)
@given(VALUES, st.booleans(), st.booleans(), st.integers(1, 60))
def test_what_arrives_is_what_was_sent(
    value: Any, is_ascii: bool, escapes_more: bool, size: int
) -> None:
    text = json.dumps(value, ensure_ascii=is_ascii)
    if escapes_more:
        text = text.replace("/", r"\/").replace("+", r"\u002B")
    assert scan(text.encode(), size).parse() == value


@pytest.mark.parametrize("size", [1, 2, 9, 64, 10**6])
@pytest.mark.parametrize(
    ("plain", "escaped"), [("/", r"\/"), ("+", r"\u002B"), ("data:image", "data:image")]
)
def test_a_picture_is_no_text_however_it_is_written(size: int, plain: str, escaped: str) -> None:
    picture = "data:image/png;base64," + ("+/" + "A" * 62) * 200
    body = json.dumps({"a": picture}).replace(plain, escaped).encode()
    read = scan(body, size, max_text_bytes=100)
    assert list(read.pictures.values()) == [picture]
    assert read.parse() == {"a": picture}
    assert (read.text, read.pictures) == (b"", {})


@pytest.mark.parametrize("size", [1, 7, 100, 10**6])
@pytest.mark.parametrize(
    "picture",
    [
        "data:image/png;base64," + "\r\n".join(["A" * 64] * 100),
        "data:image/png;base64,\n" + "\n".join(["A" * 76] * 100),
        'data:image/png;name="a, b.png";base64,' + "A" * 400,
        "data:image/png;name=a%20b;base64," + "A" * 400 + "%3D",
        "data:video/jpeg;base64," + ",".join(["AAAA" * 30] * 9),
        "DATA:audio/wav;base64," + "A" * 400,
        base64.b64encode(wav_file(noise(200))).decode(),
    ],
)
def test_lines_and_parameters_make_no_text_of_a_picture(size: int, picture: str) -> None:
    read = scan(json.dumps({"a": picture}).encode(), size, max_text_bytes=100)
    assert list(read.pictures.values()) == [picture]
    assert read.parse() == {"a": picture}


@pytest.mark.parametrize("size", [1, 7, 10**6])
@pytest.mark.parametrize("end", ["<", "\u00e9", "\\", "\\" * 2000])
def test_what_turns_out_to_be_no_picture_is_the_same_text(size: int, end: str) -> None:
    value = {"a": 'data:image/png;name="x",\n \r\t' + end, "b": 'data:image"'}
    assert scan(json.dumps(value).encode(), size).parse() == value


def test_a_body_that_begins_with_a_mark_of_its_order() -> None:
    assert scan(b"\xef\xbb\xbf[1]").parse() == [1]


@pytest.mark.parametrize("item", [b"x", b'\\"', b"\\\\", "\u00e9".encode(), b", "])
def test_text_has_a_ceiling(item: bytes) -> None:
    body = b'{"a": 1, "messages": "%b"}'
    assert scan(body % (item * 10), max_text_bytes=200).parse()["a"] == 1
    with pytest.raises(BodyTooLargeError) as caught:
        scan(body % (item * 200), max_text_bytes=200)
    assert caught.value.param == "messages"


@pytest.mark.parametrize("content", ["data:image/png,\u00e9", r"data:image\n", "data:image "])
def test_what_only_begins_like_a_picture_is_text(content: str) -> None:
    with pytest.raises(BodyTooLargeError):
        scan(json.dumps({"a": content + "A" * 300}).encode(), max_text_bytes=200)


def test_a_picture_of_nothing_but_escapes_is_text() -> None:
    with pytest.raises(BodyTooLargeError):
        scan(b'{"a": "data:image' + rb"\/" * 5000 + b'"}', max_text_bytes=200)


@pytest.mark.parametrize("item", [b"1", b"[]", b"{}", b'""', b'{"a": 1}', b"[[[1]]]"])
def test_values_are_counted_before_they_are_made(item: bytes) -> None:
    few, many = (b'{"a": 1, "stop": [' + b",".join([item] * number) for number in (10, 101))
    assert len(scan(few + b"]}", max_values=100).parse()["stop"]) == 10
    with pytest.raises(InvalidRequestError) as caught:
        scan(many, max_values=100)
    assert caught.value.param == "stop"


def test_signs_in_texts_are_no_values() -> None:
    value = {"a": '[,{"' * 200}
    assert scan(json.dumps(value).encode(), max_values=10).parse() == value


@pytest.mark.parametrize("body", [b'{"a"', b'"abc', b'{"a": "data:image/png', b"\\", b'"\\'])
def test_a_body_without_an_end(body: bytes) -> None:
    with pytest.raises(json.JSONDecodeError):
        scan(body).parse()


def test_errors_that_are_told() -> None:
    with pytest.raises(InvalidRequestError, match="UTF-8"):
        scan(b'"\xff"').parse()
    with pytest.raises(InvalidRequestError, match="deeply"):
        scan(b"[" * 15_000, size=1000).parse()
    with pytest.raises(InvalidRequestError) as caught:
        scan(b'{"\\ud800": [' + b"1," * 200, max_values=100)
    assert caught.value.param is None


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "WEBP"])
@pytest.mark.parametrize("slash", ["/", r"\/"])
@pytest.mark.parametrize("size", [1, 7, 10**6])
def test_a_picture_without_a_uri_is_no_text(file_format: str, slash: str, size: int) -> None:
    picture = base64.b64encode(encode(random_picture(64, 64), file_format)).decode()
    body = json.dumps({"data": picture}).replace("/", slash).encode()
    assert scan(body, size, max_text_bytes=100).parse() == {"data": picture}


@pytest.mark.parametrize("head", ["/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR"])
def test_a_text_that_begins_as_a_picture_is_a_text(head: str) -> None:
    body = json.dumps({"data": f"{head} says"}).encode()
    assert scan(body, max_text_bytes=100).parse() == {"data": f"{head} says"}
    with pytest.raises(BodyTooLargeError):
        scan(json.dumps({"data": head + "A" * 100 + " "}).encode(), max_text_bytes=100)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"n": 1, "a": [{"stop": "x", "stop": "y", "stop": ""}]}', "stop is given 3 times"),
        (b'{"\\ud800": 1, "\\ud800": 1}', "ud800 is given 2 times"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "at most 4300 digits"),
        (b'{"seed": -' + b"9" * 400_000 + b"}", "at most 4300 digits"),
    ],
)
def test_what_would_be_read_otherwise_elsewhere_is_refused(body: bytes, told: str) -> None:
    with pytest.raises(InvalidRequestError, match=told) as caught:
        scan(body).parse()
    caught.value.message.encode()
