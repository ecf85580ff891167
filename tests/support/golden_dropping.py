"""The models of known answers to requests from which visual rows drop, and what they keep."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_drops import GOLDEN, MERGED, Golden
from golden_engine import Asker, make_engine
from golden_llava import PROMPTS, SEEDS, SIZES, make_golden_checkpoint, make_golden_pixels

from skipserve.engine.drops import Drops
from skipserve.engine.engine import Engine
from skipserve.engine.request import Request
from skipserve.model.llava import Llava


class Loaded:
    """A model of known answers, and the rows that it sees of its picture."""

    def __init__(self, name: str, model: Llava) -> None:
        self.name = name
        self.model = model
        self.asker = Asker(SIZES[name])
        (self.rows,) = model.encode_images(make_golden_pixels(SIZES[name], SEEDS[name][1]))

    def engine(self, **limits: object) -> Engine:
        """Return an engine of it."""
        return make_engine(self.model, self.rows, **limits)

    def request(self, golden: Golden) -> Request:
        """Return the request that a known answer is to."""
        before, after = PROMPTS[golden.prompt]
        return self.asker.ask(golden.name, before, after, narrowing=golden.narrowing)

    @property
    def golden(self) -> list[Golden]:
        """Its known answers."""
        return [golden for golden in GOLDEN if golden.model == self.name]


def load_golden(
    name: str, folder: Path, device: str | torch.device = "cpu", *, uses_triton: bool = False
) -> Loaded:
    """Return a model of known answers, its checkpoint made in a folder."""
    checkpoint = make_golden_checkpoint(folder, SIZES[name], SEEDS[name][0])
    model = Llava.load(checkpoint, torch.device(device), torch.float32, uses_triton=uses_triton)
    return Loaded(name, model)


def note_kept(patch: pytest.MonkeyPatch) -> list[list[tuple[int, ...]]]:
    """Note the visual rows that are settled on, by sequence, stage by stage."""
    noted: list[list[tuple[int, ...]]] = []
    keep, settle = Drops.keep, Drops.settle

    def noting(drops: Drops, visual: list[np.ndarray]) -> None:
        noted.append([tuple(rows.tolist()) for rows in visual])
        keep(drops, visual)

    def noting_merged(drops: Drops, chosen: list[np.ndarray]) -> None:
        settle(drops, chosen)
        if drops.narrowing.merges:
            noted.append(list(_after(chosen, drops.visual)))

    patch.setattr(Drops, "keep", noting)
    patch.setattr(Drops, "settle", noting_merged)
    return noted


def _after(fates: list[np.ndarray], rows: np.ndarray) -> Iterator[tuple[int, ...]]:
    """Yield which visual rows go on from each stage."""
    for fate in fates:
        rows = np.concatenate([rows[fate == 0], np.full(fate.max(), MERGED)])
        yield tuple(rows.tolist())
