"""The plans that requests bring, each resolved once: its work as bits, its digests, its place."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skipserve.errors import InvalidRequestError
from skipserve.model.work import Index, Pattern, Work
from skipserve_policies.plan import Cell, Ffn, Pair, Plan, TokenClass

NUM_CLASSES = len(TokenClass)

# Plans that are remembered, whether some sequence has them or not.
MAX_PLANS = 256

# Mixes of columns that are remembered; steady traffic has a few.
_MAX_PATTERNS = 256

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


class UnknownPlanError(Exception):
    """A plan is named by its key, and the table is not here."""


@dataclass(frozen=True, eq=False)
class PlanEntry:
    """A plan with what follows from it.

    Attributes:
        plan: the table.
        index: its place: class c of it is column 4 index + c.
        kv_digests: what a row's stored keys and values depend on, by class, 32 bytes each.
    """

    plan: Plan
    index: int
    kv_digests: tuple[bytes, ...]


class PlanTable:
    """The plans at hand by their keys, and their columns: plan p's class c is column 4 p + c.

    A plan that no sequence has stays until the table is full: it may well come back, and then its
    key is enough. Plans in use are never given up.
    """

    def __init__(self, num_layers: int, max_plans: int = MAX_PLANS) -> None:
        self._work = np.zeros((0, num_layers), dtype=np.uint8)
        self._max_plans = max_plans
        # The one that was asked for last comes last.
        self._entries: dict[bytes, PlanEntry] = {}
        self._num_users: list[int] = []
        self._patterns: dict[bytes, Pattern] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def num_layers(self) -> int:
        """Of the model."""
        return self._work.shape[1]

    @property
    def num_plans(self) -> int:
        """Plans that some sequence has."""
        return sum(map(bool, self._num_users))

    def acquire(self, plan: Plan | bytes) -> PlanEntry:
        """Return the entry of a plan for one more sequence.

        Args:
            plan: the table, or the key of one that may be here.

        Raises:
            UnknownPlanError: it is a key, and the table is not here.
            InvalidRequestError: another table has the same key.
        """
        key = plan if isinstance(plan, bytes) else plan.key
        entry = self._entries.pop(key, None)
        if entry is None:
            if isinstance(plan, bytes):
                raise UnknownPlanError(key.hex())
            entry = self._insert(plan)
        self._entries[key] = entry
        if isinstance(plan, Plan) and entry.plan is not plan and entry.plan != plan:
            raise InvalidRequestError(f"another skip policy has the key {key.hex()}")
        self._num_users[entry.index] += 1
        return entry

    def release(self, entry: PlanEntry) -> None:
        """Give an entry back; another plan may get its place once no sequence has it."""
        self._num_users[entry.index] -= 1

    def pattern(self, columns: Index) -> Pattern:
        """Return who does what in a forward, given the column of each of its rows, [T]."""
        occurs = np.zeros(len(self._work), dtype=np.bool_)
        occurs[columns] = True
        # Without the columns behind the last that occurs: a plan that is added changes nothing.
        key = occurs.tobytes().rstrip(b"\0")
        if key not in self._patterns:
            if len(self._patterns) == _MAX_PATTERNS:
                self._patterns.clear()
            self._patterns[key] = Pattern.find(self._work, occurs)
        return self._patterns[key]

    def work(self, columns: Index) -> NDArray[np.uint8]:
        """Return the Work of rows by layer, given the column of each, [L, T]."""
        return self._work[columns].T

    def _insert(self, plan: Plan) -> PlanEntry:
        digests = tuple(bytes.fromhex(plan.kv_digest(c)) for c in TokenClass)
        return PlanEntry(plan, self._place(plan_work(plan)), digests)

    def _place(self, work: NDArray[np.uint8]) -> int:
        """Store a plan's columns at the end, or in place of the plan that is idle for longest."""
        idle = next(
            (key for key, it in self._entries.items() if not self._num_users[it.index]), None
        )
        if len(self._entries) < self._max_plans or idle is None:
            self._work = np.concatenate([self._work, work])
            self._num_users.append(0)
            return len(self._num_users) - 1
        index = self._entries.pop(idle).index
        columns = slice(index * NUM_CLASSES, (index + 1) * NUM_CLASSES)
        self._work[columns] = work
        self._patterns = {key: it for key, it in self._patterns.items() if not any(key[columns])}
        return index
