"""Counts how many answers were right, by type of question."""

from collections.abc import Sequence

from skipserve_training.paper.answering import Verdict
from skipserve_training.paper.asking import Asked
from skipserve_training.paper.records import ALL, DIGITS, Count


def tally(
    asked: Sequence[Asked],
    verdicts: Sequence[Verdict],
    blind: Sequence[float],
    kinds: Sequence[str],
) -> dict[str, Count]:
    """Count right answers by type, in the order of `kinds`, and in all.

    Args:
        asked: the questions.
        verdicts: on the answer to each.
        blind: how right the blind's answer to each is.
        kinds: the types.
    """
    counts: dict[str, Count] = {}
    for each, verdict, by_blind in zip(asked, verdicts, blind, strict=True):
        for kind in (str(each.probe.kind), ALL):
            old = counts.get(kind, Count(0, 0, 0, 0, 0))
            counts[kind] = Count(
                old.n + 1,
                old.exact + verdict.exact,
                _sum(old.accepted, verdict.accepted),
                old.begun + verdict.begun,
                _sum(old.blind, by_blind),
            )
    return {kind: counts[kind] for kind in (*kinds, ALL) if kind in counts}


def _sum(one: float, two: float) -> float:
    return round(one + two, DIGITS)
