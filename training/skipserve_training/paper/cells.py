"""The grid: what is measured, each cell by a name. Knows nothing of how it is done."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from skipserve_policies.resolve import PolicyMisfitError, resolve
from skipserve_policies.schema import SkipPolicy
from skipserve_training.compression.recipe import CompressionRecipe, Group, Method, Share
from skipserve_training.paper.setup import PATCHES, SHIPPED, SMOLVQA, Setup

FULL, FULL_PATCHES = "full", "full-patches"

INFERENCE, LAYERS, VISUAL, TRAINING, LADDER = "inference", "layers", "visual", "training", "ladder"

INTERVALS = (2, 3, 4)
STARTS: tuple[int | str, ...] = (0, "25%", "50%")
SEEDS = (20, 21)
_LONGER = 5  # times the questions


class Form(StrEnum):
    """What is done to a block, as names and the page call it.

    PARALLEL: FFN beside attention, through attention's norm, as the paper's code runs it.
    PARALLEL_OWN_NORM: the FFN through its own. PAIRS: two blocks beside each other.
    """

    BLOCK = "block"
    FFN = "ffn"
    ATTENTION = "attention"
    PARALLEL = "parallel"
    PARALLEL_OWN_NORM = "parallel-own-norm"
    PAIRS = "pairs"

    @property
    def fields(self) -> dict[str, Any]:
        """Return what a rule says of it."""
        return _FIELDS[self]


_FIELDS: dict[Form, dict[str, Any]] = {
    Form.BLOCK: {"action": "skip_block"},
    Form.FFN: {"action": "skip_ffn"},
    Form.ATTENTION: {"action": "skip_attention"},
    Form.PARALLEL: {"action": "parallel_ffn_attention"},
    Form.PARALLEL_OWN_NORM: {"action": "parallel_ffn_attention", "shared_norm": False},
    Form.PAIRS: {"action": "parallel_blocks"},
}

SKIPS = (Form.BLOCK, Form.FFN, Form.ATTENTION)

Rules = Mapping[str, Any]


@dataclass(frozen=True)
class Training:
    """The module is trained on with so many questions, drawn by a seed."""

    questions: int
    seed: int


@dataclass(frozen=True)
class Cell:
    """One measurement, or one before and one after a training.

    Attributes:
        name: of the cell and of its record's file.
        group: which table it is of.
        model: a name that `skipserve serve` takes.
        policy: the rules that it runs under; None for the full model.
        compression: which weights are zeroed before.
        is_extra: whether it is run only on demand.
    """

    name: str
    group: str
    model: str = SMOLVQA
    policy: Rules | None = None
    compression: CompressionRecipe | None = None
    training: Training | None = None
    is_extra: bool = False

    @property
    def baseline(self) -> str:
        """Name the cell of the full model that this one is held against."""
        return FULL_PATCHES if self.model == PATCHES else FULL


def grid(setup: Setup = SHIPPED) -> tuple[Cell, ...]:
    """Return all cells that can be run, the most telling first."""
    return tuple(cell for cell in _cells(setup) if why_left_out(cell, setup) is None)


def left_out(setup: Setup) -> dict[str, list[str]]:
    """Return the names of the cells that cannot be run, by what they lack."""
    found: dict[str, list[str]] = {}
    for cell in _cells(setup):
        why = why_left_out(cell, setup)
        if why is not None:
            found.setdefault(why, []).append(cell.name)
    return found


def why_left_out(cell: Cell, setup: Setup) -> str | None:
    """Say what a cell lacks; None where nothing."""
    if cell.group == VISUAL and setup.patches is None:
        return "needs a module with a row a patch"
    if cell.compression is not None:
        is_shared = cell.compression.method is Method.ALPHA_SUBNET
        return "needs another task" if is_shared and len(setup.tasks) < 2 else None
    try:
        touched(cell.name, cell.policy, setup.depth)
    except PolicyMisfitError:
        return f"touches none of {setup.depth} blocks"
    return None


def touched(name: str, policy: Rules | None, depth: int) -> list[int]:
    """Return the blocks that a policy touches, ascending.

    Raises:
        PolicyMisfitError: The model has no such block.
    """
    resolved = resolve(name, SkipPolicy.model_validate(policy or {}), depth)
    return sorted({layer for layers in resolved.layers.values() for layer in layers})


def _cells(setup: Setup) -> Iterator[Cell]:
    yield Cell(FULL, INFERENCE, setup.model)
    yield from _training(setup)
    yield from _ladder(setup)
    yield from _inference(setup)
    yield from _layers(setup)
    yield from _visual(setup)
    yield from _longer(setup)


def chosen(cells: Sequence[Cell], pattern: str, *, has_extra: bool) -> tuple[Cell, ...]:
    """Return the cells whose name fits a pattern such as `training-*`.

    Raises:
        ValueError: None does.
    """
    fitting = [cell for cell in cells if fnmatchcase(cell.name, pattern)]
    if not fitting:
        raise ValueError(f"only is {pattern!r}: no cell is called so; --list shows all.")
    return tuple(cell for cell in fitting if has_extra or not cell.is_extra)


def rules(form: Form, layers: object, scope: str = "all") -> Rules:
    """Spell a policy of one rule as a request does."""
    return {"rules": [form.fields | {"layers": layers, "scope": scope}]}


def every(interval: int, start: int | str = 0) -> Rules:
    """Spell the paper's choice of layers."""
    return {"start": start, "interval": interval}


