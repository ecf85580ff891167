"""The blocks of a decoder in torch's own operations."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from skipserve.model.batch import Segment
from skipserve.model.config import ModelConfig
from skipserve.model.layers import BlockFunction, KVCache
from skipserve.model.narrowing.rank import attention_to_rows
from skipserve.model.plain import llama, opt
from skipserve.model.plain.attention import Factors
from skipserve.model.plain.block import DecoderBlock
from skipserve.model.plain.norm import Norm
from skipserve.model.plain.rows import prepare_rows
from skipserve.model.weights import Weights
from skipserve.model.work import RowWork
from skipserve_kernels.key_values import KeyValues
from skipserve_kernels.plain.attention.op import cache_dtype, new_cache
from skipserve_policies.sizes import DecoderSizes


@dataclass(frozen=True)
class PlainLayers:
    """All blocks, and what they share.

    Attributes:
        norm: the last normalisation.
        factors: rotary factors of all positions, [P, 2, 1, C], in the type of the cache; None
            where heads are not turned.
        cache_dtype: the type in which keys and values are kept.
        device: where they are.
        sizes: of the decoder.
    """

    blocks: tuple[DecoderBlock, ...]
    norm: Norm
    factors: Tensor | None
    cache_dtype: torch.dtype
    device: torch.device
    sizes: DecoderSizes

    @classmethod
    def load(cls, config: ModelConfig, weights: Weights) -> Self:
        """Read and pack the blocks."""
        sizes, form = config.sizes.decoder, config.opt
        kept = cache_dtype(weights.dtype, weights.device)
        layers = range(sizes.num_layers)
        if form is None:
            return cls(
                blocks=tuple(llama.load_block(config, weights, layer) for layer in layers),
                norm=llama.load_last_norm(config, weights),
                factors=llama.rotary_factors(config, kept).to(weights.device),
                cache_dtype=kept,
                device=weights.device,
                sizes=sizes,
            )
        return cls(
            blocks=tuple(opt.load_block(form, sizes, weights, layer) for layer in layers),
            norm=opt.load_last_norm(form, sizes, weights),
            factors=None,
            cache_dtype=kept,
            device=weights.device,
            sizes=sizes,
        )

    def new_cache(self, num_slots: int) -> tuple[KeyValues, ...]:
        """Return room for the keys and values of so many positions, by layer; not cleared."""
        num_heads, head_size = self.sizes.num_kv_heads, self.sizes.head_dim
        return tuple(
            new_cache(num_slots, num_heads, head_size, self.cache_dtype, self.device)
            for _ in self.blocks
        )

    def start(self, segment: Segment, cache: KVCache) -> BlockFunction:
        """Derive what the blocks need of a segment's rows, and return what runs them."""
        assert isinstance(segment.work, RowWork), "these blocks take no gates"
        rows = prepare_rows(segment, self.factors, cache.page_size)

        def run(layer: int, hidden: Tensor) -> Tensor:
            return self.blocks[layer](hidden, rows[layer], cache.layers[layer])

        return run

    def warm_up(self, cache: KVCache) -> None:
        """Do nothing: torch's operations are compiled already."""

    def normed(self, hidden: Tensor, rows: Tensor) -> Tensor:
        """Return some rows of the last layer's output [T, D], normalised: [R, D]."""
        return self.norm(hidden.index_select(0, rows))

    def queries(self, layer: int, hidden: Tensor, positions: Tensor) -> Tensor:
        """Return the queries of a layer for its input [R, D] at positions [R], [R, H, C]."""
        attention = self.blocks[layer].attention
        return attention.queries(hidden, self._factors(positions), self.cache_dtype)

    def store_keys(
        self, layer: int, cache: KVCache, hidden: Tensor, positions: Tensor, slots: Tensor
    ) -> None:
        """Store the keys of a layer for its input [R, D] at positions [R] in slots [R]."""
        attention = self.blocks[layer].attention
        keys = attention.keys(hidden, self._factors(positions), self.cache_dtype)
        cache.layers[layer].keys[0].index_copy_(1, slots, keys.transpose(0, 1))

    def stored_keys(self, layer: int, cache: KVCache, slots: Tensor) -> Tensor:
        """Return the keys that a layer has stored in slots [N], [N, K, C]."""
        return cache.layers[layer].keys[0].index_select(1, slots).transpose(0, 1)

    def attention_to_rows(
        self, layer: int, cache: KVCache, hidden: Tensor, position: Tensor, slots: Tensor
    ) -> Tensor:
        """Return how much a row [1, D] attends to the rows in slots [N], [N] float32."""
        (query,) = self.queries(layer, hidden, position)
        return attention_to_rows(query, self.stored_keys(layer, cache, slots))

    def _factors(self, positions: Tensor) -> Factors:
        return () if self.factors is None else self.factors.index_select(0, positions).unbind(1)
