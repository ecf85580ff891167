"""What a frozen encoder costs a medium, in FLOPs, from its configuration; all of its layers run.

One multiply-add is two; matrix products and convolutions only. For n rows of width d, an FFN of m:

    layer = 8 n d d + 4 n n d + 4 n d m
"""

from collections.abc import Mapping
from typing import Any

from transformers import CONFIG_MAPPING

TIMESFORMER, _AST = "timesformer", "audio-spectrogram-transformer"


def encoder_flops(fields: Mapping[str, Any]) -> int:
    """Return the FLOPs of one picture, of the frames of a video or of a sound.

    Args:
        fields: the configuration; what it leaves out is as transformers fills it in.
    """
    config, kind = _config(fields), fields["model_type"]
    rows, d = encoder_rows(fields), encoder_width(fields)
    num_classes = 2 if kind == _AST else 1
    patches, channels = rows - num_classes, 1 if kind == _AST else 3
    embedding = 2 * patches * channels * config.patch_size**2 * d
    layer = _divided(config) if kind == TIMESFORMER else _attention(rows, d)
    ffn = 4 * rows * d * config.intermediate_size
    return int(embedding + config.num_hidden_layers * (layer + ffn))


def encoder_rows(fields: Mapping[str, Any]) -> int:
    """Return the rows that an encoder gives: a patch each, and those of the class."""
    config, kind = _config(fields), fields["model_type"]
    if kind == _AST:
        across = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
        along = (config.max_length - config.patch_size) // config.time_stride + 1
        return int(across * along + 2)
    patches = (config.image_size // config.patch_size) ** 2
    return int(patches * (config.num_frames if kind == TIMESFORMER else 1) + 1)


def encoder_width(fields: Mapping[str, Any]) -> int:
    """Return the width of a row."""
    return int(_config(fields).hidden_size)


def _attention(rows: int, d: int) -> int:
    return 8 * rows * d * d + 4 * rows * rows * d


def _divided(config: Any) -> int:
    """Count TimeSformer's attention: of each patch over time, then of each frame over space.

    Source: "Is Space-Time Attention All You Need for Video Understanding?", arXiv 2102.05095; there
    is one more matrix behind that over time, and each frame has a copy of the class.
    """
    frames, d = config.num_frames, config.hidden_size
    patches = (config.image_size // config.patch_size) ** 2
    time = patches * _attention(frames, d) + 2 * patches * frames * d * d
    return int(time + frames * _attention(patches + 1, d))


def _config(fields: Mapping[str, Any]) -> Any:
    return CONFIG_MAPPING[fields["model_type"]](**fields)
