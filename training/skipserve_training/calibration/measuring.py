"""What tables cost and what they do to answers, on a model: the search's measure."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from itertools import product
from statistics import fmean, median
from typing import Protocol

from skipserve_policies.plan import Cell, Ffn, Plan, TokenClass, trim
from skipserve_policies.resolve import PolicyError, ResolvedPolicy
from skipserve_policies.schema import Action, Scope, SkipPolicy
from skipserve_policies.sizes import ModelSizes
from skipserve_training.calibration.journal import Journal
from skipserve_training.calibration.probe import Comparison, Probe
from skipserve_training.calibration.tables import (
    ACTIONS,
    FULL,
    SCOPES,
    Element,
    Table,
    droppers_for,
)

# Policies that are compared side by side.
_TOGETHER = 16
# How often a policy is timed beside the full model.
_TURNS = 5
# Less than this nothing costs: an estimate may say so.
_LEAST = 0.01

# Called with what is under way, how much of it is done, and how much there is.
Stage = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Ranking:
    """Compares policies with the full model on the questions that rank; each policy once.

    Attributes:
        probe: the model.
        indexes: which of its questions rank.
        journal: where comparisons are kept.
        stage: hears how far it is.
    """

    probe: Probe
    indexes: range
    journal: Journal
    stage: Stage

    def compare(
        self, policies: Sequence[ResolvedPolicy], name: str
    ) -> list[tuple[Comparison, ...]]:
        """Return each policy's comparisons, question by question; policies run side by side."""
        missing = {it.digest: it for it in policies if self.journal.get(_key(it)) is None}
        for policy, found in self._measured([*missing.values()], name):
            self.journal.put(_key(policy), [astuple(it) for it in found])
        return [
            tuple(Comparison(*values) for values in self.journal.get(_key(policy)))
            for policy in policies
        ]

    def _measured(
        self, policies: Sequence[ResolvedPolicy], name: str
    ) -> Iterable[tuple[ResolvedPolicy, list[Comparison]]]:
        """Yield comparisons of some policies at a time, so that not too much can be lost."""
        for start in range(0, len(policies), _TOGETHER):
            some = policies[start : start + _TOGETHER]
            # Question by question: what policies have in common is computed once.
            jobs = [(policy, index) for index in self.indexes for policy in some]
            found = self.probe.compare(jobs)
            for place, policy in enumerate(some):
                yield policy, found[place :: len(some)]
            self.stage(name, start + len(some), len(policies))


def _key(policy: ResolvedPolicy) -> str:
    return f"compared {policy.digest}"


def damage(comparisons: Sequence[Comparison]) -> float:
    """Return the mean damage over questions."""
    return fmean(comparison.damage for comparison in comparisons)


class Cost(Protocol):
    """What is to be low, as a share of what the full model takes."""

    def of_table(self, table: Table, policy: ResolvedPolicy) -> float:
        """Return the cost of a table, whose policy is given too; thousands of times."""

    def of_policy(self, policy: ResolvedPolicy) -> float:
        """Return the cost of any policy."""


class FlopsCost:
    """Counts FLOPs on some questions, by their formula.

    Args:
        probe: the model.
        lengths: how many tokens the full model's answer to each question has, by its place.
    """

    def __init__(self, probe: Probe, lengths: Mapping[int, int]) -> None:
        self._probe = probe
        self._shapes = Counter(probe.shape(*it) for it in lengths.items())

    def of_table(self, _: Table, policy: ResolvedPolicy) -> float:
        """Return the cost of a table, by its policy."""
        return self.of_policy(policy)

    def of_policy(self, policy: ResolvedPolicy) -> float:
        """Return the cost of any policy."""
        planned = full = 0
        for shape, count in self._shapes.items():
            saving = self._probe.saving(policy, shape)
            planned += count * saving.planned_flops
            full += count * saving.full_flops
        return planned / full


