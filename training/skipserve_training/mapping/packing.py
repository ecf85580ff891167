"""Packs the questions of one picture into one sequence, as a tree of rows.

Each row sees its ancestors and itself, nothing else:

    picture x P - Question - : - is - there - a - red  - ? - Answer - : - yes
                                                - blue - ? - Answer - : - no
                              - what - ...

So questions share the picture's rows and the words with which they begin alike, and do not see
each other. The loss and its gradients are those of one sequence a question.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from skipserve_policies.plan import TokenClass

PICTURE = -1  # the id of a row that the projector fills


@dataclass(frozen=True)
class Example:
    """One question with its answer, as ids: `PICTURE` where the projector's rows come."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]  # with its end
    kind: int  # an index of the question's type


@dataclass(frozen=True)
class Target:
    """A token that a row is to predict."""

    row: int
    token: int
    example: int


@dataclass
class Tree:
    """The rows of one picture's questions; a row's parent comes before it."""

    ids: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)  # -1 for the first row
    classes: list[TokenClass] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    _rows: dict[tuple[int, int, TokenClass], int] = field(default_factory=dict)

    def add(self, example: Example, number: int) -> None:
        """Add an example; the end of the answer is predicted and needs no row."""
        row = -1
        *before, last = example.prompt
        for token in before:
            token_class = TokenClass.VISUAL if token == PICTURE else TokenClass.TEXT
            row = self._child(row, token, token_class)
        row = self._child(row, last, TokenClass.LAST)
        for step, token in enumerate(example.answer, start=1):
            self.targets.append(Target(row, token, number))
            if step < len(example.answer):
                row = self._child(row, token, TokenClass.GENERATED)

    def _child(self, parent: int, token: int, token_class: TokenClass) -> int:
        key = (parent, token, token_class)
        if key not in self._rows:
            self._rows[key] = len(self.ids)
            self.ids.append(token)
            self.parents.append(parent)
            self.classes.append(token_class)
        return self._rows[key]


@dataclass(frozen=True)
class Batch:
    """Trees of B pictures padded to T rows, with N targets of M examples."""

    ids: Tensor  # [B, T]; `PICTURE` where the projector's rows come
    positions: Tensor  # [B, T]
    allowed: Tensor  # [B, T, T], boolean
    classes: Tensor  # [B, T], TokenClass; padding is text
    rows: Tensor  # [N], into the flattened B x T
    targets: Tensor  # [N]
    examples: Tensor  # [N], from 0 to M - 1
    kinds: Tensor  # [M]

    def to(self, device: torch.device) -> "Batch":
        """Copy all tensors to a device."""
        return Batch(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def pack(pictures: Sequence[Iterable[Example]]) -> Batch:
    """Pack one tree a picture."""
    trees = []
    kinds: list[int] = []
    for examples in pictures:
        tree = Tree()
        for example in examples:
            tree.add(example, len(kinds))
            kinds.append(example.kind)
        trees.append(tree)
    rows = max(len(tree.ids) for tree in trees)
    placed = [
        (number * rows + target.row, target.token, target.example)
        for number, tree in enumerate(trees)
        for target in tree.targets
    ]
    targets = torch.tensor(placed).view(-1, 3)
    return Batch(
        ids=torch.tensor([tree.ids + [0] * (rows - len(tree.ids)) for tree in trees]),
        positions=torch.stack([_positions(tree, rows) for tree in trees]),
        allowed=torch.stack([_allowed(tree, rows) for tree in trees]),
        classes=torch.tensor(
            [[*tree.classes, *[TokenClass.TEXT] * (rows - len(tree.classes))] for tree in trees]
        ),
        rows=targets[:, 0],
        targets=targets[:, 1],
        examples=targets[:, 2],
        kinds=torch.tensor(kinds),
    )


def _positions(tree: Tree, rows: int) -> Tensor:
    positions = np.zeros(rows, dtype=np.int64)
    for row, parent in enumerate(tree.parents):
        positions[row] = positions[parent] + 1 if parent >= 0 else 0
    return torch.from_numpy(positions)


def _allowed(tree: Tree, rows: int) -> Tensor:
    allowed = np.eye(rows, dtype=bool)  # padding sees itself, so that its softmax is one
    for row, parent in enumerate(tree.parents):
        if parent >= 0:
            allowed[row] |= allowed[parent]
    return torch.from_numpy(allowed)
