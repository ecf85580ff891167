"""A model without arithmetic: what is left of a step is the host's work."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from skipserve.model.batch import Batch
from skipserve.model.config import ModelConfig
from skipserve.model.layers import KVCache
from skipserve_policies.reduction import Reduction


class InstantModel:
    """Gives the same random logits in each forward, and keeps no keys and values.

    Attributes:
        logits: [B, V] float32, for B sequences at most.

    Args:
        config: whose sizes it claims.
        num_sequences: B.
        vocab_size: V; None for the configuration's.
    """

    def __init__(self, config: ModelConfig, num_sequences: int, vocab_size: int | None) -> None:
        vocab_size = vocab_size or config.sizes.decoder.vocab_size
        decoder = replace(config.sizes.decoder, vocab_size=vocab_size)
        self.config = replace(config, sizes=replace(config.sizes, decoder=decoder))
        self.device = torch.device("cpu")
        self.uses_triton = False
        self.weights_digest = ""
        generator = torch.Generator().manual_seed(0)
        self.logits = torch.randn(num_sequences, vocab_size, generator=generator)

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Return zeros, [N, P, D]."""
        sizes = self.config.sizes
        return torch.zeros(len(pixels), sizes.rows_per_image, sizes.decoder.embedding_size)

    def encode_reduced(
        self, pixels: Tensor, reductions: Sequence[Reduction | None]
    ) -> list[Tensor]:
        """Return zeros, [R, D] each."""
        counts = [it.num_rows if it else self.config.sizes.rows_per_image for it in reductions]
        return [torch.zeros(count, self.config.sizes.decoder.embedding_size) for count in counts]

    def new_cache(self, num_pages: int, page_size: int) -> KVCache:
        """Return a cache of no layer."""
        return KVCache(page_size, ())

    def warm_up(self, cache: KVCache) -> None:
        """Have nothing to compile."""

    def cache_bytes_per_token(self) -> int:
        """Return 1, though nothing is kept: the pool is as large as its bytes say."""
        return 1

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        """Return the logits of as many rows as are wanted."""
        return self.logits[: len(batch.logit_rows)]
