"""Which rows do what at each layer: plans as bits, and bits as row sets, on the host."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from skipserve.model.batch import Every, LayerRows, Work
from skipserve_policies.plan import Cell, Ffn, Pair, Plan, TokenClass

Index = NDArray[np.int64]

# A row set before it goes to the device: all rows, none, or the place of its index in HostRows.
HostRowSet = Every | int

NUM_CLASSES = len(TokenClass)

# Mixes of columns that are remembered; steady traffic has a few.
_MAX_PATTERNS = 256


_FIELDS = {Work[field.name.upper()]: field.name for field in fields(LayerRows)}

_WORK_OF_FFN = {
    Ffn.NONE: Work(0),
    Ffn.SERIAL: Work.FFN | Work.SERIAL,
    Ffn.PARALLEL: Work.FFN | Work.PARALLEL,
    Ffn.PARALLEL_SHARED: Work.FFN | Work.PARALLEL_SHARED,
}
_WORK_OF_PAIR = {Pair.NONE: Work(0), Pair.FIRST: Work.PAIR_FIRST, Pair.SECOND: Work.PAIR_SECOND}


def plan_work(plan: Plan) -> NDArray[np.uint8]:
    """Return a plan as bits of Work, [token classes, layers]."""
    return np.array(
        [
            [_cell_work(*cell) for cell in zip(plan.columns[c], plan.kv[c], strict=True)]
            for c in TokenClass
        ],
        dtype=np.uint8,
    )


def _cell_work(cell: Cell, stores_kv: bool) -> Work:
    work = _WORK_OF_FFN[cell.ffn] | _WORK_OF_PAIR[cell.pair]
    if cell.attention:
        work |= Work.ATTENTION
    if stores_kv:
        work |= Work.KV
    return work


@dataclass(frozen=True)
class HostRows:
    """Who does what in a batch.

    Attributes:
        indexes: the distinct row sets that are neither all nor none, ascending.
        layers: the distinct layers, by the names in LayerRows.
        places: which of them each layer of the model is.
    """

    indexes: tuple[Index, ...]
    layers: tuple[dict[str, HostRowSet], ...]
    places: tuple[int, ...]


@dataclass(frozen=True)
class _Pattern:
    """The same before rows are known: a set is the columns, [C] bool, whose rows are in it."""

    sets: tuple[NDArray[np.bool_], ...]
    layers: tuple[dict[str, HostRowSet], ...]
    places: tuple[int, ...]


class PlanTable:
    """The plans of the sequences at hand, as columns: plan p's class c is column 4 p + c.

    A plan that no sequence has stays until another one needs its place: it may well come back.
    """

    def __init__(self, num_layers: int) -> None:
        self._work = np.zeros((0, num_layers), dtype=np.uint8)
        self._indexes: dict[Plan, int] = {}
        self._num_users: list[int] = []
        self._patterns: dict[bytes, _Pattern] = {}

    @property
    def num_plans(self) -> int:
        """Plans that some sequence has."""
        return sum(map(bool, self._num_users))

    def acquire(self, plan: Plan) -> int:
        """Return the index of a plan for one more sequence."""
        index = self._indexes.get(plan)
        if index is None:
            index = self._indexes[plan] = self._place(plan_work(plan))
        self._num_users[index] += 1
        return index

    def release(self, plan: Plan) -> None:
        """Give an index back; another plan may get it once no sequence has it."""
        self._num_users[self._indexes[plan]] -= 1

    def rows(self, columns: Index) -> HostRows:
        """Return who does what, given the column of each row, [T].

        With two columns of work in three layers, 3 3 7 and 3 0 7 (3 is attention and K/V, 7 the FFN
        besides), and rows of the columns 0 1 1: layer 0 has attention and K/V ALL, layer 1 has them
        at [0], layer 2 has attention, K/V and FFN ALL. All other sets are NONE.
        """
        occurs = np.zeros(len(self._work), dtype=np.bool_)
        occurs[columns] = True
        pattern = self._pattern(occurs)
        indexes = tuple(np.flatnonzero(of_columns[columns]) for of_columns in pattern.sets)
        return HostRows(indexes, pattern.layers, pattern.places)

    def work(self, columns: Index) -> NDArray[np.uint8]:
        """Return the Work of rows by layer, given the column of each, [L, T]."""
        return self._work[columns].T

    def _place(self, work: NDArray[np.uint8]) -> int:
        """Store a plan's columns in place of a plan that nobody has, or at the end."""
        idle = next((plan for plan, i in self._indexes.items() if not self._num_users[i]), None)
        if idle is None:
            self._work = np.concatenate([self._work, work])
            self._num_users.append(0)
            return len(self._num_users) - 1
        index = self._indexes.pop(idle)
        columns = slice(index * NUM_CLASSES, (index + 1) * NUM_CLASSES)
        self._work[columns] = work
        self._patterns = {key: it for key, it in self._patterns.items() if not any(key[columns])}
        return index

    def _pattern(self, occurs: NDArray[np.bool_]) -> _Pattern:
        # Without the columns behind the last that occurs: a plan that is added changes nothing.
        key = occurs.tobytes().rstrip(b"\0")
        if key not in self._patterns:
            if len(self._patterns) == _MAX_PATTERNS:
                self._patterns.clear()
            self._patterns[key] = _find_pattern(self._work, occurs)
        return self._patterns[key]


def _find_pattern(work: NDArray[np.uint8], occurs: NDArray[np.bool_]) -> _Pattern:
    """Find the distinct layers among the columns that occur, and the distinct sets in them."""
    sets: dict[bytes, int] = {}
    layers: dict[bytes, int] = {}
    found: list[dict[str, HostRowSet]] = []
    masks: list[NDArray[np.bool_]] = []
    for layer_work in np.where(occurs[:, None], work, 0).T:
        key = layer_work.tobytes()
        if key in layers:
            continue
        layers[key] = len(found)
        layer: dict[str, HostRowSet] = {}
        for bit, name in _FIELDS.items():
            mask = (layer_work & bit.value) != 0
            if not mask.any():
                layer[name] = Every.NONE
            elif (mask == occurs).all():
                layer[name] = Every.ALL
            else:
                layer[name] = sets.setdefault(mask.tobytes(), len(sets))
                if len(masks) < len(sets):
                    masks.append(mask)
        found.append(layer)
    keys = (layer_work.tobytes() for layer_work in np.where(occurs[:, None], work, 0).T)
    return _Pattern(tuple(masks), tuple(found), tuple(layers[key] for key in keys))
