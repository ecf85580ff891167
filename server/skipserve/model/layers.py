"""What a decoder asks of its blocks, whichever kernels run them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import CONFIG_MAPPING
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from skipserve.model.batch import Segment
from skipserve.model.config import ModelConfig, ModelFilesError
from skipserve_kernels.key_values import KeyValues

# Runs one layer, by its number, on the residual stream [T, D]; may write into it.
BlockFunction = Callable[[int, Tensor], Tensor]


@dataclass(frozen=True)
class KVCache:
    """Keys and values of all layers; slot s is position s % page_size of page s // page_size."""

    page_size: int
    layers: tuple[KeyValues, ...]


class Layers(Protocol):
    """The blocks of a decoder and its last normalisation, packed for some kernels."""

    @property
    def cache_dtype(self) -> torch.dtype:
        """The type in which keys and values are kept."""

    def new_cache(self, num_slots: int) -> tuple[KeyValues, ...]:
        """Return room for the keys and values of so many positions, by layer; not cleared."""

    def start(self, segment: Segment, cache: KVCache) -> BlockFunction:
        """Derive what the blocks need of a segment's rows, and return what runs them."""

    def warm_up(self, cache: KVCache) -> None:
        """Compile what is compiled when it first runs; the cache keeps what it holds."""

    def normed(self, hidden: Tensor, rows: Tensor) -> Tensor:
        """Return some rows of the last layer's output [T, D], normalised: [R, D]."""

    def queries(self, layer: int, hidden: Tensor, positions: Tensor) -> Tensor:
        """Return the queries of a layer for its input [R, D] at positions [R], [R, H, C]."""

    def store_keys(
        self, layer: int, cache: KVCache, hidden: Tensor, positions: Tensor, slots: Tensor
    ) -> None:
        """Store the keys of a layer for its input [R, D] at positions [R] in slots [R]."""

    def stored_keys(self, layer: int, cache: KVCache, slots: Tensor) -> Tensor:
        """Return the keys that a layer has stored in slots [N], [N, K, C]."""

    def attention_to_rows(
        self, layer: int, cache: KVCache, hidden: Tensor, position: Tensor, slots: Tensor
    ) -> Tensor:
        """Return how much a row of a layer's input attends to rows, mean over heads, [N] float32.

        Args:
            layer: which.
            cache: its keys.
            hidden: the row, [1, D].
            position: of the row, [1].
            slots: where the keys are of all rows that it sees, [N].
        """


def rotary_tables(config: ModelConfig, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of all positions, [P, C] each, whose two halves are alike.

    For all kinds of rotary embedding of transformers.

    Raises:
        ModelFilesError: the configuration has parameters from which none can be made.
    """
    try:
        kind: Any = CONFIG_MAPPING[config.text.get("model_type", "llama")]
        module = LlamaRotaryEmbedding(kind(**config.text))
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ModelFilesError(f"the text_config in config.json is not valid: {error}") from error
    positions = torch.arange(config.max_positions).unsqueeze(0)
    cosine, sine = module(torch.empty(0, dtype=dtype), positions)
    head_dim = config.sizes.decoder.head_dim
    if cosine.shape[-1] != head_dim or not cosine.isfinite().all():
        raise ModelFilesError(
            "the parameters of rotary embeddings in the text_config (rope_parameters, "
            f"rope_scaling, rope_theta) do not give factors for heads of {head_dim} numbers"
        )
    return cosine[0], sine[0]
