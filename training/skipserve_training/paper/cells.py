"""The grid: what is measured, each cell by a name. Knows nothing of how it is done."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from skipserve_training.compression.recipe import CompressionRecipe, Group, Method, Share

SMOLVQA, PATCHES = "smolvqa", "smolvqa-patches"
DEPTH = 30  # of both
FULL, FULL_PATCHES = "full", "full-patches"

INFERENCE, LAYERS, VISUAL, TRAINING, LADDER = "inference", "layers", "visual", "training", "ladder"

INTERVALS = (2, 3, 4)
STARTS: tuple[int | str, ...] = (0, "25%", "50%")
QUESTIONS, MANY_QUESTIONS = 8_000, 40_000
SEEDS = (20, 21)


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


def grid() -> tuple[Cell, ...]:
    """Return all cells, the most telling first."""
    return (
        Cell(FULL, INFERENCE),
        *_training(),
        *_ladder(),
        *_inference(),
        *_layers(),
        Cell(FULL_PATCHES, VISUAL, PATCHES),
        *_visual(),
        *_longer(),
    )


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
_TWO_THIRDS = {"from": 1, "to": DEPTH - 2, "except_every": 3}


def _training() -> Iterator[Cell]:
    for seed in SEEDS:
        yield _trained("half-blocks", HALF_BLOCKS, seed=seed)
    for seed in SEEDS:
        yield _trained("wanda-50", None, wanda(Share(0.5)), seed)
    yield _trained("two-thirds-blocks", rules(Form.BLOCK, _TWO_THIRDS))
    yield _trained("half-ffn", rules(Form.FFN, every(2)))
    yield _trained("half-attention", rules(Form.ATTENTION, every(2)))
    whole = {"from": 0, "to": DEPTH - 1}
    yield _trained("parallel-all", rules(Form.PARALLEL, whole))
    yield _trained("parallel-own-norm-all", rules(Form.PARALLEL_OWN_NORM, whole))
    yield _trained("random-50", None, CompressionRecipe(Method.RANDOM, Share(0.5)))
    yield _trained("magnitude-50", None, CompressionRecipe(Method.MAGNITUDE, Share(0.5)))
    yield _trained("wanda-2-4", None, wanda(Group(2, 4)))
    yield _trained("wanda-70", None, wanda(Share(0.7)))
    yield _trained("alpha-subnet-50", None, CompressionRecipe(Method.ALPHA_SUBNET, Share(0.5)))
    yield _trained("dense", None)
    yield _trained("random-70", None, CompressionRecipe(Method.RANDOM, Share(0.7)))
    yield _trained("magnitude-70", None, CompressionRecipe(Method.MAGNITUDE, Share(0.7)))


def wanda(pattern: Share | Group) -> CompressionRecipe:
    """Return Wanda's recipe."""
    return CompressionRecipe(Method.WANDA, pattern)


def _trained(
    name: str,
    policy: Rules | None,
    compression: CompressionRecipe | None = None,
    seed: int = SEEDS[0],
) -> Cell:
    training = Training(QUESTIONS, seed)
    return Cell(f"training-{name}-seed-{seed}", TRAINING, SMOLVQA, policy, compression, training)


def _ladder() -> Iterator[Cell]:
    """Cut the model behind a layer; all thirty layers are `full` and `training-dense`."""
    for depth in (20, 10):
        policy = rules(Form.BLOCK, {"from": depth, "to": DEPTH - 1})
        training = Training(QUESTIONS, SEEDS[0])
        yield Cell(f"ladder-{depth}", LADDER, SMOLVQA, policy, None, training)


def _inference() -> Iterator[Cell]:
    for scope in ("all", "generated"):
        yield from _by_rule(INFERENCE, SMOLVQA, scope)


def _layers() -> Iterator[Cell]:
    for form in SKIPS:
        for layer in range(DEPTH):
            name = f"layer-{form}-{layer:02d}"
            yield Cell(name, LAYERS, SMOLVQA, rules(form, [layer]))


def _visual() -> Iterator[Cell]:
    for cut in ("25%", "50%", "75%"):
        policy = rules(Form.BLOCK, {"from": cut, "to": "100%"}, "visual")
        yield Cell(f"visual-freeze-from-{_word(cut)}", VISUAL, PATCHES, policy)
    yield from _by_rule(VISUAL, PATCHES, "visual")


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


def _longer() -> Iterator[Cell]:
    """Train five times as long: what the time of the others is too short to show."""
    training = Training(MANY_QUESTIONS, SEEDS[0])
    for name, policy, compression in (
        ("half-blocks", HALF_BLOCKS, None),
        ("wanda-70", None, wanda(Share(0.7))),
        ("dense", None, None),
    ):
        yield Cell(f"longer-{name}", TRAINING, SMOLVQA, policy, compression, training, True)
