"""A small copy of easy-VQA, and a small model that the server loads."""

import json
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from skipserve_client.evaluate.easy_vqa import EasySplit, read_easy_vqa

_QUESTIONS = (
    ("what color is the shape?", "{colour}"),
    ("what shape is present?", "{shape}"),
    ("is there a {colour} shape?", "yes"),
    ("is there not a {colour} shape?", "no"),
    ("is there a {other} shape?", "no"),
    ("is there not a {other} shape?", "yes"),
)


def _draw(colour: str, shape: str, place: int) -> Image.Image:
    image = Image.new("RGB", (64, 64), (240, 250, 245))
    pen = ImageDraw.Draw(image)
    box = (place, place, place + 20, place + 20)
    if shape == "circle":
        pen.ellipse(box, colour)
    elif shape == "rectangle":
        pen.rectangle(box, colour)
    else:
        left, top, right, bottom = box
        pen.polygon([(left, bottom), (right, bottom), ((left + right) // 2, top)], colour)
    return image


def _write_split(folder: Path, count: int) -> None:
    (folder / "images").mkdir(parents=True)
    questions = []
    for number in range(count):
        colour, other = ("red", "blue") if number % 2 else ("blue", "red")
        shape = ("circle", "rectangle", "triangle")[number % 3]
        _draw(colour, shape, 4 + 7 * (number % 5)).save(folder / "images" / f"{number}.png")
        for text, answer in _QUESTIONS:
            words = {"colour": colour, "shape": shape, "other": other}
            questions.append([text.format(**words), answer.format(**words), number])
    (folder / "questions.json").write_text(json.dumps(questions))


@pytest.fixture(scope="session")
def easy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("easy-vqa")
    _write_split(folder / "train", 8)
    _write_split(folder / "test", 3)
    return folder


@pytest.fixture
def easy_split(easy_folder: Path) -> EasySplit:
    return read_easy_vqa(easy_folder, "train")


@pytest.fixture(scope="session")
def served_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Not at the top: what it needs imports Triton, before which tests choose who runs kernels.
    from small_served import make_served  # noqa: PLC0415

    return make_served(tmp_path_factory.mktemp("served"))
