"""MMBench: questions with options, asked once for each rotation of the options."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import ascii_uppercase

from skipserve_client.command_group import CommandError
from skipserve_client.evaluate.data_sets.data_set import UNPLACED, DataSet
from skipserve_client.evaluate.data_sets.folder import Folder
from skipserve_client.evaluate.data_sets.prompts import letter_question
from skipserve_client.evaluate.sample import Sample

_LETTERS = "ABCD"
_NOTHING = {"", "nan", "none"}
# Files that bring the rotations number them so far above the question.
_ROTATION = 1_000_000
_LARGEST_FIELD = 1 << 28
# A shorter "picture" is the number of the row that has it.
_SHORTEST_PICTURE = 64
_SIGNATURES = {"/9j/": "jpeg", "iVBOR": "png", "R0lGOD": "gif", "UklGR": "webp", "Qk": "bmp"}

Row = Mapping[str, str]


def _read(folder: Folder) -> Iterator[Sample]:
    """Yield each question in all rotations: the file's own where it has them, else ours.

    The type is the file's category, where it has one; a hint comes before the question.
    """
    file = _table(folder)
    with folder.reading(file):
        rows = {int(row["index"]): row for row in _rows(file)}
        has_rotations = any(number >= _ROTATION for number in rows)
        for number, row in rows.items():
            choices = _choices(row)
            turns = 1 if has_rotations else len(choices)
            for turn in range(turns):
                yield _sample(folder, rows, number, turn)


def _table(folder: Folder) -> Path:
    if folder.path.is_file():
        return folder.path
    tables = sorted(folder.path.glob("*.tsv"))
    if not tables:
        raise folder.missing("*.tsv")
    if len(tables) > 1:
        names = ", ".join(table.name for table in tables)
        raise CommandError(
            f"--data {folder.data}: {folder.path} holds {names}; name one of them with "
            "--data-folder"
        )
    return tables[0]


def _rows(file: Path) -> Iterator[Row]:
    before = csv.field_size_limit(_LARGEST_FIELD)
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            yield from csv.DictReader(lines, delimiter="\t")
    finally:
        csv.field_size_limit(before)


def _choices(row: Row) -> tuple[str, ...]:
    """Return the options up to the first that is not given."""
    choices: list[str] = []
    for letter in _LETTERS:
        if _is_nothing(row.get(letter)):
            break
        choices.append(row[letter])
    return tuple(choices)


def _is_nothing(value: str | None) -> bool:
    return value is None or value.strip().lower() in _NOTHING


def _sample(folder: Folder, rows: Mapping[int, Row], number: int, turn: int) -> Sample:
    row = rows[number]
    choices = _choices(row)
    right = _LETTERS.index(row["answer"])
    turned = (*choices[turn:], *choices[:turn])
    hint = row.get("hint") or ""
    return Sample(
        index=UNPLACED,
        image=_picture(rows, row),
        question=letter_question(row["question"], turned, "" if _is_nothing(hint) else hint),
        answers=(ascii_uppercase[(right - turn) % len(choices)],),
        type=row.get("category") or "all",
        name=f"mmbench, question {number}, rotation {turn}",
        id=f"{number}/{turn}",
        metric="mmbench",
        group=f"question {number % _ROTATION}",
        choices=turned,
    )


def _picture(rows: Mapping[int, Row], row: Row) -> str:
    """Return the picture as a data URI."""
    text = row["image"].strip()
    if len(text) < _SHORTEST_PICTURE and text.isdecimal():
        text = rows[int(text)]["image"].strip()
    kind = next((it for start, it in _SIGNATURES.items() if text.startswith(start)), None)
    if kind is None:
        raise ValueError(f"the picture of question {row['index']} is none in base64")
    return f"data:image/{kind};base64,{text}"


MM_BENCH = DataSet(
    "mmbench",
    "one table *.tsv with answers and pictures in base64, such as mmbench_dev_20230712.tsv",
    _read,
)
