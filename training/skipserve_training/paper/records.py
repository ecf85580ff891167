"""A record of each cell that was measured, as a small file of JSON."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from skipserve_client.evaluate.easy_vqa import EasyType
from skipserve_training.paper.answering import Verdict
from skipserve_training.paper.asking import Asked

ALL = "all"


class Way(StrEnum):
    """In which way an answer is right, as `Verdict` says it."""

    EXACT = "exact"
    ACCEPTED = "accepted"


@dataclass(frozen=True)
class Count:
    """How many questions there were, and how many answers were right, in each of three ways.

    Attributes:
        blind: how many whoever reads the question alone answers rightly.
    """

    n: int
    exact: int
    accepted: int
    begun: int
    blind: int


@dataclass(frozen=True)
class Score:
    """What a model answered.

    Attributes:
        types: counts by type of question, and of all.
        exact, accepted: for each question, in the order of asking, whether its answer was; bits
            from the left, as hexadecimal digits.
        cpu_seconds: what answering took.
    """

    types: dict[str, Count]
    exact: str
    accepted: str
    cpu_seconds: float

    @property
    def n(self) -> int:
        """Return the number of questions."""
        return self.types[ALL].n

    def right(self, way: Way) -> list[bool]:
        """Return which answers were right in this way, in the order of asking."""
        digits = self.exact if way is Way.EXACT else self.accepted
        bits = f"{int(digits, 16):0{4 * len(digits)}b}"
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


def tally(
    asked: Sequence[Asked], verdicts: Sequence[Verdict], blind: Mapping[str, str]
) -> dict[str, Count]:
    """Count right answers by type, and in all; `blind` are the blind's answers by question."""
    counts: dict[str, Count] = {}
    for each, verdict in zip(asked, verdicts, strict=True):
        by_blind = blind.get(each.question.text) == each.question.answer
        for kind in (str(each.question.type), ALL):
            old = counts.get(kind, Count(0, 0, 0, 0, 0))
            counts[kind] = Count(
                old.n + 1,
                old.exact + verdict.exact,
                old.accepted + verdict.accepted,
                old.begun + verdict.begun,
                old.blind + by_blind,
            )
    return {kind: counts[kind] for kind in (*EasyType, ALL) if kind in counts}


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
    draft.write_text(json.dumps(asdict(record), indent=1) + "\n")
    os.replace(draft, path)


def read_all(folder: Path) -> dict[str, Record]:
    """Read all records of a folder, by the names of their cells."""
    records = (_read(path) for path in sorted(folder.glob("*.json")))
    return {record.name: record for record in records}


def _read(path: Path) -> Record:
    try:
        fields = json.loads(path.read_text())
        trained, training = fields["trained"], fields["training"]
        record = Record(**fields | {"untrained": _score(fields["untrained"])})
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
