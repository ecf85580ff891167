"""What is searched over: tables made of single layers' skips, beside a dropper or none."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from skipserve_policies.resolve import PolicyError, ResolvedPolicy, resolve_for
from skipserve_policies.schema import Action, Scope, SkipPolicy
from skipserve_policies.sizes import ModelSizes

# What can be left out of a layer: a block is both of the others.
ACTIONS = (Action.SKIP_ATTENTION, Action.SKIP_FFN, Action.SKIP_BLOCK)
SCOPES = (Scope.ALL, Scope.VISUAL, Scope.ANSWER)

# Rules on rows of images that a search may begin with, by the name that reports call them.
DROPPERS: Mapping[str, Mapping[str, Any]] = {
    **{
        f"{method}-{keep.replace('/', 'of')}": {
            "action": "reduce_visual", "method": method, "keep": keep,
        }
        for method in ("visionzip", "divprune", "downsample")
        for keep in ("1/2", "1/4", "1/9")
    },
    **{
        f"{method}-{before.removesuffix('%')}-{keep.replace('/', 'of')}": {
            "action": "drop_visual", "method": method, "before": before, "keep": keep,
        }
        for method in ("fastv", "dart")
        for before in ("6.25%", "25%")
        for keep in ("1/2", "1/4")
    },
    **{
        f"vtw-{before.removesuffix('%')}": {
            "action": "drop_visual", "method": "vtw", "before": before,
        }
        for before in ("25%", "50%", "75%")
    },
    "pyramiddrop": {"action": "drop_visual", "method": "pyramiddrop"},
    "sparsevlm": {"action": "drop_visual", "method": "sparsevlm"},
}  # fmt: skip


@dataclass(frozen=True, order=True)
class Element:
    """One sublayer, or block, that rows of a scope skip."""

    layer: int
    action: Action
    scope: Scope

    def __str__(self) -> str:
        """Return it as reports call it."""
        return f"{self.action.removeprefix('skip_')} {self.layer}, {self.scope}"


@dataclass(frozen=True)
class Table:
    """A candidate: elements, and what is done to rows of images beside them.

    Attributes:
        elements: in no order.
        dropper: a name of `DROPPERS`; None for none.
    """

    elements: frozenset[Element] = field(default_factory=frozenset)
    dropper: str | None = None

    def __or__(self, elements: Iterable[Element]) -> "Table":
        return Table(self.elements | frozenset(elements), self.dropper)

    def __sub__(self, elements: Iterable[Element]) -> "Table":
        return Table(self.elements - frozenset(elements), self.dropper)

    @property
    def rules(self) -> list[dict[str, Any]]:
        """The rules of the policy, as a file spells them: the same for equal tables."""
        layers: dict[tuple[Scope, Action], list[int]] = {}
        for element in sorted(self.elements):
            layers.setdefault((element.scope, element.action), []).append(element.layer)
        dropper = [] if self.dropper is None else [dict(DROPPERS[self.dropper])]
        return dropper + [
            {"action": action.value, "layers": found, "scope": scope.value}
            for (scope, action), found in sorted(layers.items())
        ]

    def resolve(self, sizes: ModelSizes, name: str = "candidate") -> ResolvedPolicy:
        """Return the policy for a model.

        Raises:
            PolicyError: the model cannot run it.
        """
        policy = SkipPolicy.model_validate(
            {"num_layers": sizes.decoder.num_layers, "rules": self.rules}
        )
        return resolve_for(name, policy, sizes)


FULL = Table()


def elements_of(num_layers: int) -> Iterator[Element]:
    """Yield all elements of a model of so many layers."""
    for scope in SCOPES:
        for action in ACTIONS:
            for layer in range(num_layers):
                yield Element(layer, action, scope)


def droppers_for(sizes: ModelSizes) -> list[str]:
    """Return the droppers that a model can run."""
    return [name for name in DROPPERS if can_run(Table(dropper=name), sizes)]


def can_run(table: Table, sizes: ModelSizes) -> bool:
    """Return whether a model can run a table."""
    try:
        table.resolve(sizes)
    except PolicyError:
        return False
    return True
