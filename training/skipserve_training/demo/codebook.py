"""The language between eye and model: what a visual token says, as fixed random vectors."""

import torch
from torch import Tensor

from skipserve_client.evaluate.scenes import COLOURS, SHAPES, SIZES, Scene

_OFFSETS = 2


class Codebook:
    """Writes, per patch, its place and the object whose centre lies in it."""

    def __init__(self, hidden: int, patch: int, per_side: int, seed: int) -> None:
        self.patch = patch
        self.per_side = per_side
        entries = 1 + len(SHAPES) + len(COLOURS) + len(SIZES) + _OFFSETS + 2 * per_side
        generator = torch.Generator().manual_seed(seed)
        square = torch.randn(hidden, hidden, generator=generator)
        vectors = torch.linalg.qr(square).Q[:entries]
        sizes = (1, len(SHAPES), len(COLOURS), len(SIZES), _OFFSETS, per_side, per_side)
        parts = vectors.split(sizes)
        self.presence, self.shapes, self.colours, self.sizes, self.offsets = parts[:5]
        rows, columns = parts[5:]
        self.places = (rows[:, None] + columns[None]).flatten(0, 1)  # [P, D]

    def targets(self, scenes: list[Scene]) -> tuple[Tensor, Tensor]:
        """Return the visual tokens `[B, P, D]` and which of them hold an object `[B, P]`."""
        tokens = self.places.repeat(len(scenes), 1, 1)
        occupied = torch.zeros(tokens.shape[:2], dtype=torch.bool)
        where: list[tuple[int, int]] = []
        what: list[tuple[int, int, int]] = []
        offsets: list[tuple[float, float]] = []
        for number, scene in enumerate(scenes):
            for item in scene.objects:
                column, dx = self._cell(item.x)
                row, dy = self._cell(item.y)
                where.append((number, row * self.per_side + column))
                what.append(
                    (SHAPES.index(item.shape), COLOURS.index(item.colour), SIZES.index(item.size))
                )
                offsets.append((dx, dy))
        batch, place = torch.tensor(where).T
        shape, colour, size = torch.tensor(what).T
        said = self.presence + self.shapes[shape] + self.colours[colour] + self.sizes[size]
        said = said + torch.tensor(offsets) @ self.offsets
        tokens.index_put_((batch, place), said, accumulate=True)
        occupied[batch, place] = True
        return tokens, occupied

    def _cell(self, position: float) -> tuple[int, float]:
        """Return the cell on one axis and where in it, from -1 to 1."""
        cell = min(int(position / self.patch), self.per_side - 1)
        return cell, 2 * (position / self.patch - cell) - 1
