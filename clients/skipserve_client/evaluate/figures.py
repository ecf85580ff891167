"""The figures of policies on the same questions, each with what resampling gives, and beside full.

The same questions are drawn for all policies, so that what they share cancels out of a difference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from skipserve_client.evaluate.metrics.bootstrap import Interval, resampled_sums
from skipserve_client.evaluate.metrics.item import Item
from skipserve_client.evaluate.metrics.means import EXACT, commonest
from skipserve_client.evaluate.metrics.metric import (
    Array,
    Measure,
    Metric,
    Tally,
    by_group,
    share,
)
from skipserve_client.evaluate.scoring import GradedAnswer, Score, TypeScore, normalise, score
from skipserve_policies.named import FULL

# What policies are held against where that is another model's answers.
_BASELINE = "@baseline"
RIGHT = 0.5  # an answer that is worth so much counts as right


@dataclass(frozen=True)
class Figure:
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, resampled: Array) -> "Figure":
        """Put the interval of resampled figures, [R], beside the figure itself."""
        interval = Interval.of(resampled)
        return cls(value, interval.low, interval.high)


@dataclass(frozen=True)
class Measured(Figure):
    """A metric's figure."""

    measure: Measure


@dataclass(frozen=True)
class Comparison:
    """A policy beside full, on the same questions.

    Attributes:
        retention: of the metric's first figure, as a share of full's; None where full has nothing.
        difference: of that figure, in its unit.
        agreement: the share of answers that are full's but for case, spaces and a final stop.
        changed: how many are not.
        right_to_wrong: how many full has right and the policy wrong; None where answers are not
            right or wrong.
        wrong_to_right: the reverse.
    """

    retention: Figure | None
    difference: Figure
    agreement: Figure
    changed: int
    right_to_wrong: int | None
    wrong_to_right: int | None


@dataclass(frozen=True)
class Figures:
    """What is found about one policy.

    Attributes:
        score: the mean of what answers are worth, by type too.
        measured: the metric's figures, the one that it is known for first.
        details: further ones by category.
        comparison: None for full itself, and where full was not asked.
    """

    score: Score
    measured: tuple[Measured, ...]
    details: Mapping[str, Mapping[str, float]]
    comparison: Comparison | None


@dataclass(frozen=True)
class _Counted:
    """One policy's answers, what they are worth, and sums of them over resampled units.

    Attributes:
        sums: of the tally's counts, [R, C].
        worth_sums: what the questions are worth, and their number, [R, 2].
        agreed_sums: how many answers are full's, [R].
    """

    items: Sequence[Item]
    worths: Array
    agreed: Array
    tally: Tally
    sums: Array
    worth_sums: Array
    agreed_sums: Array

    @property
    def values(self) -> Array:
        """The metric's figures, [M]."""
        return self.tally.figures(self.tally.counts.sum(axis=0))

    @property
    def resampled(self) -> Array:
        """The metric's figures, [R, M]."""
        return self.tally.figures(self.sums)


def figures_of(
    policies: Mapping[str, Sequence[Item]], metric: Metric, baseline: Sequence[Item] = ()
) -> dict[str, Figures]:
    """Score policies that answered the same questions, in the same order.

    Args:
        policies: their answers, by name.
        metric: how they are scored.
        baseline: what all are held against; empty for the answers under full, where there are some.
    """
    asked = {**policies, _BASELINE: baseline} if baseline else policies
    reference = _BASELINE if baseline else FULL
    counted = _counted(asked, reference, metric)
    full = counted.get(reference)
    return {
        name: Figures(
            score=_score(it, metric),
            measured=_measured(it, metric),
            details=metric.details(it.items),
            comparison=None if full is None or it is full else _compare(it, full, metric),
        )
        for name, it in counted.items()
        if name in policies
    }


