"""Pictures become data URIs."""

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

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


def test_other_files_are_refused() -> None:
    with pytest.raises(PictureError, match="JPEG, PNG, WebP, GIF or BMP"):
        image_data_uri(b"%PDF-1.7")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="Is a directory"):
        image_data_uri(tmp_path)


def test_the_picture_precedes_the_question() -> None:
    (message,) = question_messages(_file("PNG"), "What?")
    assert [part["type"] for part in message["content"]] == ["image_url", "text"]
