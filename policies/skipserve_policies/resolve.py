"""Turns a policy's rules into a plan for a model of a given depth."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from skipserve_policies.narrowing import Narrowing, NarrowingMisfitError, make_narrowing
from skipserve_policies.plan import IDLE, Cell, Ffn, Pair, Plan, TokenClass, trim
from skipserve_policies.reduction import Reduction, ReductionMisfitError, make_reduction
from skipserve_policies.schema import (
    DROP_VISUAL,
    Action,
    Dropper,
    DropVisual,
    LayerInterval,
    LayerRange,
    Layers,
    ReduceVisual,
    Rule,
    Scope,
    SkipPolicy,
    layers_before,
)
from skipserve_policies.sizes import ModelSizes

# What metrics call all policies that were added while a server runs.
ADDED_LABEL = "added"

CLASSES_OF_SCOPE: dict[Scope, tuple[TokenClass, ...]] = {
    Scope.GENERATED: (TokenClass.GENERATED,),
    Scope.ANSWER: (TokenClass.LAST, TokenClass.GENERATED),
    Scope.PROMPT: (TokenClass.TEXT, TokenClass.VISUAL, TokenClass.LAST),
    Scope.VISUAL: (TokenClass.VISUAL,),
    Scope.ALL: tuple(TokenClass),
}


class PolicyError(ValueError):
    """A policy that cannot be run; the message says why and what would be right."""


class PolicyMisfitError(PolicyError):
    """A policy that is for another model: names layers, or looks at what this one does not have."""


class PolicyContradictionError(PolicyError):
    """Rules of a policy that want different things of the same cell."""


@dataclass(frozen=True)
class ResolvedPolicy:
    """A policy made concrete for one model, or one depth.

    Attributes:
        name: what replies call it.
        policy: what was asked for.
        untrimmed: the table as the rules say it.
        plan: the table that runs: trimmed, with the same logits. Where tokens of the prompt are
            scored, `scoring_plan` runs.
        layers: for each action, the layers that it touches, ascending; where rows leave inside the
            decoder, those before which they do.
        reduction: what is left of each image before the decoder; None for all.
        narrowing: which visual rows leave inside the decoder; None for none.
        is_added: whether it was added while the server runs.
    """

    name: str
    policy: SkipPolicy
    untrimmed: Plan
    plan: Plan
    layers: dict[str, tuple[int, ...]]
    reduction: Reduction | None = None
    narrowing: Narrowing | None = None
    is_added: bool = False

    @property
    def label(self) -> str:
        """What metrics call it: of all names ever added, series would have no end."""
        return ADDED_LABEL if self.is_added else self.name

    @cached_property
    def scope(self) -> str | None:
        """The scopes of the rules, joined with "+"; None where no rule has one."""
        scopes = dict.fromkeys(rule.scope.value for _, rule in _static_rules(self.policy))
        return "+".join(scopes) or None

    @cached_property
    def digest(self) -> str:
        """The digest of what runs: equal for policies that compute the same."""
        removed = [it.key for it in (self.reduction, self.narrowing) if it is not None]
        if not removed:
            return self.plan.digest
        return hashlib.sha256(b"".join((self.plan.key, *removed))).hexdigest()[:16]

    @cached_property
    def scoring_plan(self) -> Plan:
        """The table that runs where tokens of the prompt are scored: all its rows have logits.

        But for visual rows where some leave inside the decoder. The logits that `plan` gives are
        the same here.
        """
        unwanted = set() if self.narrowing is None else {TokenClass.VISUAL}
        wanted = frozenset(TokenClass) - unwanted
        return trim(self.untrimmed, _visual_stop(self.narrowing), wanted)

    def plan_for(self, *, scores: bool) -> Plan:
        """Return the table that runs, given whether tokens of the prompt are scored."""
        return self.scoring_plan if scores else self.plan


def resolve_for(name: str, policy: SkipPolicy, sizes: ModelSizes) -> ResolvedPolicy:
    """Resolve a policy for a model.

    Raises:
        PolicyMisfitError: as `resolve` does, or the model lacks what is looked at.
        PolicyContradictionError: as `resolve` does, or two rules take rows of images away, or one
            skips what another one's choice of rows needs.
    """
    resolved = _resolve_static(name, policy, sizes.decoder.num_layers)
    removing = [(index, rule) for index, rule in enumerate(policy.rules) if _removes_rows(rule)]
    if not removing:
        return resolved
    (index, rule), *others = removing
    if others:
        raise PolicyContradictionError(
            f"{_describe(policy, index)} and {_describe(policy, others[0][0])} both take rows of "
            "images away: one of them can"
        )
    try:
        if isinstance(rule, ReduceVisual):
            return replace(resolved, reduction=make_reduction(rule, sizes))
        assert isinstance(rule, DropVisual)
        narrowing = make_narrowing(rule, sizes)
    except (ReductionMisfitError, NarrowingMisfitError) as error:
        raise PolicyMisfitError(f"{_describe(policy, index)}: {error}") from None
    return resolved if narrowing is None else _narrow(resolved, index, narrowing)


def _removes_rows(rule: object) -> bool:
    return isinstance(rule, ReduceVisual | DropVisual)


# The rows by whose attention in the block before others are ranked.
_ASKING = {
    Dropper.FASTV: (TokenClass.LAST,),
    Dropper.SPARSEVLM: (TokenClass.TEXT, TokenClass.LAST),
}


def _narrow(resolved: ResolvedPolicy, index: int, narrowing: Narrowing) -> ResolvedPolicy:
    """Add rows that leave to a policy, of which that is the rule at an index.

    Raises:
        PolicyContradictionError: another rule skips what the choice of rows needs, or would have
            rows leave between the blocks of a pair.
    """
    policy, plan = resolved.policy, resolved.untrimmed
    for stage in narrowing.stages:
        needed = stage.layer - 1
        unmet = [
            (token_class, stage.layer)
            for token_class in TokenClass
            if plan.cell(stage.layer, token_class).pair is Pair.SECOND
        ]
        for token_class in _ASKING.get(narrowing.method, ()):
            cell = plan.cell(needed, token_class)
            if not cell.attention or cell.pair is not Pair.NONE:
                unmet.append((token_class, needed))
        if narrowing.method is Dropper.DART and not plan.kv[TokenClass.VISUAL][needed]:
            unmet.append((TokenClass.LAST, needed))
        for token_class, layer in unmet:
            other = next(
                claim.number
                for claim in _claims(policy, plan.num_layers)
                if claim.layer == layer and token_class in CLASSES_OF_SCOPE[claim.rule.scope]
            )
            raise _contradiction(policy, min(index, other), max(index, other), layer)
    leaving = {DROP_VISUAL: tuple(stage.layer for stage in narrowing.stages)}
    return replace(
        resolved,
        plan=trim(plan, _visual_stop(narrowing)),
        layers=resolved.layers | leaving,
        narrowing=narrowing,
    )


def _visual_stop(narrowing: Narrowing | None) -> int | None:
    """Return the layer before which all visual rows leave; None where there is none."""
    if narrowing is None or narrowing.method is not Dropper.VTW:
        return None
    return narrowing.stages[0].layer


def resolve(name: str, policy: SkipPolicy, num_layers: int) -> ResolvedPolicy:
    """Resolve a policy that skips, and takes no rows away, for models of `num_layers` blocks.

    Raises:
        PolicyMisfitError: the policy is for another depth, or a rule touches a layer outside the
            model, or none in it, or takes rows of images away.
        PolicyContradictionError: two rules want different things of the same cell.
    """
    for index, rule in enumerate(policy.rules):
        if _removes_rows(rule):
            raise PolicyMisfitError(
                f"{_describe(policy, index)}: what it does depends on more than the model's depth"
            )
    return _resolve_static(name, policy, num_layers)


def _static_rules(policy: SkipPolicy) -> Iterator[tuple[int, Rule]]:
    return ((index, it) for index, it in enumerate(policy.rules) if isinstance(it, Rule))


def _resolve_static(name: str, policy: SkipPolicy, num_layers: int) -> ResolvedPolicy:
    if policy.num_layers not in (None, num_layers):
        raise PolicyMisfitError(
            f"it is for models with {policy.num_layers} layers alone: this model has layers 0 to "
            f"{num_layers - 1}"
        )
    claims = tuple(_claims(policy, num_layers))
    untrimmed = _build_plan(policy, claims, num_layers)
    layers: dict[str, set[int]] = {}
    for claim in claims:
        layers.setdefault(claim.rule.action.value, set()).add(claim.layer)
    return ResolvedPolicy(
        name=name,
        policy=policy,
        untrimmed=untrimmed,
        plan=trim(untrimmed),
        layers={action: tuple(sorted(indexes)) for action, indexes in layers.items()},
    )


def layers_of(layers: Layers, num_layers: int) -> tuple[int, ...]:
    """Return the layer indexes that a rule names, ascending, in a model of `num_layers`.

    Raises:
        PolicyMisfitError: one of them is outside the model, or there is none.
    """
    match layers:
        case LayerInterval():
            return _interval_layers(layers, num_layers)
        case LayerRange():
            return _range_layers(layers, num_layers)
        case _:
            return _listed_layers(layers, num_layers)


def _listed_layers(positions: Iterable[int | str], num_layers: int) -> tuple[int, ...]:
    """Return the layers of a list; a share names the one behind its cut, or the last."""
    named = {
        position
        if isinstance(position, int)
        else min(layers_before(position, num_layers), num_layers - 1)
        for position in positions
    }
    _check_exists(max(named), num_layers)
    return tuple(sorted(named))


def _range_layers(layers: LayerRange, num_layers: int) -> tuple[int, ...]:
    end = layers_before(layers.last, num_layers) + isinstance(layers.last, int)
    _check_exists(end - 1, num_layers)
    named = range(layers_before(layers.first, num_layers), end)
    every = layers.except_every
    found = tuple(layer for layer in named if every is None or layer % every)
    if not found:
        raise PolicyMisfitError(f"the range {layers} holds none of the model's {num_layers} layers")
    return found


def _check_exists(layer: int, num_layers: int) -> None:
    if layer >= num_layers:
        raise PolicyMisfitError(
            f"layer {layer} does not exist: the model has layers 0 to {num_layers - 1}"
        )


def _interval_layers(layers: LayerInterval, num_layers: int) -> tuple[int, ...]:
    intervals = layers.interval
    start = layers_before(layers.start, num_layers)
    found = tuple(
        layer
        for layer in range(start + 1, num_layers - 1)
        if layer % intervals[layer * len(intervals) // num_layers] == 0
    )
    if not found:
        as_layer = f" (layer {start})" if isinstance(layers.start, str) else ""
        raise PolicyMisfitError(
            f"start {layers.start}{as_layer} with interval {', '.join(map(str, intervals))} "
            f"touches none of the model's {num_layers} layers: a multiple of the interval must lie "
            "between the start and the last layer, both excluded"
        )
    return found


class _Claim(NamedTuple):
    """What a rule makes of the cells of one block, in the classes of its scope, if it is alone."""

    number: int
    rule: Rule
    layer: int
    cell: Cell


def _claims(policy: SkipPolicy, num_layers: int) -> Iterator[_Claim]:
    for index, rule in _static_rules(policy):
        try:
            for layer, cell in _cells(rule, num_layers):
                yield _Claim(index, rule, layer, cell)
        except PolicyMisfitError as error:
            raise PolicyMisfitError(f"{_describe(policy, index)}: {error}") from None


def _cells(rule: Rule, num_layers: int) -> Iterator[tuple[int, Cell]]:
    for layer in layers_of(rule.layers, num_layers):
        if rule.action is not Action.PARALLEL_BLOCKS:
            yield layer, _cell(rule)
            continue
        if layer + 1 >= num_layers:
            raise PolicyMisfitError(
                f"layer {layer} is the last of the model: there is none to pair it with"
            )
        yield layer, Cell(pair=Pair.FIRST)
        yield layer + 1, Cell(pair=Pair.SECOND)


def _cell(rule: Rule) -> Cell:
    parallel = Ffn.PARALLEL_SHARED if rule.uses_shared_norm else Ffn.PARALLEL
    match rule.action:
        case Action.SKIP_BLOCK:
            return IDLE
        case Action.SKIP_FFN:
            return Cell(ffn=Ffn.NONE)
        case Action.SKIP_ATTENTION:
            return Cell(attention=False, ffn=parallel)
        case Action.PARALLEL_FFN_ATTENTION:
            return Cell(ffn=parallel)
        case Action.PARALLEL_BLOCKS:
            raise AssertionError("a pair is two cells")


def _build_plan(policy: SkipPolicy, claims: Iterable[_Claim], num_layers: int) -> Plan:
    """Lay the rules' cells over the full table."""
    columns = [[Cell()] * num_layers for _ in TokenClass]
    claimed_by: dict[tuple[TokenClass, int], int] = {}
    for index, rule, layer, cell in claims:
        for token_class in CLASSES_OF_SCOPE[rule.scope]:
            other = claimed_by.setdefault((token_class, layer), index)
            composed = _compose(columns[token_class][layer], cell)
            if composed is None:
                raise _contradiction(policy, other, index, layer)
            columns[token_class][layer] = composed
    return Plan(columns=tuple(map(tuple, columns)))