def _counted(
    policies: Mapping[str, Sequence[Item]], reference: str, metric: Metric
) -> dict[str, _Counted]:
    worths = {name: np.array(metric.worths(items)) for name, items in policies.items()}
    agreed = {
        name: _agreed(items, policies.get(reference, items)) for name, items in policies.items()
    }
    tallies = {name: metric.tally(items, worths[name]) for name, items in policies.items()}
    columns = [
        np.hstack([tallies[name].counts, _worth_counts(items, worths[name], agreed[name])])
        for name, items in policies.items()
    ]
    strata = next(iter(tallies.values())).strata
    sums = np.split(resampled_sums(np.hstack(columns), strata), len(columns), axis=1)
    return {
        name: _Counted(
            items=policies[name],
            worths=worths[name],
            agreed=agreed[name],
            tally=tallies[name],
            sums=own[:, :-3],
            worth_sums=own[:, -3:-1],
            agreed_sums=own[:, -1],
        )
        for name, own in zip(policies, sums, strict=True)
    }


def _agreed(items: Sequence[Item], others: Sequence[Item]) -> Array:
    pairs = zip(items, others, strict=True)
    same = [normalise(item.given) == normalise(other.given) for item, other in pairs]
    return np.array(same, dtype=np.float64)


def _worth_counts(items: Sequence[Item], worths: Array, agreed: Array) -> Array:
    """Return of each unit what it is worth, its number of questions and of answers as full's."""
    return by_group(np.stack([worths, np.ones(len(items)), agreed], axis=1), items)


def _measured(counted: _Counted, metric: Metric) -> tuple[Measured, ...]:
    values, resampled = counted.values, counted.resampled
    if metric is EXACT:
        exact = _exact_score(counted.items)
        return (Measured(exact.accuracy, exact.low, exact.high, metric.measures[0]),)
    figures = [Figure.of(float(value), resampled[:, m]) for m, value in enumerate(values)]
    return tuple(
        Measured(it.value, it.low, it.high, measure)
        for it, measure in zip(figures, metric.measures, strict=True)
    )


def _compare(ours: _Counted, full: _Counted, metric: Metric) -> Comparison:
    value, whole = float(ours.values[0]), float(full.values[0])
    resampled, wholes = ours.resampled[:, 0], full.resampled[:, 0]
    total = ours.worth_sums[:, 1]
    right, was_right = ours.worths >= RIGHT, full.worths >= RIGHT
    return Comparison(
        retention=Figure.of(value / whole, share(resampled, wholes)) if whole else None,
        difference=Figure.of(value - whole, resampled - wholes),
        agreement=Figure.of(float(ours.agreed.mean()), ours.agreed_sums / total),
        changed=int((ours.agreed == 0).sum()),
        right_to_wrong=int((was_right & ~right).sum()) if metric.tells_right else None,
        wrong_to_right=int((right & ~was_right).sum()) if metric.tells_right else None,
    )


def _score(counted: _Counted, metric: Metric) -> Score:
    if metric is EXACT:
        return _exact_score(counted.items)
    items, worths = counted.items, counted.worths
    mean = Figure.of(float(worths.mean()), counted.worth_sums[:, 0] / counted.worth_sums[:, 1])
    types = _by_type(items, worths, metric)
    return Score(
        accuracy=mean.value,
        low=mean.low,
        high=mean.high,
        majority=sum(types[kind].majority * types[kind].n for kind in {it.type for it in items})
        / len(items),
        n=len(items),
        types=types,
    )


def _exact_score(items: Sequence[Item]) -> Score:
    return score(GradedAnswer.of(it.type, it.expected, it.given, it.part, it.blind) for it in items)


def _by_type(items: Sequence[Item], worths: Array, metric: Metric) -> dict[str, TypeScore]:
    """Return the means by type, then those by part of a type."""
    places: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        places.setdefault(item.type, []).append(place)
    for place, item in enumerate(items):
        if item.part is not None:
            places.setdefault(f"{item.type}, {item.part}", []).append(place)
    return {
        kind: TypeScore(
            accuracy=float(worths[own].mean()),
            majority=_majority([items[place] for place in own], metric),
            n=len(own),
        )
        for kind, own in places.items()
    }


def _majority(items: Sequence[Item], metric: Metric) -> float:
    """Return what the right answer that most questions share would be worth to all of them."""
    if not metric.tells_right:
        return 0.0
    answer = commonest(items)
    return float(np.mean(metric.worths([item.answered(answer) for item in items])))
