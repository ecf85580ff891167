"""Reads questions of one's own: a JSONL file, with pictures beside it."""

from collections.abc import Iterator
from pathlib import Path

from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from skipserve_client.command_group import CommandError
from skipserve_client.evaluate.dataset import Example

_NAME = "questions.jsonl"


class _Line(BaseModel):
    """One question; `image` is a path relative to the file."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    image: Path
    question: str
    answer: str
    type: str = "all"


def file_examples(path: Path, count: int) -> Iterator[Example]:
    """Yield the first `count` questions of a JSONL file, or of `questions.jsonl` in a folder.

    Each line holds `image` (a path relative to the file), `question`, `answer`, and if it likes
    `type`.

    Raises:
        CommandError: the file or a picture cannot be read, or a line is not in that form.
    """
    file = path / _NAME if path.is_dir() else path
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(
            f"no questions at {file}: give demo, a JSONL file, or a folder with {_NAME}"
        ) from error
    if not lines:
        raise CommandError(f"{file} holds no question")
    for number, line in enumerate(lines[:count], start=1):
        yield _example(line, file, number)


def _example(text: str, file: Path, number: int) -> Example:
    try:
        line = _Line.model_validate_json(text)
        with Image.open(file.parent / line.image) as picture:
            image = picture.convert("RGB")
    except ValidationError as error:
        fault = error.errors()[0]
        field = ".".join(map(str, fault["loc"])) or "the line"
        raise CommandError(f"{file}, line {number}: {field}: {fault['msg']}") from error
    except OSError as error:
        raise CommandError(f"{file}, line {number}: {error}") from error
    return Example(image, line.question, line.answer, line.type)
