"""Checkpoints whose weights follow from a seed, exact in float32: known answers hold for them."""

import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor


@dataclass(frozen=True)
class GoldenSizes:
    """A LLaVA: CLIP's tower, two linear layers, LLaMA's decoder; patches of 4 pixels."""

    num_layers: int
    hidden: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    vision_layers: int
    vision_hidden: int
    vision_heads: int
    vision_ffn: int
    image_size: int
    image_token: int

    @property
    def num_patches(self) -> int:
        """Patches of one image."""
        return (self.image_size // 4) ** 2


SIZES = {
    "plain": GoldenSizes(8, 64, 4, 4, 16, 176, 128, 4, 32, 4, 64, 24, image_token=127),
    "grouped": GoldenSizes(10, 48, 6, 2, 12, 128, 160, 5, 36, 3, 72, 32, image_token=159),
}
SEEDS = {"plain": (2, 3), "grouped": (6, 7)}  # of weights and pixels
PROMPTS = {
    "image-first": ((), (5, 17, 33, 2, 71, 90, 11, 64)),
    "text-first": ((1, 45, 8, 99, 23), (7, 52, 3, 120, 31, 66, 14)),
}


def uniform(seed: int, name: str, shape: Sequence[int], scale: float) -> Tensor:
    """Return numbers in [-scale, scale) that depend on seed, name and index alone: splitmix64's."""
    with np.errstate(over="ignore"):
        start = np.uint64(seed << 32 | zlib.crc32(name.encode()))
        steps = np.arange(1, math.prod(shape) + 1, dtype=np.uint64)
        z = start + steps * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    fraction = (z >> np.uint64(48)).astype(np.float64) / 2.0**15 - 1.0
    return torch.from_numpy(fraction * scale).float().view(*shape)


def make_golden_pixels(sizes: GoldenSizes, seed: int) -> Tensor:
    """Return a picture as `Llava` takes it where nothing is normalised, [1, S, S, 3]."""
    pixels = uniform(seed, "pixels", (3, sizes.image_size, sizes.image_size), 1.0)
    return pixels.permute(1, 2, 0)[None]


def make_golden_checkpoint(folder: Path, sizes: GoldenSizes, seed: int) -> Path:
    """Write the checkpoint of a seed; its processor leaves pixels as they are."""
    weights = {name: _weight(seed, name, shape) for name, shape in _shapes(sizes).items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_config(sizes)))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 2}))
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"height": sizes.image_size, "width": sizes.image_size},
        "do_center_crop": False,
        "do_convert_rgb": True,
        "do_resize": True,
        "do_rescale": True,
        "rescale_factor": 1.0,
        "do_normalize": True,
        "image_mean": [0.0, 0.0, 0.0],
        "image_std": [1.0, 1.0, 1.0],
        "resample": 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def _weight(seed: int, name: str, shape: tuple[int, ...]) -> Tensor:
    """Vectors lie in +-1/4, gains around 1, tables in +-1, matrices about 2 / sqrt(inputs).

    Queries and keys are drawn twice as wide, so that attention is far from uniform.
    """
    is_gain = len(shape) == 1 and name.endswith(".weight")
    is_table = "embed_tokens" in name or "position_embedding" in name
    scale = 2.0 ** round(math.log2(2 / math.sqrt(math.prod(shape[1:]))))
    if "q_proj" in name or "k_proj" in name:
        scale *= 2
    scale = 0.25 if len(shape) == 1 else 1.0 if is_table else scale
    return uniform(seed, name, shape, scale) + float(is_gain)


def _shapes(sizes: GoldenSizes) -> dict[str, tuple[int, ...]]:
    """Return the sizes of all tensors, by the names of transformers 5."""
    e, d = sizes.vision_hidden, sizes.hidden
    tower, text = "model.vision_tower.", "model.language_model."
    shapes: dict[str, tuple[int, ...]] = {
        f"{tower}embeddings.class_embedding": (e,),
        f"{tower}embeddings.patch_embedding.weight": (e, 3, 4, 4),
        f"{tower}embeddings.position_embedding.weight": (sizes.num_patches + 1, e),
        f"{text}embed_tokens.weight": (sizes.vocab, d),
        f"{text}norm.weight": (d,),
        "lm_head.weight": (sizes.vocab, d),
    }
    norms = [f"{tower}pre_layrnorm", f"{tower}post_layernorm"]
    linears = {
        "model.multi_modal_projector.linear_1": (d, e),
        "model.multi_modal_projector.linear_2": (d, d),
    }
    for layer in range(sizes.vision_layers):
        block = f"{tower}encoder.layers.{layer}."
        norms += [f"{block}layer_norm1", f"{block}layer_norm2"]
        linears |= {f"{block}self_attn.{part}_proj": (e, e) for part in ("q", "k", "v", "out")}
        linears[f"{block}mlp.fc1"] = (sizes.vision_ffn, e)
        linears[f"{block}mlp.fc2"] = (e, sizes.vision_ffn)
    for name in norms:
        shapes |= {f"{name}.weight": (e,), f"{name}.bias": (e,)}
    for name, shape in linears.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes | _block_shapes(sizes, text)


def _block_shapes(sizes: GoldenSizes, text: str) -> dict[str, tuple[int, ...]]:
    d, m = sizes.hidden, sizes.ffn
    q, kv = sizes.num_heads * sizes.head_dim, sizes.num_kv_heads * sizes.head_dim
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(sizes.num_layers):
        block = f"{text}layers.{layer}."
        for part, size in (("q", q), ("k", kv), ("v", kv)):
            shapes[f"{block}self_attn.{part}_proj.weight"] = (size, d)
        shapes[f"{block}self_attn.o_proj.weight"] = (d, q)
        shapes |= {f"{block}mlp.{part}_proj.weight": (m, d) for part in ("gate", "up")}
        shapes[f"{block}mlp.down_proj.weight"] = (d, m)
        shapes |= {f"{block}{norm}_layernorm.weight": (d,) for norm in ("input", "post_attention")}
    return shapes


def _config(sizes: GoldenSizes) -> dict[str, object]:
    return {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "dtype": "float32",
        "image_token_index": sizes.image_token,
        "image_seq_length": sizes.num_patches,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "text_config": {
            "model_type": "llama",
            "hidden_size": sizes.hidden,
            "intermediate_size": sizes.ffn,
            "num_hidden_layers": sizes.num_layers,
            "num_attention_heads": sizes.num_heads,
            "num_key_value_heads": sizes.num_kv_heads,
            "head_dim": sizes.head_dim,
            "max_position_embeddings": 256,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "vocab_size": sizes.vocab,
            "tie_word_embeddings": False,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": sizes.vision_hidden,
            "image_size": sizes.image_size,
            "intermediate_size": sizes.vision_ffn,
            "num_attention_heads": sizes.vision_heads,
            "num_hidden_layers": sizes.vision_layers,
            "patch_size": 4,
            "projection_dim": sizes.vision_hidden,
        },
    }
