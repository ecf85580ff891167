"""A record of each cell that was measured, as a small file of JSON."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from skipserve_training.paper.setup import SHIPPED, Setup

ALL = "all"
DIGITS = 4  # of what is right in part


class Way(StrEnum):
    """In which way an answer is right, as `Verdict` says it."""

    EXACT = "exact"
    ACCEPTED = "accepted"


@dataclass(frozen=True)
class Count:
    """How many questions there were, and how many answers were right, in each of three ways.

    Attributes:
        accepted: how many were, or what they add up to where they are right in part.
        blind: the same of whoever reads the question alone.
    """

    n: int
    exact: int
    accepted: float
    begun: int
    blind: float


@dataclass(frozen=True)
class Score:
    """What a model answered.

    Attributes:
        types: counts by type of question, and of all.
        exact: for each question, in the order of asking, whether its answer was; bits from the
            left, as hexadecimal digits.
        accepted: the same, or a number from 0 to 1 each where answers are right in part.
        cpu_seconds: what answering took.
        loss: of the tokens of right answers; None where it was not measured.
    """

    types: dict[str, Count]
    exact: str
    accepted: str | list[float]
    cpu_seconds: float
    loss: float | None = None

    @property
    def n(self) -> int:
        """Return the number of questions."""
        return self.types[ALL].n

    def right(self, way: Way) -> Sequence[float]:
        """Return how right each answer was in this way, in the order of asking."""
        found = self.exact if way is Way.EXACT else self.accepted
        if not isinstance(found, str):
            return found
        bits = f"{int(found, 16):0{4 * len(found)}b}"
        return [bit == "1" for bit in bits[: self.n]]


@dataclass(frozen=True)
class TrainingFigures:
    """What a training took, and the loss of its last steps."""

    steps: int
    loss: float
    cpu_seconds: float
    wall_seconds: float


@dataclass(frozen=True)
class Record:
    """What a cell gave.

    Attributes:
        cell: what was measured, as `Cell` says it.
        command: what makes it anew.
        untrained: the model's own module.
        trained: the module that was trained on.
        perplexity: of the language model on the held-out text, under the policy.
        layers: the blocks that the policy touches.
        sparsity: the share of the blocks' weights that are zeroed.
        made_with: versions, threads and the digest of the model's weights.
        setup: whose answers were measured; None for what ships.
    """

    cell: dict[str, Any]
    command: str
    untrained: Score
    trained: Score | None
    training: TrainingFigures | None
    perplexity: float
    layers: list[int]
    sparsity: float | None
    made_with: dict[str, Any]
    setup: Setup | None = None

    @property
    def name(self) -> str:
        """Return the cell's name."""
        return str(self.cell["name"])

    @property
    def last(self) -> Score:
        """Return the score after the training, where there was one."""
        return self.untrained if self.trained is None else self.trained

    @property
    def said(self) -> str:
        """Say in a few words what was found."""
        scores = [score for score in (self.untrained, self.trained) if score is not None]
        shares = [f"{score.types[ALL].exact / score.n:.1%} of {score.n}" for score in scores]
        return " -> ".join(shares)


def as_grades(grades: Sequence[float]) -> str | list[float]:
    """Write how right answers are: as bits where each is right or wrong."""
    if all(grade in (0, 1) for grade in grades):
        return as_bits([bool(grade) for grade in grades])
    return [round(grade, DIGITS) for grade in grades]


def as_bits(truths: Sequence[bool]) -> str:
    """Write truths as hexadecimal digits, filled up on the right."""
    digits = -(-len(truths) // 4)
    bits = "".join("1" if truth else "0" for truth in truths).ljust(4 * digits, "0")
    return f"{int(bits, 2):0{digits}x}"


def write(record: Record, folder: Path) -> None:
    """Write a record; an interruption leaves a whole file or none."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{record.name}.json"
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(as_fields(record), indent=1) + "\n")
    os.replace(draft, path)


def as_fields(record: Record) -> dict[str, Any]:
    """Spell out a record for JSON; what was not measured of the models that ship is left out."""
    fields = asdict(record)
    scores = [fields[name] for name in ("untrained", "trained") if fields[name] is not None]
    for place, name in ((fields, "setup"), *((score, "loss") for score in scores)):
        if place[name] is None:
            del place[name]
    return fields


def read_all(folder: Path) -> dict[str, Record]:
    """Read all records of a folder, by the names of their cells."""
    records = (_read(path) for path in sorted(folder.glob("*.json")))
    return {record.name: record for record in records}


def setup_of(records: Mapping[str, Record]) -> Setup | None:
    """Return whose answers records are of; None where there are no records.

    Raises:
        ValueError: They are of several.
    """
    found = [(name, record.setup or SHIPPED) for name, record in records.items()]
    for name, setup in found[1:]:
        first, wanted = found[0]
        if setup != wanted:
            raise ValueError(
                f"The records {first} and {name} cannot be held together: {name} is of another "
                f"setup ({wanted.differences(setup)})."
            )
    return found[0][1] if found else None


def check_setup(folder: Path, setup: Setup) -> None:
    """Make sure that what lies in a folder of records can be held together with a setup's.

    Raises:
        ValueError: It is another's, or no record.
    """
    for name, record in read_all(folder).items():
        found = record.setup or SHIPPED
        if found != setup:
            raise ValueError(
                f"{folder} holds the record {name} of another setup "
                f"({setup.differences(found)}): give another --records."
            )


def _read(path: Path) -> Record:
    try:
        fields = json.loads(path.read_text())
        trained, training = fields["trained"], fields["training"]
        setup = fields.get("setup")
        record = Record(
            **fields
            | {"untrained": _score(fields["untrained"])}
            | {"setup": None if setup is None else Setup.from_fields(setup)}
        )
        return replace(
            record,
            trained=None if trained is None else _score(trained),
            training=None if training is None else TrainingFigures(**training),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no record of a cell: {error!r}.") from error


def _score(fields: dict[str, Any]) -> Score:
    types = {kind: Count(**count) for kind, count in fields["types"].items()}
    return Score(**fields | {"types": types})
