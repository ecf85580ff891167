"""The blocks of a decoder in fused kernels."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from skipserve.model.batch import Segment
from skipserve.model.block_weights import BlockWeights
from skipserve.model.config import ModelConfig
from skipserve.model.fused.block import BlockContext, FusedBlock
from skipserve.model.fused.rows import prepare_rows
from skipserve.model.fused.warm_up import warm_up_segments
from skipserve.model.layers import BlockFunction, KVCache, rotary_tables
from skipserve.model.weights import Weights
from skipserve_kernels.fused import tiles
from skipserve_kernels.fused.input_projection.packing import pack_factors
from skipserve_kernels.fused.launch import Scratch, Selection
from skipserve_kernels.fused.norm_rows.triton import Target, norm_rows
from skipserve_kernels.fused.output_projection.triton import scratch_sizes as projection_scratch
from skipserve_kernels.fused.paged import PagedKeyValues
from skipserve_kernels.fused.paged_decode.triton import scratch_sizes as decode_scratch
from skipserve_kernels.fused.paged_scores.triton import paged_scores
from skipserve_kernels.key_values import KeyValues
from skipserve_policies.sizes import DecoderSizes


@dataclass(frozen=True)
class FusedLayers:
    """All blocks, and what they share.

    Attributes:
        gain: of the last normalisation, [D].
        epsilon: of all normalisations.
        factors: rotary factors of all positions, [P, 2, C / 2] float32.
        scratch: for results that several programs compute together.
        sizes: of the decoder.
    """

    blocks: tuple[FusedBlock, ...]
    gain: Tensor
    epsilon: float
    factors: Tensor
    scratch: Scratch
    sizes: DecoderSizes

    @classmethod
    def load(cls, config: ModelConfig, weights: Weights) -> Self:
        """Read and pack the blocks."""
        assert config.opt is None, "the kernels take blocks of LLaMA's type alone"
        sizes = config.sizes.decoder
        cosine, sine = rotary_tables(config, torch.float32)
        return cls(
            blocks=tuple(
                FusedBlock.pack(BlockWeights.read(config, weights, layer))
                for layer in range(sizes.num_layers)
            ),
            gain=weights.take("decoder.norm.weight", sizes.hidden_size),
            epsilon=config.rms_norm_epsilon,
            factors=pack_factors(cosine, sine).to(weights.device),
            scratch=_scratch(sizes, weights.device),
            sizes=sizes,
        )

    @property
    def cache_dtype(self) -> torch.dtype:
        """The type in which keys and values are kept."""
        return self.gain.dtype

    def new_cache(self, num_slots: int) -> tuple[KeyValues, ...]:
        """Return room for the keys and values of so many positions, by layer; not cleared."""
        shape = (2, num_slots, self.sizes.num_kv_heads, self.sizes.head_dim)
        rooms = (
            torch.empty(shape, dtype=self.cache_dtype, device=self.gain.device) for _ in self.blocks
        )
        return tuple(KeyValues(*room.unbind(0)) for room in rooms)

    def start(self, segment: Segment, cache: KVCache) -> BlockFunction:
        """Derive what the blocks need of a segment's rows, and return what runs them."""
        arch = tiles.architecture(self.gain.device)
        rows = prepare_rows(segment, tiles.prefill_tile(self.cache_dtype, arch).rows)
        context = BlockContext(self.factors, self.scratch, cache.page_size)

        def run(layer: int, hidden: Tensor) -> Tensor:
            return self.blocks[layer](hidden, rows[layer], cache.layers[layer], context)

        return run

    def warm_up(self, cache: KVCache) -> None:
        """Compile all kernels; the cache keeps what it holds. The interpreter compiles nothing."""
        device = self.gain.device
        if device.type == "cpu":
            return
        for segment in warm_up_segments(self.sizes, self.cache_dtype, device):
            shape = segment.num_rows, self.sizes.hidden_size
            hidden = torch.zeros(shape, dtype=self.cache_dtype, device=device)
            self.start(segment, cache)(0, hidden)
        row = torch.zeros(1, self.sizes.hidden_size, dtype=self.cache_dtype, device=device)
        first = torch.zeros(1, dtype=torch.int64, device=device)
        self.attention_to_rows(0, cache, row, first, first)

    def normed(self, hidden: Tensor, rows: Tensor) -> Tensor:
        """Return some rows of the last layer's output [T, D], normalised: [R, D]."""
        normed = hidden.new_empty(len(rows), hidden.shape[1])
        selection = Selection(len(rows), rows)
        norm_rows(hidden, [Target(self.gain, normed)], self.epsilon, selection)
        return normed

    def queries(self, layer: int, hidden: Tensor, positions: Tensor) -> Tensor:
        """Return the queries of a layer for its input [R, D] at positions [R], [R, H, C]."""
        nowhere = torch.full_like(positions, -1)
        room = self.gain.new_empty(2, 1, self.sizes.num_kv_heads, self.sizes.head_dim)
        paged = self._storing(KeyValues(*room.unbind(0)), positions, nowhere)
        return self.blocks[layer].queries(hidden, paged)

    def store_keys(
        self, layer: int, cache: KVCache, hidden: Tensor, positions: Tensor, slots: Tensor
    ) -> None:
        """Store the keys of a layer for its input [R, D] at positions [R] in slots [R]."""
        self.blocks[layer].store(hidden, self._storing(cache.layers[layer], positions, slots))

    def stored_keys(self, layer: int, cache: KVCache, slots: Tensor) -> Tensor:
        """Return the keys that a layer has stored in slots [N], [N, K, C]."""
        return cache.layers[layer].keys.index_select(0, slots)

    def attention_to_rows(
        self, layer: int, cache: KVCache, hidden: Tensor, position: Tensor, slots: Tensor
    ) -> Tensor:
        """Return how much a row [1, D] attends to the rows in slots [N], [N] float32."""
        query, num_rows = self.queries(layer, hidden, position), len(slots)
        starts = torch.arange(0, num_rows + 1, num_rows, device=slots.device)
        return paged_scores(query, cache.layers[layer].keys, slots, starts, num_rows)

    def _storing(self, where: KeyValues, positions: Tensor, slots: Tensor) -> PagedKeyValues:
        """Return how rows at positions [R] store keys and values, and read none."""
        return PagedKeyValues(
            where.keys, where.values, 1, slots[:, None], positions, slots, self.factors
        )


def _scratch(sizes: DecoderSizes, device: torch.device) -> Scratch:
    """Return room for the largest launch of either kernel."""
    arch, max_rows = tiles.architecture(device), tiles.MAX_FUSED_ROWS
    needs = (
        projection_scratch(max_rows, sizes.hidden_size),
        decode_scratch(max_rows, sizes.num_heads, sizes.num_kv_heads, sizes.head_dim, arch),
    )
    num_parts, num_arrivals = (max(column) for column in zip(*needs, strict=True))
    return Scratch.empty(num_parts, num_arrivals, device)
