"""Questions of one's own: what is read, and that every fault is found before anything is asked."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from skipserve_client.command_group import CommandError
from skipserve_client.evaluate.question_file import file_samples

pytestmark = pytest.mark.fast

LINE: dict[str, Any] = {"image": "pictures/1.png", "question": "What colour?", "answer": "red"}
Writer = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    """Return what writes lines, of JSON or as they are, to a file with pictures beside it."""
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (3, 2), "red").save(tmp_path / "pictures" / "1.png")

    def written(*lines: Any, name: str = "questions.jsonl", encoding: str = "utf-8") -> Path:
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        path = tmp_path / name
        path.write_bytes("\n".join(texts).encode(encoding))
        return path

    return written


def faults_of(file: Path) -> list[str]:
    with pytest.raises(CommandError) as caught:
        file_samples(file)
    return str(caught.value).replace(f"{file}, ", "").splitlines()


def test_a_file_or_its_folder_is_read(write: Writer) -> None:
    file = write(LINE, LINE | {"type": "colour", "id": 17}, LINE, "")
    for path in (file, file.parent):
        first, second = file_samples(path, 2)
        assert (first.question, first.answers, first.type) == ("What colour?", ("red",), "all")
        assert (first.index, first.id, first.image) == (0, None, file.parent / "pictures/1.png")
        assert (second.index, second.id, second.type) == (1, "17", "colour")
    assert second.name == "questions.jsonl, line 2"


def test_all_questions_are_read_unless_fewer_are_asked_for(write: Writer) -> None:
    file = write(LINE, LINE, LINE)
    assert len(file_samples(file)) == len(file_samples(file, 100)) == 3


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        ("2", ("2",)),
        ("1.50", ("1.50",)),
        ("true", ("true",)),
        ('["1", "one", 1]', ("1", "one", "1")),
        ("123456789012345678901234567890", ("123456789012345678901234567890",)),
    ],
)
def test_answers_are_taken_as_they_are_written(
    write: Writer, answer: str, accepted: tuple[str, ...]
) -> None:
    line = f'{{"image": "pictures/1.png", "question": "?", "answer": {answer}}}'
    (sample,) = file_samples(write(line))
    assert sample.answers == accepted


def test_only_a_line_feed_ends_a_line(write: Writer) -> None:
    question = "How many\u2028red\u2029squares\x85are there?"
    file = write(json.dumps(LINE | {"question": question}, ensure_ascii=False))
    assert file_samples(file)[0].question == question


def test_blank_lines_and_other_systems_marks_are_passed_over(write: Writer) -> None:
    text = json.dumps(LINE)
    file = write("", f"{text}\r", " \t\r", text, "", encoding="utf-8-sig")
    assert [sample.name.split()[-1] for sample in file_samples(file)] == ["2", "4"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops", "it is not JSON: Expecting property name"),
        ("[1]", "it is not an object"),
        ('"red"', "it is not an object"),
        ("[" * 100_000, "it is not JSON"),
        ('{"answer": NaN}', "it is not JSON: NaN is no number"),
        ('{"type": "a", "type": "b"}', "type stands twice"),
        ({"image": "pictures/1.png", "question": "?"}, "answer is missing"),
        ({"image": "pictures/1.png", "query": "?", "answer": "x"}, "question is missing; it has q"),
        ({}, "image is missing; question is missing; answer is missing"),
        (LINE | {"answer": None}, "answer is not a text"),
        (LINE | {"answer": []}, "answer is an empty list"),
        (LINE | {"answer": ["a", {}]}, "answer is not a text"),
        (LINE | {"answer": " "}, "answer is blank"),
        (LINE | {"question": ""}, "question is blank"),
        (LINE | {"question": "\ud800?"}, "question is not valid Unicode"),
        (LINE | {"answer": ["2", "\udfff"]}, "answer is not valid Unicode"),
        (LINE | {"id": "\ud800"}, "id is not valid Unicode"),
        (LINE | {"question": ["a"]}, "question is not a text"),
        (LINE | {"typ": "colour"}, "typ is not a field: type is"),
        (LINE | {"image": "none.png"}, "image: there is no file"),
        (LINE | {"image": "pictures"}, "image: there is no file"),
        (LINE | {"image": "nul\0.png"}, "image: there is no file"),
        (LINE | {"image": "x" * 5000}, "image: there is no file"),
        (LINE | {"image": "questions.jsonl"}, "is not a JPEG, PNG, WebP, GIF or BMP file"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(write: Writer, line: Any, message: str) -> None:
    ((first, second),) = [faults_of(write(LINE, line, LINE, line))]
    assert first.startswith(f"line 2: {message}") or message in first
    assert first.removeprefix("line 2") == second.removeprefix("line 4")
    assert len(first) < 400


def test_every_fault_has_a_line_up_to_a_limit(write: Writer) -> None:
    *told, last = faults_of(write(LINE, *["{oops"] * 30))
    assert [fault.partition(":")[0] for fault in told] == [f"line {n}" for n in range(2, 22)]
    assert last == "... and 10 more faults"


@pytest.mark.parametrize("value", [LINE, [LINE, LINE]])
def test_json_over_several_lines_is_one_fault(write: Writer, value: object) -> None:
    (fault,) = faults_of(write(json.dumps(value, indent=1)))
    assert fault.endswith("is JSON over several lines; put each question on one, without a list")


def test_other_fields_are_not_looked_at(write: Writer) -> None:
    (sample,) = file_samples(write(LINE | {"source": "mine", "height": 3}))
    assert sample.question == "What colour?"


@pytest.mark.parametrize("name", ["cut.png", "cut.jpg", "bomb.png"])
def test_a_picture_that_cannot_be_decoded_is_found(
    write: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    whole = tmp_path / name
    Image.effect_noise((60, 60), 90).save(whole)
    if name == "bomb.png":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    else:
        whole.write_bytes(whole.read_bytes()[:-900])
    (fault,) = faults_of(write(LINE | {"image": name}))
    assert fault.startswith(f"line 1: image: {name} is {'too large' if 'bomb' in name else 'brok'}")


def test_beyond_the_count_lines_are_checked_and_pictures_only_looked_for(
    write: Writer, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert len(file_samples(write(LINE, LINE | {"image": "broken.png"}), 1)) == 1
    for line in ("{oops", LINE | {"image": "none.png"}):
        with pytest.raises(CommandError, match="line 2"):
            file_samples(write(LINE, line), 1)


def test_a_file_that_is_no_text_is_named(write: Writer) -> None:
    assert faults_of(write(LINE, encoding="utf-16")) == ["line 1: it is not UTF-8 text"]
    file = write(LINE)
    file.write_bytes(file.read_bytes() + b"\n\n\xff")
    assert faults_of(file) == ["line 3: it is not UTF-8 text"]


@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff"])
def test_a_file_without_questions_is_named(write: Writer, content: str) -> None:
    with pytest.raises(CommandError, match="holds no question"):
        file_samples(write(content))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"give demo, easy-vqa, a JSONL file"):
        file_samples(tmp_path)