def _compose(one: Cell, other: Cell) -> Cell | None:
    """Return what two rules make of a cell; None if they contradict each other.

    A cell that no rule has touched takes what comes. Plain skips add up. Any other cell stands with
    its equal alone, and one of a pair with no other.
    """
    if one == Cell():
        return other
    if _is_plain_skip(one) and _is_plain_skip(other):
        runs_ffn = one.ffn is other.ffn is Ffn.SERIAL
        return Cell(
            attention=one.attention and other.attention, ffn=Ffn.SERIAL if runs_ffn else Ffn.NONE
        )
    return one if one == other and one.pair is Pair.NONE else None


def _is_plain_skip(cell: Cell) -> bool:
    return cell.pair is Pair.NONE and cell.ffn in (Ffn.NONE, Ffn.SERIAL)


def _contradiction(
    policy: SkipPolicy, first: int, second: int, layer: int
) -> PolicyContradictionError:
    if first == second:
        return PolicyContradictionError(
            f"{_describe(policy, first)}: its pairs of blocks overlap at layer {layer}"
        )
    return PolicyContradictionError(
        f"{_describe(policy, first)} and {_describe(policy, second)} "
        f"contradict each other at layer {layer}"
    )


def _describe(policy: SkipPolicy, index: int) -> str:
    rule = policy.rules[index]
    if isinstance(rule, ReduceVisual | DropVisual):
        return f"rule {index} ({rule.action}, {rule.method.value})"
    return f"rule {index} ({rule.action.value}, scope {rule.scope.value})"
