"""Pictures become data URIs."""

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image, ImageOps

from skipserve_client.errors import PictureError
from skipserve_client.messages import (
    image_data_uri,
    may_move,
    media_data_uri,
    question_messages,
)

pytestmark = pytest.mark.fast


def _file(format: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "blue").save(buffer, format=format)
    return buffer.getvalue()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "WEBP"])
def test_the_kind_is_read_from_the_bytes(format: str, tmp_path: Path) -> None:
    data = _file(format)
    path = tmp_path / "picture.unknown"
    path.write_bytes(data)
    expected = f"data:image/{format.lower()};base64,{base64.b64encode(data).decode()}"
    assert image_data_uri(data) == image_data_uri(path) == image_data_uri(str(path)) == expected


def test_a_data_uri_stays_as_it_is() -> None:
    uri = image_data_uri(_file("PNG"))
    assert image_data_uri(uri) == uri


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"^the picture is not a JPEG, PNG, WebP, GIF or BMP"):
        image_data_uri(b"%PDF-1.7")
    path = tmp_path / "report.png"
    path.write_bytes(b"%PDF-1.7")
    with pytest.raises(PictureError, match=r"report.png is not a JPEG"):
        image_data_uri(path)
    path.write_bytes(b"")
    with pytest.raises(PictureError, match=r"report.png is empty"):
        image_data_uri(str(path))


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (None, "of type NoneType"),
        (["a.png"], "of type list"),
        (io.BytesIO(), "of type BytesIO"),
        ("nul\0.png", "no picture at"),
        (Image.new("CMYK", (8, 8)), "mode CMYK"),
        (Image.new("RGB", (0, 8)), "empty"),
    ],
)
def test_what_is_no_picture_or_cannot_be_sent_is_refused(picture: Any, message: str) -> None:
    with pytest.raises(PictureError, match=message):
        image_data_uri(picture)


def test_a_photo_keeps_the_turn_that_the_camera_noted() -> None:
    photo, buffer = Image.new("RGB", (8, 4)), io.BytesIO()
    exif = photo.getexif()
    exif[ExifTags.Base.Orientation] = 6
    photo.save(buffer, "JPEG", exif=exif)
    sent = base64.b64decode(image_data_uri(Image.open(buffer)).partition(",")[2])
    with Image.open(io.BytesIO(sent)) as received:
        assert ImageOps.exif_transpose(received).size == (4, 8)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="Is a directory"):
        image_data_uri(tmp_path)


def _film(format: str, count: int) -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), (20 * number, 0, 0)) for number in range(count)]
    options: dict[str, Any] = {"save_all": True, "append_images": frames[1:]} if count > 1 else {}
    frames[0].save(buffer, format, **options)
    return buffer.getvalue()


WAV = b"RIFF\x24\0\0\0WAVEfmt "


def test_a_sound_is_told_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "sound.unknown"
    path.write_bytes(WAV)
    data = base64.b64encode(WAV).decode()
    for source in (WAV, path, f"data:audio/wav;base64,{data}"):
        assert media_data_uri(source) == f"data:audio/wav;base64,{data}"
        (message,) = question_messages(source, "What?")
        recording, text = message["content"]
        assert recording == {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
        assert text["text"] == "What?"
    with pytest.raises(PictureError, match="is not a JPEG, PNG, WebP, GIF or BMP file"):
        image_data_uri(path)
    with pytest.raises(PictureError, match="GIF, BMP or WAV file"):
        media_data_uri(b"OggS")


@pytest.mark.parametrize(
    ("format", "count", "moves"),
    [
        ("GIF", 3, True),
        ("WEBP", 3, True),
        ("WEBP", 1, False),
        ("PNG", 3, True),
        ("PNG", 1, False),
        ("JPEG", 1, False),
    ],
)
def test_what_can_be_a_video_is_told(format: str, count: int, moves: bool) -> None:
    uri = media_data_uri(_film(format, count))
    assert may_move(uri) is moves
    for is_video, kind in ((True, "video_url"), (False, "image_url")):
        (message,) = question_messages(uri, "What?", is_video=is_video)
        assert message["content"][0] == {"type": kind, kind: {"url": uri}}


@pytest.mark.parametrize("uri", ["data:image/webp;base64,UklGRg==", "data:image/png;base64,x", ""])
def test_what_is_broken_does_not_move(uri: str) -> None:
    assert not may_move(uri)


def test_the_picture_precedes_the_question() -> None:
    (message,) = question_messages(_file("PNG"), "What?")
    assert [part["type"] for part in message["content"]] == ["image_url", "text"]