class LatencyCost:
    """Takes the time until questions that are asked at once are all answered.

    Policies are timed. A table is estimated: what each kind of element saves, where half of the
    layers leave it out, and each dropper by itself, is timed once, and added up.

    Args:
        probe: the model.
        indexes: which questions are asked.
        sizes: of the model.
        journal: where what was timed is kept.
        stage: hears how far it is.
    """

    def __init__(
        self, probe: Probe, indexes: range, sizes: ModelSizes, journal: Journal, stage: Stage
    ) -> None:
        self._probe = probe
        self._indexes = indexes
        self._sizes = sizes
        self._journal = journal
        self._stage = stage

    def of_table(self, table: Table, _: ResolvedPolicy) -> float:
        """Return an estimate."""
        left = 1 if table.dropper is None else self._droppers[table.dropper]
        saved = sum(self._kinds[element.action, element.scope] for element in table.elements)
        return max(left - saved, _LEAST)

    def of_policy(self, policy: ResolvedPolicy) -> float:
        """Return how long questions take under a policy, as a share of the full model's time.

        Both run in turns; the median of the ratios counts.
        """
        key = f"seconds {policy.digest}"
        if self._journal.get(key) is None:
            self._journal.put(key, median(self._ratio(policy) for _ in range(_TURNS)))
        return float(self._journal.get(key))

    def _ratio(self, policy: ResolvedPolicy) -> float:
        took, full = (
            self._probe.seconds([(it, index) for index in self._indexes])
            for it in (policy, FULL.resolve(self._sizes))
        )
        return took / full

    @cached_property
    def _kinds(self) -> dict[tuple[Action, Scope], float]:
        """What one element of each kind saves."""
        half = range(0, self._sizes.decoder.num_layers, 2)
        saved = {}
        for kind in product(ACTIONS, SCOPES):
            table = Table(frozenset(Element(layer, *kind) for layer in half))
            saved[kind] = (1 - self.of_policy(table.resolve(self._sizes))) / len(half)
            self._stage("the time of each kind", len(saved), len(ACTIONS) * len(SCOPES))
        return saved

    @cached_property
    def _droppers(self) -> dict[str, float]:
        return {
            name: self.of_policy(Table(dropper=name).resolve(self._sizes))
            for name in droppers_for(self._sizes)
        }


class TableMeasure:
    """The search's measure: tables become policies, and policies are compared.

    Args:
        ranking: compares.
        cost: what tables cost.
        sizes: of the model.
    """

    def __init__(self, ranking: Ranking, cost: Cost, sizes: ModelSizes) -> None:
        self._ranking = ranking
        self._cost = cost
        self._sizes = sizes
        self._found: dict[Table, tuple[ResolvedPolicy, float] | None] = {}

    def cost(self, table: Table) -> float | None:
        """Return the cost as a share of the full model's; None where the model cannot run it."""
        found = self._look_up(table)
        return None if found is None else found[1]

    def damages(self, tables: Sequence[Table]) -> list[float]:
        """Return the damage of each, which the model can run."""
        policies = [found[0] for table in tables if (found := self._look_up(table)) is not None]
        return [damage(found) for found in self._ranking.compare(policies, "candidates")]

    def _look_up(self, table: Table) -> tuple[ResolvedPolicy, float] | None:
        """Return a table's policy and its cost; both are found once."""
        if table not in self._found:
            try:
                policy = table.resolve(self._sizes)
            except PolicyError:
                self._found[table] = None
            else:
                self._found[table] = policy, self._cost.of_table(table, policy)
        return self._found[table]


@dataclass(frozen=True)
class LayerDamage:
    """What skipping in one layer does, for one class of rows.

    Attributes:
        divergence: KL divergence of the full model's next-token distributions from those without,
            in nats, summed over the answer as long as it stays, mean over questions.
        changed: the share of the answers that change.
    """

    action: Action
    token_class: str
    layer: int
    divergence: float
    changed: float


def layer_damages(ranking: Ranking, num_layers: int) -> list[LayerDamage]:
    """Return what skipping does in each layer alone, for each class of rows and for all."""
    places = [
        (action, classes, layer)
        for action in ACTIONS
        for classes in (*((it,) for it in TokenClass), tuple(TokenClass))
        for layer in range(num_layers)
    ]
    found = ranking.compare([_skipping(*place, num_layers) for place in places], "single layers")
    return [
        LayerDamage(
            action=action,
            token_class=classes[0].name.lower() if len(classes) == 1 else "all",
            layer=layer,
            divergence=fmean(it.total for it in comparisons),
            changed=fmean(it.is_changed for it in comparisons),
        )
        for (action, classes, layer), comparisons in zip(places, found, strict=True)
    ]


def _skipping(
    action: Action, classes: Sequence[TokenClass], layer: int, num_layers: int
) -> ResolvedPolicy:
    """Return what skips in one layer for some classes of rows; no scope has each of them alone."""
    cell = Cell(
        attention=action is Action.SKIP_FFN,
        ffn=Ffn.SERIAL if action is Action.SKIP_ATTENTION else Ffn.NONE,
    )
    columns = [[Cell()] * num_layers for _ in TokenClass]
    for token_class in classes:
        columns[token_class][layer] = cell
    plan = Plan(tuple(map(tuple, columns)))
    return ResolvedPolicy("layer", SkipPolicy(), plan, trim(plan), {})
