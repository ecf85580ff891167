"""Models with random weights of a given configuration; no checkpoint is written."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zlib import crc32

import torch
from checkpoints import Shape
from torch import Tensor
from transformers import AutoModelForImageTextToText, LlavaConfig

from skipserve.model import weights as checkpoint_weights
from skipserve.model.config import ModelConfig
from skipserve.model.weights import Weights
from skipserve_policies.sizes import CLIP_L_14_336

SHAPES = {
    # LLaVA-1.5-7B as Hugging Face publishes it: a vocabulary of 32000, padded to 32064.
    "7b": Shape(
        text={
            "num_hidden_layers": 32,
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "vocab_size": 32064,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
        },
        vision={**CLIP_L_14_336, "projection_dim": 768},
    ),
    # The smallest that the kernels take and that is deep enough for most policies: a rehearsal.
    "tiny": Shape(
        text={
            "num_hidden_layers": 20,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "vocab_size": 128,
            "max_position_embeddings": 256,
            "rms_norm_eps": 1e-5,
        },
        vision={
            "num_hidden_layers": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 7,
            "projection_dim": 32,
        },
    ),
}

# The token that stands for a picture's rows in the published model.
_IMAGE_TOKEN_ID = 32000


class RandomWeights(Weights):
    """Draws each tensor when it is asked for: the same one for the same name.

    Matrices keep the size of what they multiply, and gains are near 1, so that no part of a model
    is lost beside the others.

    Args:
        device: where tensors are made; the same numbers come out on devices of one kind.
        dtype: what they come in.
        rounding: what they are rounded to before that.
    """

    def __init__(
        self, device: torch.device, dtype: torch.dtype, rounding: torch.dtype | None = None
    ) -> None:
        self.device = device
        self.dtype = dtype
        self._rounding = rounding or dtype

    def __contains__(self, name: str) -> bool:
        """Return that any tensor is there."""
        return True

    def take(self, name: str, *shape: int) -> Tensor:
        """Draw one tensor."""
        generator = torch.Generator(self.device).manual_seed(crc32(name.encode()))
        draw = torch.randn(shape, generator=generator, device=self.device, dtype=self._rounding)
        if len(shape) > 1:
            draw.mul_(draw[0].numel() ** -0.5)
        else:
            draw.mul_(0.1)
        if "norm" in name and name.endswith("weight"):
            draw.add_(1.0)
        return draw.to(self.dtype)

    def leave(self, pattern: str) -> None:
        """Do nothing: what is not asked for is not there."""

    def check_all_read(self) -> None:
        """Do nothing: what is not asked for is not there."""


def llava_config(shape: Shape) -> dict[str, Any]:
    """Return the configuration of a shape, as a checkpoint's `config.json` has it."""
    return {
        "model_type": "llava",
        "image_token_index": min(_IMAGE_TOKEN_ID, shape.text["vocab_size"] - 1),
        "tie_word_embeddings": False,
        "text_config": {"model_type": "llama", **shape.text},
        "vision_config": {"model_type": "clip_vision_model", **shape.vision},
    }


def model_config(shape: Shape) -> ModelConfig:
    """Return the configuration of a shape as our server reads it."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(llava_config(shape)))
        return ModelConfig.from_folder(Path(folder))


def with_layers(shape: Shape, num_layers: int) -> Shape:
    """Return a shape with another number of decoder layers."""
    return Shape({**shape.text, "num_hidden_layers": num_layers}, shape.vision)


@torch.no_grad()
def transformers_model(shape: Shape, weights: RandomWeights) -> Any:
    """Return transformers' model with the same weights, ready for `contenders.Transformers`."""
    config = LlavaConfig(**{k: v for k, v in llava_config(shape).items() if k != "model_type"})
    with weights.device:
        model: Any = AutoModelForImageTextToText.from_config(  # type: ignore[no-untyped-call]
            config, dtype=weights.dtype
        )
    for name, parameter in model.named_parameters():
        parameter.copy_(weights.take(checkpoint_weights.canonical_name(name), *parameter.shape))
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model.to(weights.device).eval()
