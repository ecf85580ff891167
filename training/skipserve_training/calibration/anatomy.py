"""What the layers of a model do to the rows that pass, and what the last row looks at.

Shapes: L layers, T rows, D hidden.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from skipserve.model.batch import Segment
from skipserve.model.layers import BlockFunction, KVCache, Layers
from skipserve_policies.plan import TokenClass

# Classes of rows that are told apart.
VISUAL, TEXT = "visual", "text"


@dataclass(frozen=True)
class Anatomy:
    """Means over the rows of some prompts, by layer.

    Attributes:
        influence: 1 - the cosine of a block's input and its output, over all rows: the block
            influence of ShortGPT (arXiv 2403.03853).
        cosine: that cosine, for rows of images and of text apart, as arXiv 2410.09454 plots it.
        visual_mass: the share of the last row's attention, mean over heads, that goes to rows of
            images.
        visual_share: the share of the rows that are of images, for comparison.
    """

    influence: tuple[float, ...]
    cosine: dict[str, tuple[float, ...]]
    visual_mass: tuple[float, ...]
    visual_share: float


@dataclass
class Sums:
    """What watched layers have seen of the rows of one prompt or several.

    Attributes:
        classes: of the rows of the prompt that runs.
        cosines: by class, sum and number of rows by layer, [L, 2].
        mass: by layer, sum and number of prompts, [L, 2].
        num_rows: by class.
    """

    num_layers: int
    classes: Sequence[TokenClass] = ()
    cosines: dict[str, Tensor] = field(default_factory=dict)
    mass: Tensor = field(default_factory=lambda: torch.zeros(0))
    num_rows: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin at nothing."""
        self.cosines = {name: torch.zeros(self.num_layers, 2) for name in (VISUAL, TEXT)}
        self.mass = torch.zeros(self.num_layers, 2)
        self.num_rows = dict.fromkeys((VISUAL, TEXT), 0)

    def begin(self, classes: Sequence[TokenClass]) -> None:
        """Be told of the prompt whose rows come next, all of them once."""
        self.classes = classes
        num_visual = sum(token_class is TokenClass.VISUAL for token_class in classes)
        self.num_rows[VISUAL] += num_visual
        self.num_rows[TEXT] += len(classes) - num_visual

    def add_rows(self, layer: int, positions: Tensor, before: Tensor, after: Tensor) -> None:
        """Take what a layer did to rows at some positions; [T, D] each."""
        cosine = F.cosine_similarity(before.float(), after.float(), dim=-1)
        is_visual = self._is_visual(positions)
        for name, chosen in ((VISUAL, cosine[is_visual]), (TEXT, cosine[~is_visual])):
            self.cosines[name][layer] += torch.tensor([float(chosen.sum()), len(chosen)])

    def add_mass(self, layer: int, attention: Tensor) -> None:
        """Take what the last row attends to, [positions]."""
        positions = torch.arange(len(attention))
        share = attention.cpu()[self._is_visual(positions)].sum()
        self.mass[layer] += torch.tensor([float(share), 1.0])

    def result(self) -> Anatomy:
        """Return the means."""
        together = sum(self.cosines.values())
        assert isinstance(together, Tensor)
        return Anatomy(
            influence=tuple((1 - _means(together)).tolist()),
            cosine={
                name: tuple(_means(found).tolist())
                for name, found in self.cosines.items()
                if self.num_rows[name]
            },
            visual_mass=tuple(_means(self.mass).tolist()),
            visual_share=self.num_rows[VISUAL] / sum(self.num_rows.values()),
        )

    def _is_visual(self, positions: Tensor) -> Tensor:
        return torch.tensor([self.classes[it] is TokenClass.VISUAL for it in positions.tolist()])


def _means(sums: Tensor) -> Tensor:
    return sums[:, 0] / sums[:, 1]


class WatchedLayers:
    """Layers that tell of the rows of the full model that pass, as long as somebody listens.

    One prompt runs at a time then, alone, and nothing of it is at hand.
    """

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        self.sums: Sums | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layers, name)

    def start(self, segment: Segment, cache: KVCache) -> BlockFunction:
        """Return what runs the blocks."""
        run = self._layers.start(segment, cache)
        return run if self.sums is None else self._watching(run, segment, cache, self.sums)

    def _watching(
        self, run: BlockFunction, segment: Segment, cache: KVCache, sums: Sums
    ) -> Callable[[int, Tensor], Tensor]:
        def watch(layer: int, hidden: Tensor) -> Tensor:
            # A copy, for a block may write into its input.
            before = hidden.clone()
            after = run(layer, hidden)
            positions = segment.kv_group(layer).positions
            rows = positions < len(sums.classes)
            sums.add_rows(layer, positions[rows], before[rows], after[rows])
            if int(positions[-1]) == len(sums.classes) - 1:
                sums.add_mass(layer, self._attention(layer, before, segment, cache))
            return after

        return watch

    def _attention(self, layer: int, before: Tensor, segment: Segment, cache: KVCache) -> Tensor:
        """Return what the last row attends to in a layer that has just run, [positions]."""
        group = segment.kv_group(layer)
        places = torch.arange(int(group.positions[-1]) + 1, device=before.device)
        pages = group.tables.device[0][places // cache.page_size]
        slots = pages * cache.page_size + places % cache.page_size
        return self._layers.attention_to_rows(
            layer, cache, before[-1:], group.positions[-1:], slots
        )
