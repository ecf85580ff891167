"""A decoder that runs what the rows of a batch ask for. Knows no policy and no request.

Shapes: T rows, D hidden, C head size, V vocabulary, P positions, R wanted rows.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from skipserve.model.batch import Batch, Segment
from skipserve.model.config import ModelConfig
from skipserve.model.embedding import Embedding, Head, load_ends
from skipserve.model.layers import KVCache, Layers
from skipserve.model.narrowing.handover import Held
from skipserve.model.narrowing.run import asking_rows, hand_over
from skipserve.model.plain.layers import PlainLayers
from skipserve.model.weights import Weights
from skipserve.model.work import put, take
from skipserve_policies.sizes import DecoderSizes

# Libraries have other products for few rows than for many.
_HEAD_ROWS = (1, 16, 128)


@dataclass(frozen=True)
class Decoder:
    """Embedding, blocks, last normalisation and head.

    Attributes:
        layers: the blocks, and the normalisation behind them.
        sizes: of the decoder.
    """

    embedding: Embedding
    layers: Layers
    head: Head
    sizes: DecoderSizes

    @classmethod
    def load(cls, config: ModelConfig, weights: Weights, *, uses_triton: bool) -> Self:
        """Read the decoder."""
        embedding, head = load_ends(config, weights)
        layers = _load_layers(config, weights, uses_triton)
        return cls(embedding, layers, head, config.sizes.decoder)

    def new_cache(self, num_pages: int, page_size: int) -> KVCache:
        """Return room for the keys and values of so many pages; it is not cleared."""
        return KVCache(page_size, self.layers.new_cache(num_pages * page_size))

    def warm_up(self, cache: KVCache) -> None:
        """Run what is compiled or loaded when it first runs; the cache keeps what it holds."""
        self.layers.warm_up(cache)
        table = self.embedding.tokens
        if table.device.type != "cpu":
            for num_rows in _HEAD_ROWS:
                self.head(table.new_zeros(num_rows, self.sizes.hidden_size))

    def cache_bytes_per_token(self) -> int:
        """Return what the keys and values of one position take in all layers."""
        width = 2 * self.sizes.num_kv_heads * self.sizes.head_dim
        return self.sizes.num_layers * width * self.layers.cache_dtype.itemsize

    def __call__(self, batch: Batch, cache: KVCache) -> Tensor:
        """Return the logits of the wanted rows, [R, V] float32; store keys and values, and scores.

        The scores come first: then the logits of the wanted rows are not there yet.
        """
        hidden = remembered = self.embedding(batch)
        # Copies, for blocks may write into their input.
        rows = batch.embedded_rows
        embedded = None if rows is None else hidden.index_select(0, rows)
        for segment in batch.segments:
            hidden, remembered, asking = self._run(segment, hidden, remembered, cache)
            if segment.handover is not None:
                held = Held(embedded, asking)
                hidden = hand_over(segment.handover, hidden, held, self.layers, cache)
        if batch.scoring is not None:
            batch.scoring.fill(lambda rows: self._logits(hidden, rows))
        if not len(batch.logit_rows):
            return hidden.new_empty(0, self.sizes.vocab_size, dtype=torch.float32)
        return self._logits(hidden, batch.logit_rows)

    def _logits(self, hidden: Tensor, rows: Tensor) -> Tensor:
        return self.head(self.layers.normed(hidden, rows)).float()

    def _run(
        self, segment: Segment, hidden: Tensor, remembered: Tensor, cache: KVCache
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Run the layers of a segment.

        Args:
            segment: the rows.
            hidden: their residual stream, [T, D].
            remembered: the input of the first of a pair, of the rows that have one.
            cache: keys and values.

        Returns:
            The residual stream, what is remembered for a pair's second block in the next segment,
            and the input of the last block at the rows that are to be ranked by its attention.
        """
        asking = None
        run_block = self.layers.start(segment, cache)
        for layer in segment.layers:
            if layer == segment.layers[-1]:
                asking = asking_rows(segment.handover, hidden)
            rows = segment.rows(layer)
            if rows.is_idle:
                continue
            if not rows.is_paired:
                hidden = run_block(layer, hidden)
                continue
            before = hidden
            hidden = put(hidden, rows.pair_second, remembered)
            remembered = take(hidden, rows.pair_first)
            # A copy, for a block may write into its input.
            hidden = run_block(layer, hidden.clone())
            first, second = take(before, rows.pair_second), take(hidden, rows.pair_second)
            hidden = put(hidden, rows.pair_second, first.lerp(second, 0.5))
        return hidden, remembered, asking


def _load_layers(config: ModelConfig, weights: Weights, uses_triton: bool) -> Layers:
    if not uses_triton:
        return PlainLayers.load(config, weights)
    # Not at the top: a CPU needs no Triton.
    from skipserve.model.fused.layers import FusedLayers  # noqa: PLC0415

    return FusedLayers.load(config, weights)