HALF_BLOCKS = rules(Form.BLOCK, every(2))


def _training(setup: Setup) -> Iterator[Cell]:
    last = setup.depth - 1
    whole = {"from": 0, "to": last}
    two_thirds = {"from": 1, "to": last - 1, "except_every": 3}
    policies = {
        "two-thirds-blocks": rules(Form.BLOCK, two_thirds),
        "half-ffn": rules(Form.FFN, every(2)),
        "half-attention": rules(Form.ATTENTION, every(2)),
        "parallel-all": rules(Form.PARALLEL, whole),
        "parallel-own-norm-all": rules(Form.PARALLEL_OWN_NORM, whole),
    }
    for seed in SEEDS:
        yield _trained(setup, "half-blocks", HALF_BLOCKS, seed=seed)
    for seed in SEEDS:
        yield _trained(setup, "wanda-50", None, wanda(Share(0.5)), seed)
    for name, policy in policies.items():
        yield _trained(setup, name, policy)
    for name, recipe in _COMPRESSIONS.items():
        yield _trained(setup, name, None, recipe)


def wanda(pattern: Share | Group) -> CompressionRecipe:
    """Return Wanda's recipe."""
    return CompressionRecipe(Method.WANDA, pattern)


# By the names of their cells; one of nothing is trained on as the others are.
_COMPRESSIONS: dict[str, CompressionRecipe | None] = {
    "random-50": CompressionRecipe(Method.RANDOM, Share(0.5)),
    "magnitude-50": CompressionRecipe(Method.MAGNITUDE, Share(0.5)),
    "wanda-2-4": wanda(Group(2, 4)),
    "wanda-70": wanda(Share(0.7)),
    "alpha-subnet-50": CompressionRecipe(Method.ALPHA_SUBNET, Share(0.5)),
    "dense": None,
    "random-70": CompressionRecipe(Method.RANDOM, Share(0.7)),
    "magnitude-70": CompressionRecipe(Method.MAGNITUDE, Share(0.7)),
}


def _trained(
    setup: Setup,
    name: str,
    policy: Rules | None,
    compression: CompressionRecipe | None = None,
    seed: int = SEEDS[0],
) -> Cell:
    training = Training(setup.more_questions, seed)
    cell = f"training-{name}-seed-{seed}"
    return Cell(cell, TRAINING, setup.model, policy, compression, training)


def ladder(depth: int) -> tuple[int, ...]:
    """Return the depths behind which models are cut: two thirds, and one."""
    return tuple(sorted({round(depth * share / 3) for share in (1, 2)}, reverse=True))


def _ladder(setup: Setup) -> Iterator[Cell]:
    """Cut the model behind a layer; all layers are `full` and `training-dense`."""
    for depth in ladder(setup.depth):
        policy = rules(Form.BLOCK, {"from": depth, "to": setup.depth - 1})
        training = Training(setup.more_questions, SEEDS[0])
        yield Cell(f"ladder-{depth}", LADDER, setup.model, policy, None, training)


def _inference(setup: Setup) -> Iterator[Cell]:
    for scope in ("all", "generated"):
        yield from _by_rule(INFERENCE, setup.model, scope)


def _layers(setup: Setup) -> Iterator[Cell]:
    for form in SKIPS:
        for layer in range(setup.depth):
            name = f"layer-{form}-{layer:02d}"
            yield Cell(name, LAYERS, setup.model, rules(form, [layer]))


def _visual(setup: Setup) -> Iterator[Cell]:
    model = setup.patches or setup.model
    yield Cell(FULL_PATCHES, VISUAL, model)
    for cut in ("25%", "50%", "75%"):
        policy = rules(Form.BLOCK, {"from": cut, "to": "100%"}, "visual")
        yield Cell(f"visual-freeze-from-{_word(cut)}", VISUAL, model, policy)
    yield from _by_rule(VISUAL, model, "visual")


def _by_rule(group: str, model: str, scope: str) -> Iterator[Cell]:
    for form in Form:
        for interval in INTERVALS:
            for start in STARTS:
                name = rule_name(group, form, interval, start, scope)
                yield Cell(name, group, model, rules(form, every(interval, start), scope))


def rule_name(group: str, form: Form, interval: int, start: int | str, scope: str) -> str:
    """Name the cell of a policy by the paper's rule."""
    name = f"{group}-{form}-every-{interval}-from-{_word(start)}"
    return name if group == VISUAL else f"{name}-{scope}"


def _word(position: int | str) -> str:
    return str(position).replace("%", "pc")


def _longer(setup: Setup) -> Iterator[Cell]:
    """Train five times as long: what the time of the others is too short to show."""
    training = Training(_LONGER * setup.more_questions, SEEDS[0])
    for name, policy, compression in (
        ("half-blocks", HALF_BLOCKS, None),
        ("wanda-70", None, wanda(Share(0.7))),
        ("dense", None, None),
    ):
        cell = f"longer-{name}"
        yield Cell(cell, TRAINING, setup.model, policy, compression, training, True)
