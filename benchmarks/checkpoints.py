"""The models that are timed: the demo model, and random ones of a given shape."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration


@dataclass(frozen=True)
class Shape:
    """A LLaVA with random weights; a picture gives (image_size / patch_size)^2 tokens."""

    text: dict[str, Any]
    vision: dict[str, Any]


# A picture gives 256 tokens.
_TOWER_OF_256 = {
    "num_hidden_layers": 12,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 14,
}

SHAPES = {
    # 461 million parameters, 256 visual tokens.
    "small": Shape(
        text={
            "num_hidden_layers": 24,
            "hidden_size": 1024,
            "intermediate_size": 2816,
            "num_attention_heads": 16,
            "vocab_size": 32064,
            "max_position_embeddings": 1024,
        },
        vision=_TOWER_OF_256,
    ),
    # As deep as LLaVA-1.5: 361 million parameters, 256 visual tokens.
    "deep": Shape(
        text={
            "num_hidden_layers": 32,
            "hidden_size": 768,
            "intermediate_size": 2048,
            "num_attention_heads": 12,
            "vocab_size": 32064,
            "max_position_embeddings": 1024,
        },
        vision=_TOWER_OF_256,
    ),
    # What the demo model looks like, for a checkout without it.
    "demo": Shape(
        text={
            "num_hidden_layers": 32,
            "hidden_size": 128,
            "intermediate_size": 352,
            "num_attention_heads": 4,
            "vocab_size": 448,
            "max_position_embeddings": 512,
        },
        vision={
            "num_hidden_layers": 5,
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_attention_heads": 4,
            "image_size": 96,
            "patch_size": 16,
        },
    ),
}


@contextmanager
def checkpoint(model: str) -> Iterator[Path]:
    """Yield the folder of a model: a path, the shipped demo model, or a random one of a shape.

    A random one lives in a temporary folder and is the same each time.
    """
    shipped = Path(str(files("skipserve") / "demo"))
    if model == "demo" and (shipped / "config.json").is_file():
        yield shipped
    elif model in SHAPES:
        with TemporaryDirectory() as folder:
            _write_random(SHAPES[model], Path(folder))
            yield Path(folder)
    else:
        yield Path(model)


def _write_random(shape: Shape, folder: Path) -> None:
    torch.manual_seed(0)
    config = LlavaConfig(
        text_config={"model_type": "llama", **shape.text},
        vision_config={"model_type": "clip_vision_model", **shape.vision},
        image_token_index=shape.text["vocab_size"] - 1,
    )
    model: Any = LlavaForConditionalGeneration(config)
    model.to(torch.bfloat16).save_pretrained(folder)
