"""Reads questions of one's own: a JSONL file, with pictures beside it, checked as a whole."""

import contextlib
import difflib
import json
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from PIL import Image
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError

from skipserve_client.command_group import CommandError
from skipserve_client.errors import PictureError
from skipserve_client.evaluate.sample import Sample
from skipserve_client.messages import image_data_uri

_NAME = "questions.jsonl"
_MAX_FAULTS = 20
_MAX_ECHO = 100
# How much a field that is not known looks like one that is, to be taken for a slip.
_SIMILARITY = 0.75


def _as_text(value: object) -> object:
    """Take a boolean as its text; numbers are read as theirs already."""
    return json.dumps(value) if isinstance(value, bool) else value


def _as_answers(value: object) -> object:
    return [_as_text(item) for item in (value if isinstance(value, list) else [value])]


def _check_text(text: str) -> str:
    if not text.strip():
        raise ValueError("is blank")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("is not valid Unicode: it holds half of a character") from error
    return text


def _check_answers(answers: tuple[str, ...]) -> tuple[str, ...]:
    if not answers:
        raise ValueError("is an empty list")
    return answers


_Text = Annotated[str, BeforeValidator(_as_text), AfterValidator(_check_text)]
_Answers = Annotated[
    tuple[Annotated[str, AfterValidator(_check_text)], ...],
    BeforeValidator(_as_answers),
    AfterValidator(_check_answers),
]


class _Line(BaseModel):
    """One question; `image` is a path relative to the file."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    image: _Text
    question: _Text
    answer: _Answers
    type: _Text = "all"
    id: _Text | None = None


_FIELDS = tuple(_Line.model_fields)
_OPTIONAL = tuple(name for name, field in _Line.model_fields.items() if not field.is_required())
_MISSING = "missing"


class _LineError(Exception):
    """What is wrong with one line."""


def file_samples(path: Path, count: int | None = None) -> tuple[Sample, ...]:
    """Return the first `count` questions of a JSONL file, or of `questions.jsonl` in a folder.

    Each line holds `image` (a path relative to the file), `question`, `answer` (a text or a
    number, or a list of those that are right), and if it likes `type` and `id`. Blank lines are
    passed over. The whole file is looked through, and the pictures that will be asked about are
    decoded.

    Raises:
        CommandError: the file cannot be read, or lines are at fault; it names each of them.
    """
    file = path / _NAME if path.is_dir() else path
    samples, faults = list[Sample](), list[str]()
    check_picture = lru_cache(maxsize=None)(_check_picture)
    lines = _lines(file)
    for index, (number, text) in enumerate(lines):
        try:
            line = _read(text)
            picture = file.parent / line.image
            check_picture(picture, is_asked=count is None or index < count)
        except (_LineError, PictureError) as error:
            faults.append(f"{file}, line {number}: {error}")
            continue
        samples.append(
            Sample(
                index=index,
                image=picture,
                question=line.question,
                answers=line.answer,
                type=line.type,
                name=f"{file.name}, line {number}",
                id=line.id,
            )
        )
    if faults:
        raise CommandError(_one_document(file, lines) or _listed(faults))
    return tuple(samples[:count])


def _lines(file: Path) -> list[tuple[int, str]]:
    """Return the lines that are not blank, with their numbers."""
    try:
        content = file.read_bytes()
        # Only "\n" ends a line: a string may hold the other separators that `splitlines` knows.
        lines = content.decode("utf-8-sig").split("\n")
    except OSError as error:
        raise CommandError(
            f"no questions at {file}: give demo, easy-vqa, a JSONL file, or a folder with {_NAME}"
        ) from error
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise CommandError(f"{file}, line {number}: it is not UTF-8 text") from error
    found = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise CommandError(f"{file} holds no question")
    return found


def _one_document(file: Path, lines: Sequence[tuple[int, str]]) -> str | None:
    """Say so where lines that are no JSON by themselves are JSON together; else None."""
    try:
        json.loads(lines[0][1])
    except (ValueError, RecursionError):
        with contextlib.suppress(ValueError, RecursionError):
            json.loads("\n".join(line for _, line in lines))
            return f"{file} is JSON over several lines; put each question on one, without a list"
    return None


def _listed(faults: list[str]) -> str:
    shown, others = faults[:_MAX_FAULTS], faults[_MAX_FAULTS:]
    return "\n".join([*shown, f"... and {len(others)} more faults"] if others else shown)


def _read(text: str) -> _Line:
    fields = _object(text)
    unknown = [key for key in fields if key not in _FIELDS]
    try:
        line = _Line.model_validate(fields)
    except ValidationError as error:
        raise _LineError(_described(error, unknown)) from error
    for key in unknown:
        if meant := difflib.get_close_matches(key, _OPTIONAL, 1, _SIMILARITY):
            raise _LineError(f"{_echo(key)} is not a field: {meant[0]} is")
    return line


def _object(text: str) -> dict[str, Any]:
    """Read a JSON object; a number in it is read as the text that it is written as."""
    try:
        value = json.loads(
            text,
            parse_int=str,
            parse_float=str,
            parse_constant=_refuse_constant,
            object_pairs_hook=_unique,
        )
    except (ValueError, RecursionError) as error:
        where = f"{error.msg}, column {error.colno}" if isinstance(error, _JsonError) else error
        raise _LineError(f"it is not JSON: {where}") from error
    if not isinstance(value, dict):
        raise _LineError('it is not an object such as {"image": ..., "question": ..., ...}')
    return value


_JsonError = json.JSONDecodeError


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"{_echo(twice)} stands twice")
    return fields


def _described(error: ValidationError, unknown: list[str]) -> str:
    """Say what is wrong with the fields, in the words of this file."""
    faults = error.errors()
    texts = [f"{fault['loc'][0]} {_reason(fault['type'], fault['msg'])}" for fault in faults]
    if unknown and any(fault["type"] == _MISSING for fault in faults):
        strangers = ", ".join(map(_echo, unknown))
        texts.append(f"it has {strangers}, but the fields are {', '.join(_FIELDS)}")
    return "; ".join(dict.fromkeys(texts))


def _reason(kind: str, message: str) -> str:
    if kind == _MISSING:
        return "is missing"
    return message.removeprefix("Value error, ") if kind == "value_error" else "is not a text"


def _echo(text: str) -> str:
    return text if len(text) <= _MAX_ECHO else f"{text[:_MAX_ECHO]}..."


def _check_picture(file: Path, is_asked: bool) -> None:
    """Look whether a picture is there and, if it will be asked about, decode it.

    Raises:
        PictureError: it is not, or cannot be.
    """
    if not os.path.isfile(file):  # unlike Path's, False for a name that cannot be one
        raise PictureError(f"image: there is no file {_echo(str(file))}")
    if is_asked:
        decode_picture(file)


def decode_picture(file: Path) -> None:
    """Decode a picture, to see whether it can be.

    Raises:
        PictureError: it cannot.
    """
    image_data_uri(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as picture:
                picture.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError(f"image: {file.name} is too large: it has too many pixels") from error
    except Exception as error:  # whatever Pillow makes of broken bytes
        raise PictureError(f"image: {file.name} is broken: it cannot be decoded") from error
