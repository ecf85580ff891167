"""A calibration from beginning to end: rank, search, confirm."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from skipserve.asking.processor import QuestionProcessor
from skipserve.asking.terms import ImageLimits, Terms
from skipserve.engine.limits import EngineSpec
from skipserve.media.decode import PixelLimits
from skipserve_client.evaluate.retention import are_different
from skipserve_client.evaluate.sample import Sample
from skipserve_policies.resolve import ResolvedPolicy
from skipserve_training.calibration.anatomy import Anatomy
from skipserve_training.calibration.confirming import Confirmation, Confirmed, digest_of
from skipserve_training.calibration.journal import Journal
from skipserve_training.calibration.measuring import (
    Cost,
    FlopsCost,
    LatencyCost,
    LayerDamage,
    Ranking,
    Stage,
    TableMeasure,
    damage,
    layer_damages,
)
from skipserve_training.calibration.probe import Probe, load_probe
from skipserve_training.calibration.questions import Drawn
from skipserve_training.calibration.search import Effort, Point, Search
from skipserve_training.calibration.tables import droppers_for, elements_of

_MAX_PIXELS = 40_000_000
# Prompts that the layers are watched with: more change little.
_MAX_WATCHED = 32
_FULL = "full"
_BELOW = 0.97


class CostKind(StrEnum):
    """What is to be low."""

    FLOPS = "flops"
    LATENCY = "latency"


@dataclass(frozen=True)
class Order:
    """What to calibrate.

    Attributes:
        model: what results call the model.
        spec: the model, and how to run it.
        drawn: the questions.
        budgets: costs, as shares of the full model's, below 1.
        cost: what the budgets are of.
        concurrency: questions at a time, where seconds count.
        max_tokens: an answer may have so many.
        effort: how hard to search.
        journal: the file of measurements; None for none.
    """

    model: str
    spec: EngineSpec
    drawn: Drawn
    budgets: Sequence[float]
    cost: CostKind
    concurrency: int
    max_tokens: int
    effort: Effort
    journal: Path | None


@dataclass(frozen=True)
class Rival:
    """A policy of the catalog, beside the best table that costs no more.

    Attributes:
        policy: of the catalog.
        cost: of the policy, on the questions that rank.
        damage: of the policy there.
        ours: the table; None where none was found.
    """

    policy: ResolvedPolicy
    cost: float
    damage: float
    ours: Point | None

    @property
    def is_beaten(self) -> bool:
        """Whether the table does less damage, on the questions that rank."""
        return self.ours is not None and self.ours.damage < self.damage


class Outcome(StrEnum):
    """Who was right more often on unseen questions."""

    BEATEN = "beaten"
    EQUAL = "equal"
    NOT_BEATEN = "not beaten"


@dataclass(frozen=True)
class Duel:
    """A policy of the catalog and the table beside it, both on unseen questions."""

    rival: Rival
    theirs: Confirmed
    ours: Confirmed

    @property
    def outcome(self) -> Outcome:
        """Who was right more often; by how much may be chance, which `p_value` tells."""
        ours, theirs = sum(self.ours.right), sum(self.theirs.right)
        if ours == theirs:
            return Outcome.EQUAL
        return Outcome.BEATEN if ours > theirs else Outcome.NOT_BEATEN

    @property
    def p_value(self) -> float:
        """How likely a difference at least as large is between equal policies (McNemar)."""
        return are_different(self.ours.right, self.theirs.right)


@dataclass(frozen=True)
class Found:
    """The table for a budget, and what it reached on unseen questions.

    Attributes:
        time: seconds as a share of the full model's, at the concurrency of the calibration.
    """

    point: Point
    confirmed: Confirmed
    time: float


@dataclass(frozen=True)
class Calibration:
    """What was found.

    Attributes:
        conditions: what it was measured on.
        anatomy: what the layers do; None where they cannot be watched.
        layers: each layer alone.
        frontier: what the search found, the dearest first.
        full: what the full model reached on unseen questions.
        found: by the name that it is given; no budget within which there is no table.
        rivals: the policies of the catalog that save, the dearest first.
        duels: of those that no other one beats, each that has a table beside it.
    """

    conditions: Mapping[str, Any]
    anatomy: Anatomy | None
    layers: Sequence[LayerDamage]
    frontier: Sequence[Point]
    full: Confirmed
    found: Mapping[str, Found]
    rivals: Sequence[Rival]
    duels: Sequence[Duel]


def calibrate(order: Order, stage: Stage, told: Callable[[str], None]) -> Calibration:
    """Rank, search and confirm, from where an earlier calibration into the same journal stopped.

    Args:
        order: what to calibrate.
        stage: hears how far each stage is.
        told: hears what the search has reached.

    Raises:
        CommandError: the journal cannot be used.
        ModelFilesError: the folder does not hold a model that can be run.
        SkipserveError: the model cannot be run here, or a question not be asked.
    """
    terms = Terms("the catalog", ImageLimits(PixelLimits(_MAX_PIXELS, _MAX_PIXELS)))
    processor = QuestionProcessor.from_folder(order.spec.model, order.model, terms)
    probe, ready = load_probe(order.spec, processor, order.drawn, order.max_tokens)
    conditions = {
        "model": order.model,
        "model_digest": ready.weights_digest,
        "dtype": ready.dtype,
        "device": ready.device,
        "data": order.drawn.name,
        "questions": _digest(order.drawn.ranking),
        "num_ranking": len(order.drawn.ranking),
        "max_tokens": order.max_tokens,
        "concurrency": order.concurrency,
    }
    with Journal(order.journal, conditions) as journal:
        stages = _Stages(order, probe, journal, stage, told)
        found = stages.run()
    choice = {
        "num_confirming": len(order.drawn.confirming),
        "cost": order.cost.value,
        "budgets": [*order.budgets],
        "effort": asdict(order.effort),
    }
    return replace(found, conditions=conditions | choice)


class _Stages:
    """The stages of one calibration.

    Args:
        order: what to calibrate.
        probe: the model.
        journal: where measurements are kept.
        stage: hears how far each is.
        told: hears what the search has reached.
    """

    def __init__(
        self,
        order: Order,
        probe: Probe,
        journal: Journal,
        stage: Stage,
        told: Callable[[str], None],
    ) -> None:
        self._order = order
        self._probe = probe
        self._journal = journal
        self._stage = stage
        self._told = told
        self._sizes = probe.processor.reporter.sizes
        self._catalog = probe.processor.policies.resolved
        self._asked = range(len(order.drawn.ranking))
        self._ranking = Ranking(probe, self._asked, journal, stage)
        self._confirmation = Confirmation(
            probe,
            dict(enumerate(order.drawn.confirming, start=len(self._asked))),
            self._catalog[_FULL],
            journal,
            stage,
        )

    def run(self) -> Calibration:
        """Run them all."""
        anatomy = self._probe.anatomy(self._asked[:_MAX_WATCHED])
        layers = layer_damages(self._ranking, self._sizes.decoder.num_layers)
        timing = self._timing()
        cost = self._cost(timing)
        search = self._search(TableMeasure(self._ranking, cost, self._sizes))
        rivals = self._rivals(cost, search)
        chosen = {
            policy_name(budget): point
            for budget in self._order.budgets
            if (point := self._choose(search, budget)) is not None
        }
        pairs = [(it, it.ours) for it in _unbeaten(rivals) if it.ours is not None]
        named = {name: self._resolve(point, name) for name, point in chosen.items()}
        ours = [self._resolve(point) for _, point in pairs]
        confirmed = self._confirmation.confirm(
            [*named.values(), *(it.policy for it, _ in pairs), *ours]
        )
        return Calibration(
            conditions={},
            anatomy=anatomy,
            layers=layers,
            frontier=search.frontier(),
            full=confirmed[self._catalog[_FULL].digest],
            found={
                name: Found(
                    point,
                    # What computes the same may have been confirmed under another name.
                    replace(confirmed[named[name].digest], policy=named[name]),
                    timing.of_policy(named[name]),
                )
                for name, point in chosen.items()
            },
            rivals=rivals,
            duels=[
                Duel(rival, confirmed[rival.policy.digest], confirmed[table.digest])
                for (rival, _), table in zip(pairs, ours, strict=True)
            ],
        )

    def _timing(self) -> LatencyCost:
        asked = self._asked[: self._order.concurrency]
        return LatencyCost(self._probe, asked, self._sizes, self._journal, self._stage)

    def _cost(self, timing: LatencyCost) -> Cost:
        if self._order.cost is CostKind.LATENCY:
            return timing
        references = enumerate(self._probe.references())
        return FlopsCost(self._probe, {index: len(it.token_ids) for index, it in references})

    def _search(self, measure: TableMeasure) -> Search:
        elements = [*elements_of(self._sizes.decoder.num_layers)]
        search = Search(measure, elements, self._order.effort, self._told)
        # A little below, for the questions that confirm may cost a little more.
        below = _BELOW * min(self._order.budgets)
        search.run(droppers_for(self._sizes), [*self._order.budgets, below])
        return search

    def _choose(self, search: Search, budget: float) -> Point | None:
        """Return the best table within a budget: of FLOPs, on the questions that confirm too."""
        if self._order.cost is CostKind.LATENCY:
            return search.best(budget)
        cost = self._confirmation.cost
        within = [point for point in search.points.values() if point.cost <= budget]
        within.sort(key=lambda point: (point.damage, point.cost))
        return next((it for it in within if cost.of_policy(self._resolve(it)) <= budget), None)

    def _rivals(self, cost: Cost, search: Search) -> list[Rival]:
        costs = [(policy, cost.of_policy(policy)) for policy in self._catalog.values()]
        saving = [(policy, share) for policy, share in costs if share < 1]
        found = self._ranking.compare([policy for policy, _ in saving], "the catalog")
        rivals = [
            Rival(policy, share, damage(comparisons), search.best(share))
            for (policy, share), comparisons in zip(saving, found, strict=True)
        ]
        return sorted(rivals, key=lambda it: -it.cost)

    def _resolve(self, point: Point, name: str = "candidate") -> ResolvedPolicy:
        return point.table.resolve(self._sizes, name)


def policy_name(budget: float) -> str:
    """Return what the policy for a budget is called."""
    return f"calibrated-{100 * budget:g}"


def _unbeaten(rivals: Sequence[Rival]) -> list[Rival]:
    """Return those beside which none costs as little and does less damage."""
    return [
        it
        for it in rivals
        if not any(other.cost <= it.cost and other.damage < it.damage for other in rivals)
    ]


def _digest(samples: Sequence[Sample]) -> str:
    parts = [digest_of(sample) for sample in samples]
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]
