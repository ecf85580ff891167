"""Tiny made-up folders in the forms in which the data sets are published."""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

Write = Callable[[str, object], Path]
Paint = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return what writes a file of the folder: texts as they are, all else as JSON."""

    def writing(name: str, content: object) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return file

    return writing


@pytest.fixture
def paint(tmp_path: Path) -> Paint:
    """Return what puts a picture into the folder."""

    def painting(name: str) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(file)
        return file

    return painting


@pytest.fixture
def picture_base64() -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
