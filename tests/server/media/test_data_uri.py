"""Tests of what is taken as an image."""

import base64

import pytest
from pictures import data_uri, encode, random_picture

from skipserve.errors import FeatureOffError, InvalidRequestError, UnusableImageError
from skipserve.media.data_uri import EncodedImage, decode_data_uri
from skipserve.media.frames import pick_frames
from skipserve_policies.sizes import FRAMES_SHOWN, Modality

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
    "head",
    [
        "data:image/png;name=x;base64,",
        "data:image/png;charset=utf-8;name=picture.png;base64,",
        'data:image/png;name="a, b; c.png";base64,',
        "data:image/png;name=a%20b.png;base64,",
        "data:image/png;name=;base64,",
        "data:image/png; base64,",
        "DATA:image/png;Name=X;BASE64,",
    ],
)
def test_parameters_say_nothing_of_a_picture(head: str) -> None:
    plain = data_uri(PICTURE).removeprefix("data:image/png;base64,")
    assert decode_data_uri(head + plain, "p", len(PICTURE)).content == PICTURE


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r", "\n\n", "\n    ", " \t\n"])
@pytest.mark.parametrize("width", [1, 60, 76])
def test_base64_may_come_in_lines(line_break: str, width: int) -> None:
    head, _, plain = data_uri(PICTURE).partition(",")
    lines = [plain[at : at + width] for at in range(0, len(plain), width)]
    url = f"{head},{line_break}{line_break.join(lines)}{line_break}"
    assert decode_data_uri(url, "p", len(PICTURE)).content == PICTURE


def test_base64_may_be_escaped_as_uris_are() -> None:
    head, _, plain = data_uri(PICTURE).partition(",")
    escaped = plain.replace("+", "%2B").replace("/", "%2f").replace("=", "%3D")
    url = f"{head},{escaped[:20]}%0D%0a{escaped[20:]}"
    assert decode_data_uri(url, "p", len(PICTURE)).content == PICTURE


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64",
        "data:image/png,abcd",
        "data:;base64,abcd",
        "data:image/png;charset=utf-8,abcd",
        "data:image/png;charset;base64,abcd",
        "data:image/png;name=" + "x" * 2000 + ";base64,abcd",
        "data:image/png;" + "a=b;" * 10_000,
        "data:" + "a" * 10_000,
    ],
)
def test_what_is_no_base64_data_uri(url: str) -> None:
    with pytest.raises(InvalidRequestError, match="data:image/png;base64"):
        decode_data_uri(url, "p", 100)


@pytest.mark.parametrize(
    "payload",
    [
        "====",
        "abc",
        "ab cd",
        "ab-_",
        "ab%cd",
        "ab%20cd",
        "ab\n c d",
        "abcd====",
        "a",
        "\u00e9\u00e9\u00e9\u00e9",
    ],
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


@pytest.mark.parametrize(
    ("modality", "media_type"),
    [
        (Modality.VIDEO, "image/gif"),
        (Modality.VIDEO, "IMAGE/APNG"),
        (Modality.AUDIO, "audio/wav"),
        (Modality.AUDIO, "audio/x-wav"),
    ],
)
def test_each_kind_has_types_of_its_own(modality: Modality, media_type: str) -> None:
    url = data_uri(PICTURE, media_type)
    assert decode_data_uri(url, "p", 10**6, modality) == EncodedImage(PICTURE, "p")
    others = {*Modality} - {modality}
    if media_type == "image/gif":
        others.remove(Modality.IMAGE)
    for other in others:
        with pytest.raises(UnusableImageError, match="must be one of"):
            decode_data_uri(url, "p", 10**6, other)


@pytest.mark.parametrize("count", [8, 11, 1000])
def test_pictures_of_a_video_are_picked_before_they_are_decoded(count: int) -> None:
    frames = [bytes([number % 256, number // 256]) for number in range(count)]
    pieces = [base64.b64encode(it).decode() for it in frames]
    shown = pick_frames(count, FRAMES_SHOWN)
    # What is not shown is not looked at.
    sent = [it if number in shown else "?" for number, it in enumerate(pieces)]
    url = "data:video/jpeg;base64," + ",".join(sent)
    found = decode_data_uri(url, "p", 10**6, Modality.VIDEO)
    assert found == EncodedImage(b"", "p", tuple(frames[number] for number in shown))


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        ("", "has 0 frames; it must have 8 to 1000"),
        ("AAAA", "has 1 frame; it must have"),
        (",".join(["AAAA"] * 7), "has 7 frames"),
        (",".join(["AAAA"] * 1001), "has 1001 frames"),
        (",".join(["AAA"] * 8), "the video is not valid base64"),
        (",".join(["A" * 4000] * 8), "the video file holds .* at most 10000 bytes"),
    ],
)
def test_pictures_that_are_no_video(payload: str, told: str) -> None:
    with pytest.raises(UnusableImageError, match=told):
        decode_data_uri("data:video/jpeg;base64," + payload, "p", 10_000, Modality.VIDEO)
