"""A plan: the table over layers and token classes of what is computed. Knows no policy's name."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from functools import cached_property
from typing import Self


class TokenClass(IntEnum):
    """What a position is; it keeps its class for the life of the request.

    LAST is the last row of the prompt, whatever it shows: it emits the first answer token.
    """

    TEXT = 0
    VISUAL = 1
    LAST = 2
    GENERATED = 3


# Text and visual rows can follow each other, for there may be several images.
CAN_FOLLOW: dict[TokenClass, tuple[TokenClass, ...]] = {
    TokenClass.TEXT: tuple(TokenClass),
    TokenClass.VISUAL: tuple(TokenClass),
    TokenClass.LAST: (TokenClass.LAST, TokenClass.GENERATED),
    TokenClass.GENERATED: (TokenClass.GENERATED,),
}

# The rows whose final hidden state gives a token.
ANSWER_CLASSES = frozenset({TokenClass.LAST, TokenClass.GENERATED})


class Ffn(StrEnum):
    """Whether a row runs the FFN, and what it is fed.

    SERIAL: the sum of the block's input and the attention. PARALLEL: the block's input through the
    FFN's own norm. PARALLEL_SHARED: the block's input through the attention's norm, in OPT's blocks
    through both.
    """

    NONE = "none"
    SERIAL = "serial"
    PARALLEL = "parallel"
    PARALLEL_SHARED = "parallel_shared"


class Pair(StrEnum):
    """The place of a block in a pair of blocks that run side by side, or NONE."""

    NONE = "none"
    FIRST = "first"
    SECOND = "second"


@dataclass(frozen=True, slots=True)
class Cell:
    """What the rows of one class do in one block, their K/V projection aside.

    Without attention `parallel` is `serial`, so it is stored as that.
    """

    attention: bool = True
    ffn: Ffn = Ffn.SERIAL
    pair: Pair = Pair.NONE

    def __post_init__(self) -> None:
        """Store the one canonical form of cells that compute the same."""
        if not self.attention and self.ffn is Ffn.PARALLEL:
            object.__setattr__(self, "ffn", Ffn.SERIAL)

    @property
    def is_idle(self) -> bool:
        """Whether a row passes the block unchanged."""
        return not self.attention and self.ffn is Ffn.NONE


def kv_classes(attending: Iterable[TokenClass]) -> frozenset[TokenClass]:
    """Return the classes whose keys and values are seen, given those that run attention."""
    seen_by = frozenset(attending)
    return frozenset(c for c in TokenClass if not seen_by.isdisjoint(CAN_FOLLOW[c]))


IDLE = Cell(attention=False, ffn=Ffn.NONE)

Column = tuple[Cell, ...]


@dataclass(frozen=True)
class Sublayers:
    """In how many layers a row of one class runs attention, projects K/V and runs the FFN."""

    attention: int
    kv: int
    ffn: int


@dataclass(frozen=True)
class Plan:
    """The table: one column of cells a token class, one cell a layer.

    Attributes:
        columns: indexed by TokenClass, then by layer.
    """

    columns: tuple[Column, ...]

    @classmethod
    def full(cls, num_layers: int) -> Self:
        """Return the plan in which every class runs every block."""
        return cls(columns=((Cell(),) * num_layers,) * len(TokenClass))

    @property
    def num_layers(self) -> int:
        """The depth that the plan is for."""
        return len(self.columns[0])

    def cell(self, layer: int, token_class: TokenClass) -> Cell:
        """Return what rows of a class do in a block."""
        return self.columns[token_class][layer]

    @cached_property
    def kv(self) -> tuple[tuple[bool, ...], ...]:
        """Which classes project keys and values: indexed by TokenClass, then by layer.

        A class does where it, or any class that can come after it, runs attention.
        """
        stored = [
            kv_classes(c for c in TokenClass if self.cell(layer, c).attention)
            for layer in range(self.num_layers)
        ]
        return tuple(tuple(c in classes for classes in stored) for c in TokenClass)

    @property
    def sublayers(self) -> tuple[Sublayers, ...]:
        """What one row of each class runs, over all layers: indexed by TokenClass."""
        return self.sublayers_in(0, self.num_layers)

    def sublayers_in(self, start: int, stop: int) -> tuple[Sublayers, ...]:
        """Return what one row of each class runs in some layers: indexed by TokenClass."""
        known = self._sublayers.get((start, stop))
        if known is None:
            known = self._sublayers[start, stop] = tuple(
                Sublayers(
                    attention=sum(cell.attention for cell in column[start:stop]),
                    kv=sum(kv_column[start:stop]),
                    ffn=sum(cell.ffn is not Ffn.NONE for cell in column[start:stop]),
                )
                for column, kv_column in zip(self.columns, self.kv, strict=True)
            )
        return known

    @cached_property
    def digest(self) -> str:
        """A stable name of the whole table: equal iff the tables are equal."""
        return _digest(self.column_digest(token_class) for token_class in TokenClass)

    @cached_property
    def key(self) -> bytes:
        """The full sha256 of the table, 32 bytes: programs know it by this, people by `digest`."""
        columns = zip(self.columns, self.kv, strict=True)
        return bytes.fromhex(_full_digest(";".join(map(_spell, *column)) for column in columns))

    def column_digest(self, token_class: TokenClass) -> str:
        """Return a stable name of what rows of one class compute, K/V included."""
        return self._column_digests[token_class]

    def kv_digest(self, token_class: TokenClass) -> str:
        """Return a stable name of all that a row's stored K/V depend on besides earlier rows.

        Equal iff rows are computed alike up to their last K/V projection and store K/V at the same
        layers, whatever their classes are called. Not shortened like the others: whoever chooses
        plans could look for two that collide.
        """
        return self._kv_digests[token_class]

    @cached_property
    def _sublayers(self) -> dict[tuple[int, int], tuple[Sublayers, ...]]:
        """What was counted of some layers: each step of an engine asks for the same."""
        return {}

    @cached_property
    def _column_digests(self) -> tuple[str, ...]:
        return tuple(
            _digest(map(_spell, column, kv_column))
            for column, kv_column in zip(self.columns, self.kv, strict=True)
        )

    @cached_property
    def _kv_digests(self) -> tuple[str, ...]:
        return tuple(
            _full_digest(map(_spell, _before_last_kv(column, kv_column), kv_column))
            for column, kv_column in zip(self.columns, self.kv, strict=True)
        )


def _spell(cell: Cell, stores_kv: bool) -> str:
    return f"{cell.attention:d},{cell.ffn},{cell.pair},{stores_kv:d}"


def _before_last_kv(column: Column, kv_column: tuple[bool, ...]) -> Column:
    """Return what is done up to the layer of the last K/V projection, without what follows it.

    The second of a pair projects from the input of both, so with it the first leaves no trace but
    its own projection.
    """
    if not any(kv_column):
        return ()
    last = max(layer for layer, stores_kv in enumerate(kv_column) if stores_kv)
    num_done = last - 1 if column[last].pair is Pair.SECOND else last
    return (*column[:num_done], *(IDLE,) * (last + 1 - num_done))


def _digest(parts: Iterable[str]) -> str:
    return _full_digest(parts)[:16]


def _full_digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def trim(
    plan: Plan,
    visual_stop: int | None = None,
    wanted: frozenset[TokenClass] = ANSWER_CLASSES,
) -> Plan:
    """Leave out what no wanted logit and no later K/V needs: a liveness pass from the top.

    The wanted logits stay exactly the same. A class keeps a cell only if its state after that cell
    is needed, which for the first of a pair is the state after the second; its state before a layer
    is needed if it is needed after it or if the class still projects K/V there.

    Args:
        plan: the table as rules say it.
        visual_stop: all visual rows leave before this layer: nothing of them is needed there, and
            their logits cannot be wanted. None where they stay.
        wanted: the classes whose logits are.
    """
    table = [list(column) for column in plan.columns]
    needed_after = needed_after_next = wanted
    for layer in reversed(range(plan.num_layers)):
        for token_class in TokenClass:
            is_first = table[token_class][layer].pair is Pair.FIRST
            if token_class not in (needed_after_next if is_first else needed_after):
                table[token_class][layer] = IDLE
        stored = kv_classes(c for c in TokenClass if table[c][layer].attention)
        if visual_stop is not None and layer >= visual_stop:
            stored -= {TokenClass.VISUAL}
        needed_after, needed_after_next = needed_after | stored, needed_after
    return Plan(columns=tuple(tuple(column) for column in table))
