"""Exact match by type, with intervals and the share that a constant answer would reach."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from scipy.stats import binomtest

MARGIN = 0.15  # what a type must add to its majority answer to stay in the set


@dataclass(frozen=True)
class GradedAnswer:
    """One question's type and right answer, and what a model said.

    Attributes:
        others: further answers that are right too.
    """

    type: str
    expected: str
    given: str
    others: tuple[str, ...] = ()

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
    """Accuracy on one question type beside what its most frequent right answer would reach."""

    accuracy: float
    majority: float
    n: int

    @property
    def is_above_majority(self) -> bool:
        """Say whether the type shows that the model sees something."""
        return self.accuracy >= self.majority + MARGIN


@dataclass(frozen=True)
class Score:
    """Accuracy over all questions with its 95 % interval (Wilson), and by type."""

    accuracy: float
    low: float
    high: float
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
    by_type: dict[str, list[GradedAnswer]] = {}
    for answer in graded:
        by_type.setdefault(answer.type, []).append(answer)
    return Score(
        accuracy=correct / len(graded),
        low=float(interval.low),
        high=float(interval.high),
        n=len(graded),
        types={kind: _score_type(answers) for kind, answers in by_type.items()},
    )


def _score_type(graded: list[GradedAnswer]) -> TypeScore:
    expected = Counter(accepted for answer in graded for accepted in answer.accepted)
    return TypeScore(
        accuracy=sum(answer.is_correct for answer in graded) / len(graded),
        majority=max(expected.values()) / len(graded),
        n=len(graded),
    )
