"""Exact match by type, with intervals and the share that would be right without the picture."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

from scipy.stats import binomtest

MARGIN = 0.15  # what a type must add to its majority answer to stay in the set


@dataclass(frozen=True)
class GradedAnswer:
    """One question's type and right answer, and what a model said.

    Attributes:
        others: further answers that are right too.
        part: of its type, where the type has parts.
        blind: what a model would answer that sees the question alone, where that is known.
    """

    type: str
    expected: str
    given: str
    others: tuple[str, ...] = ()
    part: str | None = None
    blind: str | None = None

    @classmethod
    def of(
        cls,
        kind: str,
        accepted: tuple[str, ...],
        given: str,
        part: str | None = None,
        blind: str | None = None,
    ) -> Self:
        """Make one of all the answers that are right, of which there is at least one."""
        first, *others = accepted
        return cls(kind, first, given, tuple(others), part, blind)

    @property
    def is_correct(self) -> bool:
        """Say whether it is one of the right ones but for case, spaces and a final stop."""
        return normalise(self.given) in self.accepted

    @property
    def accepted(self) -> frozenset[str]:
        """The right answers, normalised."""
        return frozenset(map(normalise, (self.expected, *self.others)))


@dataclass(frozen=True)
class TypeScore:
    """Accuracy on one question type, or a part of one, beside what needs no picture.

    Attributes:
        majority: what the blind answers reach or, where none are known, the most frequent right
            answer of the type.
    """

    accuracy: float
    majority: float
    n: int

    @property
    def is_above_majority(self) -> bool:
        """Say whether the type shows that the model sees something."""
        return self.accuracy >= self.majority + MARGIN


@dataclass(frozen=True)
class Score:
    """Accuracy over all questions with its 95 % interval (Wilson), and by type.

    Attributes:
        majority: what the types' own would reach together.
        types: by name; those that have parts are followed by "TYPE, PART".
    """

    accuracy: float
    low: float
    high: float
    majority: float
    n: int
    types: dict[str, TypeScore]


def normalise(answer: str) -> str:
    """Lower the case, join runs of spaces and drop a final stop."""
    return " ".join(answer.lower().split()).removesuffix(".").rstrip()


def score(answers: Iterable[GradedAnswer]) -> Score:
    """Score the answers of one model under one policy.

    Raises:
        ValueError: There are no answers.
    """
    graded = list(answers)
    if not graded:
        raise ValueError("Expected at least one answer to score, got none.")
    correct = sum(answer.is_correct for answer in graded)
    interval = binomtest(correct, len(graded)).proportion_ci(0.95, method="wilson")
    types = {kind: _score_type(found) for kind, found in _grouped(graded, _type).items()}
    parts = {kind: _score_type(found) for kind, found in _grouped(graded, _part).items() if kind}
    return Score(
        accuracy=correct / len(graded),
        low=float(interval.low),
        high=float(interval.high),
        majority=sum(it.majority * it.n for it in types.values()) / len(graded),
        n=len(graded),
        types=types | parts,
    )


def _type(answer: GradedAnswer) -> str:
    return answer.type


def _part(answer: GradedAnswer) -> str:
    return "" if answer.part is None else f"{answer.type}, {answer.part}"


def _grouped(
    graded: Iterable[GradedAnswer], name: Callable[[GradedAnswer], str]
) -> dict[str, list[GradedAnswer]]:
    groups: dict[str, list[GradedAnswer]] = {}
    for answer in graded:
        groups.setdefault(name(answer), []).append(answer)
    return groups


def _score_type(graded: list[GradedAnswer]) -> TypeScore:
    return TypeScore(
        accuracy=sum(answer.is_correct for answer in graded) / len(graded),
        majority=_num_without_picture(graded) / len(graded),
        n=len(graded),
    )


def _num_without_picture(graded: list[GradedAnswer]) -> int:
    if all(answer.blind is not None for answer in graded):
        return sum(normalise(answer.blind or "") in answer.accepted for answer in graded)
    expected = Counter(accepted for answer in graded for accepted in answer.accepted)
    return max(expected.values())
