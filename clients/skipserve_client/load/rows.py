"""Files that say what requests ask, and when: CSV, or a JSON object a line."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from skipserve_client.command_group import CommandError
from skipserve_policies.faults import faults_of

_SECONDS = "seconds"


class Row(BaseModel):
    """What a line says of one request; what it leaves out is filled in as for all others.

    Attributes:
        seconds: when it arrives, from the beginning.
        picture: a file, from the folder of the file that names it.
        policy: a name, or a policy as JSON.
    """

    # So that a file of questions for an evaluation can be taken as it is.
    model_config = ConfigDict(frozen=True, extra="ignore")

    seconds: float | None = Field(None, ge=0, allow_inf_nan=False)
    picture: Path | None = Field(None, validation_alias=AliasChoices("picture", "image"))
    question: str | None = Field(None, min_length=1)
    policy: str | dict[str, Any] | None = None
    max_tokens: int | None = Field(None, ge=1)


def read_rows(path: Path, flag: str, *, with_times: bool) -> Sequence[Row]:
    """Read a file, by its name's end: CSV with a line of titles, or JSON lines.

    A line of one number alone is a time.

    Args:
        path: of the file.
        flag: which names it.
        with_times: whether each row says when it arrives; they are put in that order. Else each
            has a question.

    Raises:
        CommandError: the file cannot be read, or is not of this form.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise CommandError(f"{flag} {path}: {getattr(error, 'strerror', None) or error}") from error
    read = _of_csv if path.suffix.lower() == ".csv" else _of_json_lines
    where = f"{flag} {path}"
    rows = [_row(value, f"{where}, line {line}") for line, value in read(text, where)]
    wanted = _SECONDS if with_times else "question"
    if any(getattr(row, wanted) is None for row in rows) or not rows:
        raise CommandError(f"{where}: each line needs {wanted}, and there must be one")
    rows = [_placed(row, path) for row in rows]
    return sorted(rows, key=lambda row: row.seconds or 0.0) if with_times else rows


def _of_csv(text: str, where: str) -> Iterator[tuple[int, object]]:
    lines = [line for line in text.splitlines() if line.strip()]
    if lines and _is_number(lines[0].split(",")[0]):
        lines = [_SECONDS, *lines]
    reader = csv.DictReader(io.StringIO("\n".join(lines)))
    try:
        for number, fields in enumerate(reader, start=1):
            yield number, {name: value for name, value in fields.items() if name and value}
    except csv.Error as error:
        raise CommandError(f"{where}: {error}") from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _of_json_lines(text: str, where: str) -> Iterator[tuple[int, object]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CommandError(f"{where}, line {number} is not JSON: {error}") from error
        is_time = isinstance(value, int | float) and not isinstance(value, bool)
        yield number, {_SECONDS: value} if is_time else value


def _row(value: object, where: str) -> Row:
    try:
        return Row.model_validate(value)
    except ValidationError as error:
        raise CommandError(f"{where}: {faults_of(error, Row)[0]}") from error


def _placed(row: Row, file: Path) -> Row:
    if row.picture is None:
        return row
    return row.model_copy(update={"picture": file.parent / row.picture})
