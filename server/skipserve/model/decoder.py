"""A LLaMA decoder that runs what the rows of a batch ask for. Knows no policy and no request.

Shapes: T rows, D hidden, C head size, V vocabulary, P positions, R wanted rows.
"""

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from skipserve.model.batch import Batch, Every, put, take
from skipserve.model.block import DecoderBlock
from skipserve.model.block_rows import block_key, prepare_rows
from skipserve.model.config import ModelConfig
from skipserve.model.weights import Weights, take_gain, take_linear
from skipserve_kernels.attention.op import KeyValues, cache_dtype
from skipserve_kernels.linear.op import PackedLinear, linear, pack
from skipserve_kernels.rms_norm.op import Gain, rms_norm
from skipserve_kernels.rotary.op import rotary_table
from skipserve_policies.sizes import DecoderSizes


@dataclass(frozen=True)
class KVCache:
    """Keys and values of all layers; slot s is position s % page_size of page s // page_size."""

    page_size: int
    layers: tuple[KeyValues, ...]


@dataclass(frozen=True)
class Decoder:
    """Embedding, blocks, final normalisation and head.

    Attributes:
        embedding: [V, D].
        factors: rotary factors of all positions, [P, 2, 1, C].
        sizes: of the decoder.
    """

    embedding: Tensor
    blocks: tuple[DecoderBlock, ...]
    norm: Gain
    head: PackedLinear
    factors: Tensor
    sizes: DecoderSizes

    @classmethod
    def load(cls, config: ModelConfig, weights: Weights) -> Self:
        """Read the decoder."""
        sizes = config.sizes.decoder
        embedding = weights.take("decoder.embed_tokens.weight", sizes.vocab_size, sizes.hidden_size)
        if config.ties_head:
            weights.leave(r"head\.weight")
            head = pack(embedding)
        else:
            head = take_linear(
                weights, {"head": sizes.vocab_size}, sizes.hidden_size, has_bias=False
            )
        return cls(
            embedding=embedding,
            blocks=tuple(
                DecoderBlock.load(config, weights, layer) for layer in range(sizes.num_layers)
            ),
            norm=take_gain(weights, "decoder.norm", sizes.hidden_size, config.rms_norm_epsilon),
            head=head,
            factors=_rotary_factors(config, embedding.dtype, embedding.device),
            sizes=sizes,
        )

    def new_cache(self, num_pages: int, page_size: int) -> KVCache:
        """Return room for the keys and values of so many pages; it is not cleared."""
        num_heads, head_size = self.sizes.num_kv_heads, self.sizes.head_dim
        dtype, device = self.embedding.dtype, self.embedding.device
        num_slots = num_pages * page_size
        layers = (
            KeyValues.empty(num_slots, num_heads, head_size, dtype, device) for _ in self.blocks
        )
        return KVCache(page_size, tuple(layers))

    def cache_bytes_per_token(self) -> int:
        """Return what the keys and values of one position take in all layers."""
        dtype = cache_dtype(self.embedding.dtype, self.embedding.device)
        width = 2 * self.sizes.num_kv_heads * self.sizes.head_dim
        return len(self.blocks) * width * dtype.itemsize

    def __call__(self, batch: Batch, cache: KVCache) -> Tensor:
        """Return the logits of the wanted rows, [R, V] float32, and store keys and values."""
        hidden = remembered = self._embed(batch)
        prepared = prepare_rows(batch, self.factors, cache.page_size)
        layers = zip(self.blocks, batch.layers, batch.kv_group, cache.layers, strict=True)
        for block, rows, group, layer_cache in layers:
            if rows.is_idle:
                continue
            before = hidden
            if rows.pair_second is not Every.NONE:
                hidden = put(hidden, rows.pair_second, remembered)
            if rows.pair_first is not Every.NONE:
                remembered = take(hidden, rows.pair_first)
            hidden = block(hidden, prepared[block_key(rows, group)], layer_cache)
            if rows.pair_second is not Every.NONE:
                first, second = take(before, rows.pair_second), take(hidden, rows.pair_second)
                hidden = put(hidden, rows.pair_second, first.lerp(second, 0.5))
        if not len(batch.logit_rows):
            return hidden.new_empty(0, self.sizes.vocab_size, dtype=torch.float32)
        wanted = rms_norm(hidden.index_select(0, batch.logit_rows), self.norm)
        return linear(wanted, self.head).float()

    def _embed(self, batch: Batch) -> Tensor:
        if batch.visual_features is None:
            return F.embedding(batch.token_ids, self.embedding)
        ids = batch.token_ids.index_fill(0, batch.visual_rows, 0)
        features = batch.visual_features.to(self.embedding.dtype)
        return F.embedding(ids, self.embedding).index_copy(0, batch.visual_rows, features)


def _rotary_factors(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the factors of all positions, for all kinds of rotary embedding of transformers.

    They turn queries and keys in the type of the cache.
    """
    module = LlamaRotaryEmbedding(LlamaConfig(**config.text))
    positions = torch.arange(config.max_positions).unsqueeze(0)
    cosine, sine = module(torch.empty(0, dtype=cache_dtype(dtype, device)), positions)
    return rotary_table(cosine[0], sine[0]).to(device)
