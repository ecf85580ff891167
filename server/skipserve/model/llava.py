"""A LLaVA model: media and rows in, logits out. Ties the parts together, knows no request."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor

from skipserve.model.arithmetic import arithmetic_dtype
from skipserve.model.batch import Batch
from skipserve.model.config import ModelConfig, ModelFilesError
from skipserve.model.decoder import Decoder
from skipserve.model.fused.support import fits_triton, runs_triton
from skipserve.model.layers import KVCache, Layers
from skipserve.model.vision import VisionEncoder
from skipserve.model.weights import Weights, weights_digest
from skipserve_policies.reduction import Reduction


@dataclass(frozen=True)
class Llava:
    """A loaded model.

    Attributes:
        config: what the checkpoint says of itself.
        device: where the model runs.
        dtype: what its weights are rounded to; a small model on the CPU computes in float32.
        weights_digest: sha256 of the weight files, hexadecimal; empty without files.
        uses_triton: whether the decoder runs in Triton kernels, which take gates.
    """

    config: ModelConfig
    device: torch.device
    dtype: torch.dtype
    weights_digest: str
    uses_triton: bool
    _vision: VisionEncoder
    _decoder: Decoder

    @classmethod
    @torch.inference_mode()
    def load(
        cls,
        folder: Path,
        device: torch.device,
        dtype: torch.dtype,
        *,
        uses_triton: bool | None = None,
        in_8_bits: bool = False,
    ) -> Self:
        """Load a checkpoint, tensor by tensor.

        Args:
            folder: a LLaVA-1.5 checkpoint in Hugging Face's format, in safetensors.
            device: where the model is to run.
            dtype: what its weights are cast to.
            uses_triton: whether the decoder runs in Triton kernels; None where it can.
            in_8_bits: whether the products of blocks and tower are made in 8 bits: on a CPU.

        Raises:
            ModelFilesError: a file is missing, damaged, or of a model that is not supported.
        """
        config = ModelConfig.from_folder(folder)
        arithmetic = arithmetic_dtype(device, dtype, config.sizes.decoder.hidden_size)
        with Weights(folder, device, dtype, arithmetic, in_8_bits=in_8_bits) as weights:
            try:
                model = cls.assemble(config, weights, uses_triton=uses_triton)
            except StrictDataclassError as error:
                reason = " ".join(str(error).split())
                raise ModelFilesError(f"transformers refuses {folder}: {reason}") from error
            weights.check_all_read()
        return replace(model, dtype=dtype, weights_digest=weights_digest(folder))

    @classmethod
    @torch.inference_mode()
    def assemble(
        cls, config: ModelConfig, weights: Weights, *, uses_triton: bool | None = None
    ) -> Self:
        """Build a model of weights that come from anywhere.

        Args:
            config: what the model is.
            weights: its tensors; where and what they are decides where and in what it runs.
            uses_triton: whether the decoder runs in Triton kernels; None where it can.
        """
        if uses_triton is None:
            uses_triton = runs_triton(weights.device) and fits_triton(config.sizes.decoder)
        vision = VisionEncoder(config, weights, weights.device, weights.dtype)
        decoder = Decoder.load(config, weights, uses_triton=uses_triton)
        return cls(config, weights.device, weights.dtype, "", uses_triton, vision, decoder)

    def with_layers(self, wrap: Callable[[Layers], Layers]) -> Self:
        """Return the model with other layers made of its own, such as some that are watched."""
        return replace(self, _decoder=replace(self._decoder, layers=wrap(self._decoder.layers)))

    @torch.inference_mode()
    def encode_images(self, media: Tensor) -> Tensor:
        """Turn media, as the tower takes them [N, ...], on the device, into rows [N, P, D]."""
        return self._vision(media)

    @torch.inference_mode()
    def encode_reduced(self, media: Tensor, reductions: Sequence[Reduction | None]) -> list[Tensor]:
        """Turn media as above into what is left of their rows, [R, D] each; None leaves all."""
        return self._vision.reduced(media, reductions)

    def new_cache(self, num_pages: int, page_size: int) -> KVCache:
        """Return room for the keys and values of so many pages, of any sequences; not cleared."""
        return self._decoder.new_cache(num_pages, page_size)

    @torch.inference_mode()
    def warm_up(self, cache: KVCache) -> None:
        """Compile all kernels that a forward may launch; the cache keeps what it holds."""
        self._decoder.warm_up(cache)

    def cache_bytes_per_token(self) -> int:
        """Return what the keys and values of one position take, in the type the device keeps."""
        return self._decoder.cache_bytes_per_token()

    @torch.inference_mode()
    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        """Run one batch: store its keys and values, return the wanted logits [R, V] float32."""
        return self._decoder(batch, cache)
