"""Pictures become data URIs."""

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image, ImageOps

from skipserve_client.errors import PictureError
from skipserve_client.messages import image_data_uri, question_messages

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


def test_the_picture_precedes_the_question() -> None:
    (message,) = question_messages(_file("PNG"), "What?")
    assert [part["type"] for part in message["content"]] == ["image_url", "text"]
