"""Questions of one's own."""

import json
from pathlib import Path

import pytest
from PIL import Image

from skipserve_client.command_group import CommandError
from skipserve_client.evaluate.question_file import file_examples

pytestmark = pytest.mark.fast


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (3, 2), "red").save(tmp_path / "pictures" / "1.png")
    line = {"image": "pictures/1.png", "question": "What colour?", "answer": "red"}
    lines = [line, line | {"type": "colour"}, line]
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return path


def test_a_file_or_its_folder_is_read(file: Path) -> None:
    for path in (file, file.parent):
        first, second = file_examples(path, 2)
        assert (first.question, first.answer, first.type) == ("What colour?", "red", "all")
        assert first.image.size == (3, 2)
        assert second.type == "colour"


def test_fewer_questions_than_asked_for_are_fine(file: Path) -> None:
    assert len(list(file_examples(file, 100))) == 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"image": "pictures/1.png", "question": "?"}', "line 1: answer: Field required"),
        ("hello", "line 1: the line: Invalid JSON"),
        ('{"image": "none.png", "question": "?", "answer": "x"}', r"none\.png"),
        ('{"image": "questions.jsonl", "question": "?", "answer": "x"}', "cannot identify"),
        ("", "holds no question"),
    ],
)
def test_what_is_wrong_is_said(file: Path, line: str, message: str) -> None:
    file.write_text(line)
    with pytest.raises(CommandError, match=message):
        list(file_examples(file, 1))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"give demo, a JSONL file"):
        list(file_examples(tmp_path, 1))
