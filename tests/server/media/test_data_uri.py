"""Tests of what is taken as an image."""

import pytest
from pictures import data_uri, encode, random_picture

from skipserve.errors import FeatureOffError, InvalidRequestError, UnusableImageError
from skipserve.media.data_uri import EncodedImage, decode_data_uri

pytestmark = pytest.mark.fast

PICTURE = encode(random_picture(5, 4))


@pytest.mark.parametrize("media_type", ["image/png", "IMAGE/PNG", "image/jpeg", "image/webp"])
def test_bytes_come_out_as_they_went_in(media_type: str) -> None:
    image = decode_data_uri(data_uri(PICTURE, media_type), "messages", len(PICTURE))
    assert image == EncodedImage(PICTURE, "messages")


def test_an_image_may_have_exactly_the_limit() -> None:
    for size in range(90, 96):
        url = data_uri(b"x" * size)
        assert decode_data_uri(url, "p", size).content == b"x" * size
        with pytest.raises(UnusableImageError, match=f"at most {size - 1} bytes"):
            decode_data_uri(url, "p", size - 1)


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64",
        "data:image/png,abcd",
        "data:;base64,abcd",
        "data:image/png;charset=utf-8;base64,abcd",
        "data:" + "a" * 10_000,
    ],
)
def test_what_is_no_base64_data_uri(url: str) -> None:
    with pytest.raises(InvalidRequestError, match="data:image/png;base64"):
        decode_data_uri(url, "p", 100)


@pytest.mark.parametrize(
    "payload",
    ["====", "abc", "ab cd", "ab\ncd", "ab-_", "abcd====", "a", "\u00e9\u00e9\u00e9\u00e9"],
)
def test_s25_base64_is_strict(payload: str) -> None:
    with pytest.raises(UnusableImageError, match="base64"):
        decode_data_uri("data:image/png;base64," + payload, "p", 100)


@pytest.mark.parametrize(
    "media_type",
    ["video/jpeg", "image/svg+xml", "image/tiff", "application/pdf", "text/html", "image/x-eps"],
)
def test_s19_declared_types_off_the_list(media_type: str) -> None:
    with pytest.raises(UnusableImageError, match="declared type"):
        decode_data_uri(data_uri(PICTURE, media_type), "p", 10_000)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a.png",
        "https://example.com/a.png",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://2130706433/",
        "http://allowed.host\\@127.0.0.1/",
        "HTTPS://EXAMPLE.COM",
        "ftp://example.com/a.png",
        "file:///etc/passwd",
        "gopher://localhost",
        "//example.com/a.png",
        "/etc/passwd",
        "../../a.png",
        "",
    ],
)
def test_s06_urls_are_off(url: str) -> None:
    with pytest.raises(FeatureOffError, match="switched off") as caught:
        decode_data_uri(url, "messages[0].content[0].image_url", 100)
    assert caught.value.param == "messages[0].content[0].image_url"
