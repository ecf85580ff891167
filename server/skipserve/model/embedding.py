"""The ends of a decoder: token ids and pictures to rows, rows to logits.

Shapes: T rows, D hidden, E width of the embedding, V vocabulary, P positions.
"""

from dataclasses import dataclass
from typing import Self

import torch.nn.functional as F
from torch import Tensor

from skipserve.model.batch import Batch
from skipserve.model.config import ModelConfig, ModelFilesError
from skipserve.model.weights import Weights, take_linear
from skipserve_kernels.plain.linear.op import Linear, linear, pack
from skipserve_policies.sizes import DecoderSizes

# OPT's positions begin behind so many rows of their table.
_OPT_OFFSET = 2


@dataclass(frozen=True)
class Embedding:
    """Makes the rows that the first block is fed.

    Attributes:
        tokens: [V, E].
        widen: leads from E to D; None where they are the same.
        positions: what is added by position, [P, D]; None where the heads are turned instead.
    """

    tokens: Tensor
    widen: Linear | None = None
    positions: Tensor | None = None

    @classmethod
    def load(cls, config: ModelConfig, weights: Weights, tokens: Tensor) -> Self:
        """Read what stands beside the tokens' table."""
        sizes, positions = config.sizes.decoder, None
        if config.opt is not None:
            num_positions = config.declared_positions + _OPT_OFFSET
            name = "decoder.embed_positions.weight"
            positions = weights.take(name, num_positions, sizes.hidden_size)[_OPT_OFFSET:]
        return cls(tokens, _load_resizing(sizes, weights, "project_in"), positions)

    def __call__(self, batch: Batch) -> Tensor:
        """Return [T, D]."""
        rows = self._look_up(batch)
        if self.widen is not None:
            rows = linear(rows, self.widen)
        if self.positions is not None:
            rows = rows + self.positions.index_select(0, batch.positions)
        return rows

    def _look_up(self, batch: Batch) -> Tensor:
        if batch.visual_features is None:
            return F.embedding(batch.token_ids, self.tokens)
        ids = batch.token_ids.index_fill(0, batch.visual_rows, 0)
        features = batch.visual_features.to(self.tokens.dtype)
        return F.embedding(ids, self.tokens).index_copy(0, batch.visual_rows, features)


@dataclass(frozen=True)
class Head:
    """Makes logits of rows.

    Attributes:
        narrow: leads from D to E; None where they are the same.
        output: [V, E], packed.
    """

    narrow: Linear | None
    output: Linear

    @classmethod
    def load(cls, config: ModelConfig, weights: Weights, output: Linear) -> Self:
        """Read what stands before the head."""
        return cls(_load_resizing(config.sizes.decoder, weights, "project_out"), output)

    def __call__(self, rows: Tensor) -> Tensor:
        """Return the logits of rows [R, D], [R, V]."""
        return linear(rows if self.narrow is None else linear(rows, self.narrow), self.output)


def load_ends(config: ModelConfig, weights: Weights) -> tuple[Embedding, Head]:
    """Read embedding and head, and what stands between them and the blocks.

    Raises:
        ModelFilesError: the head is neither stored nor tied, or a tensor is missing or has another
            shape.
    """
    tokens, output = _load_tables(config, weights)
    return Embedding.load(config, weights, tokens), Head.load(config, weights, output)


def _load_tables(config: ModelConfig, weights: Weights) -> tuple[Tensor, Linear]:
    """Read embedding and head, tied as in transformers 5: two that differ stay two."""
    names = ("decoder.embed_tokens.weight", "head.weight")
    sizes = config.sizes.decoder
    stored = [name for name in names if name in weights]
    if config.ties_head and (len(stored) < len(names) or weights.are_equal(*names)):
        shared = weights.take(
            stored[0] if stored else names[0], sizes.vocab_size, sizes.embedding_size
        )
        weights.leave(r"head\.weight")
        return shared, pack(shared)
    if "head.weight" not in weights:
        raise ModelFilesError(
            "the checkpoint has no head (lm_head.weight), and its config.json does not say that "
            "the head is the embedding (tie_word_embeddings)"
        )
    head = take_linear(weights, {"head": sizes.vocab_size}, sizes.embedding_size, has_bias=False)
    return weights.take(names[0], sizes.vocab_size, sizes.embedding_size), head


def _load_resizing(sizes: DecoderSizes, weights: Weights, name: str) -> Linear | None:
    """Read what leads from the embedding's width to that of the blocks, or back, if anything."""
    if sizes.word_size is None:
        return None
    widths = {"project_in": sizes.hidden_size, "project_out": sizes.word_size}
    num_inputs = sizes.hidden_size + sizes.word_size - widths[name]
    return take_linear(weights, {f"decoder.{name}": widths[name]}, num_inputs, has_bias=False)
