"""What the engine asks of a model, of whatever family. Knows no request."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from skipserve.model.batch import Batch
from skipserve.model.config import ModelConfig
from skipserve.model.layers import KVCache
from skipserve_policies.reduction import Reduction


class Model(Protocol):
    """A loaded model: media and rows in, logits out."""

    @property
    def config(self) -> ModelConfig:
        """What the checkpoint says of itself."""

    @property
    def device(self) -> torch.device:
        """Where the model runs."""

    @property
    def uses_triton(self) -> bool:
        """Whether the decoder runs in Triton kernels, which take gates."""

    @property
    def weights_digest(self) -> str:
        """The sha256 of the weight files, hexadecimal; empty without files."""

    def encode_images(self, media: Tensor) -> Tensor:
        """Turn media on the device into visual rows [N, P, D].

        Args:
            media: pictures, uint8 [N, S, S, 3]; of a model of videos those, uint8
                [N, F, S, S, 3]; of one of sounds log energies of mel bands, float32 [N, T, M].
        """

    def encode_reduced(self, media: Tensor, reductions: Sequence[Reduction | None]) -> list[Tensor]:
        """Turn media as above into what is left of their rows, [R, D] each; None leaves all."""

    def new_cache(self, num_pages: int, page_size: int) -> KVCache:
        """Return room for the keys and values of so many pages, of any sequences; not cleared."""

    def warm_up(self, cache: KVCache) -> None:
        """Compile all that a forward may launch; the cache keeps what it holds."""

    def cache_bytes_per_token(self) -> int:
        """Return what the keys and values of one position take, in the type the device keeps."""

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        """Run one batch: store its keys and values, return the wanted logits [R, V] float32.

        The batch's scoring, if it has one, is filled.
        """
