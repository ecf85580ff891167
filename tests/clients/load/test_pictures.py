"""Pictures that are generated, taken from a folder, and repeated."""

import base64
import io
import random
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from skipserve_client import PictureError
from skipserve_client.command_group import CommandError
from skipserve_client.load.pictures import (
    FolderPictures,
    GeneratedPictures,
    Repeats,
    file_picture,
    read_repeats,
    read_size,
    rectangles_png,
)

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(("width", "height"), [(1, 1), (30, 7), (336, 336)])
def test_a_generated_picture_is_a_png_file(width: int, height: int) -> None:
    data = rectangles_png(width, height, random.Random(1))
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (width, height))


def test_it_shows_several_colors() -> None:
    with Image.open(io.BytesIO(rectangles_png(64, 64, random.Random(1)))) as image:
        assert len(image.getcolors() or ()) >= 4


def test_each_number_is_another_picture_and_always_the_same() -> None:
    source = GeneratedPictures(24, 24, seed=3)
    uris = [source.picture(number).uri for number in range(50)]
    assert len(set(uris)) == 50
    assert GeneratedPictures(24, 24, seed=3).picture(7).uri == uris[7]
    assert GeneratedPictures(24, 24, seed=4).picture(7).uri != uris[7]
    assert source.picture(7).name == "generated-7"
    assert base64.b64decode(uris[0].partition(",")[2]).startswith(b"\x89PNG")


def test_without_repeats_each_request_shows_another() -> None:
    assert [Repeats().number(index, seed=1) for index in range(5)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("4", [1 / 4] * 4),
        ("zipf:3", [6 / 11, 3 / 11, 2 / 11]),
        ("zipf:2:2", [4 / 5, 1 / 5]),
        ("1", [1.0]),
    ],
)
def test_repeats_come_as_often_as_they_should(text: str, shares: list[float]) -> None:
    repeats = read_repeats(text)
    drawn = Counter(repeats.number(index, seed=5) for index in range(4000))
    assert set(drawn) == set(range(len(shares)))
    for number, share in enumerate(shares):
        assert drawn[number] / 4000 == pytest.approx(share, abs=0.03)
    assert [repeats.number(i, 5) for i in range(9)] == [repeats.number(i, 5) for i in range(9)]


@pytest.mark.parametrize("text", ["", "0", "-1", "x", "zip:3", "zipf:", "zipf:3:x", "zipf:3:nan"])
def test_other_repeats_are_refused(text: str) -> None:
    with pytest.raises(CommandError, match="--repeat-pictures"):
        read_repeats(text)


def test_sizes() -> None:
    assert read_size("640x480") == (640, 480)
    for text in ("", "640", "0x4", "4x0", "4x4x4", "-4x4", "9999x9", "9" * 5000 + "x4"):
        with pytest.raises(CommandError, match="--picture-size"):
            read_size(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.PNG", "c.png"):
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("none")
    return tmp_path


def test_a_folder_s_pictures_come_in_turn(folder: Path) -> None:
    source = FolderPictures.read(folder, Repeats())
    names = [Path(source.picture(number).name).name for number in range(4)]
    assert names == ["a.PNG", "b.png", "c.png", "a.PNG"]
    assert len(FolderPictures.read(folder, Repeats(2)).paths) == 2


def test_a_folder_without_as_many_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CommandError, match="it holds 3 pictures"):
        FolderPictures.read(folder, Repeats(4))
    with pytest.raises(CommandError, match="it holds 0 pictures"):
        FolderPictures.read(tmp_path / "empty", Repeats())
    with pytest.raises(CommandError, match="no such folder"):
        FolderPictures.read(tmp_path / "nowhere", Repeats())


def test_a_file_that_is_no_picture(folder: Path) -> None:
    with pytest.raises(PictureError):
        file_picture(folder / "notes.txt")
