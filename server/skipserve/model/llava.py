"""A LLaVA model: pictures and rows in, logits out. Ties the parts together, knows no request."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor

from skipserve.model.batch import Batch
from skipserve.model.config import ModelConfig, ModelFilesError
from skipserve.model.decoder import Decoder, KVCache
from skipserve.model.vision import VisionEncoder
from skipserve.model.weights import Weights, weights_digest
from skipserve_kernels.linear.op import arithmetic_dtype


@dataclass(frozen=True)
class Llava:
    """A loaded model.

    Attributes:
        config: what the checkpoint says of itself.
        device: where the model runs.
        dtype: what its weights are rounded to; a small model on the CPU computes in float32.
        weights_digest: sha256 of the weight files, hexadecimal.
    """

    config: ModelConfig
    device: torch.device
    dtype: torch.dtype
    weights_digest: str
    _vision: VisionEncoder
    _decoder: Decoder

    @classmethod
    @torch.inference_mode()
    def load(cls, folder: Path, device: torch.device, dtype: torch.dtype) -> Self:
        """Load a checkpoint, tensor by tensor.

        Args:
            folder: a LLaVA-1.5 checkpoint in Hugging Face's format, in safetensors.
            device: where the model is to run.
            dtype: what its weights are cast to.

        Raises:
            ModelFilesError: a file is missing, damaged, or of a model that is not supported.
        """
        config = ModelConfig.from_folder(folder)
        arithmetic = arithmetic_dtype(device, dtype, config.sizes.decoder.hidden_size)
        with Weights(folder, device, dtype, arithmetic) as weights:
            try:
                vision = VisionEncoder(config, weights, device, arithmetic)
                decoder = Decoder.load(config, weights)
            except StrictDataclassError as error:
                raise ModelFilesError(f"transformers refuses {folder}: {error}") from error
            weights.check_all_read()
        return cls(config, device, dtype, weights_digest(folder), vision, decoder)

    @torch.inference_mode()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """Turn pictures, uint8 [N, S, S, 3] on the device, into visual rows [N, P, D]."""
        return self._vision(pixels)

    def new_cache(self, num_pages: int, page_size: int) -> KVCache:
        """Return room for the keys and values of so many pages, of any sequences; not cleared."""
        return self._decoder.new_cache(num_pages, page_size)

    def cache_bytes_per_token(self) -> int:
        """Return what the keys and values of one position take, in the type the device keeps."""
        return self._decoder.cache_bytes_per_token()

    @torch.inference_mode()
    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        """Run one batch: store its keys and values, return the wanted logits [R, V] float32."""
        return self._decoder(batch, cache)
