"""Small random checkpoints whose encoder is of any type, and files of what they are shown."""

import base64
import io
import json
import wave
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_encoders import save_encoder
from tiny_llava import make_checkpoint
from transformers import ASTModel, TimesformerModel, ViTModel

from skipserve_policies.sizes import MappingSizes

VIT, TIMESFORMER, AST = "vit", "timesformer", "audio-spectrogram-transformer"
KINDS = (VIT, TIMESFORMER, AST)
MODELS: dict[str, Any] = {VIT: ViTModel, TIMESFORMER: TimesformerModel, AST: ASTModel}
MAPPING = MappingSizes(num_queries=3, hidden_size=16, num_layers=2, num_heads=2, ffn_size=16)
RATE = 16_000


def make_media_model(
    folder: Path, kind: str, *, layer: int = -1, strategy: str = "full", **shape: Any
) -> Path:
    """Write a checkpoint of the product's own type, its encoder one of `tiny_encoders`.

    Args:
        folder: where to; the encoder by itself goes beside it, into `encoder`.
        kind: of the encoder.
        layer: whose output is read.
        strategy: whether the row of the class is.
        shape: of the rest, as `make_checkpoint` takes it.

    Returns:
        The folder.
    """
    encoder = save_encoder(kind, folder.parent / "encoder")
    top = (("vision_feature_layer", layer), ("vision_feature_select_strategy", strategy))
    make_checkpoint(folder, mapping=MAPPING, top_config=top, **shape)
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"] = json.loads((encoder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "processor_config.json").unlink()
    processor = (encoder / "preprocessor_config.json").read_text()
    (folder / "preprocessor_config.json").write_text(processor)
    tensors = load_file(folder / "model.safetensors")
    kept = {name: it for name, it in tensors.items() if not name.startswith("vision_tower.")}
    # By the names that transformers gives them in memory, as the training writes them.
    own = MODELS[kind].from_pretrained(encoder).state_dict()
    named = {f"vision_tower.{name}": it.contiguous() for name, it in own.items()}
    save_file(kept | named, folder / "model.safetensors")
    return folder


def wav_file(samples: NDArray[np.float64], rate: int = RATE, channels: int = 1) -> bytes:
    """Return samples from -1 to 1 as a WAV file of 16 bits, by the standard library."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def noise(num_samples: int, seed: int = 0) -> NDArray[np.float64]:
    """Return random samples."""
    return np.random.default_rng(seed).uniform(-1, 1, num_samples)


def film(num_frames: int, seed: int = 0, size: tuple[int, int] = (24, 20)) -> list[Image.Image]:
    """Return random frames of one size."""
    shape = (num_frames, size[1], size[0], 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return [Image.fromarray(frame) for frame in pixels]


def video_file(frames: list[Image.Image], form: str = "WEBP") -> bytes:
    """Return frames as an animation, or one as a picture; of WebP and PNG no pixel changes."""
    buffer = io.BytesIO()
    options: dict[str, Any] = {"lossless": True, "exact": True} if form == "WEBP" else {}
    first, *others = frames
    if others:
        options |= {"save_all": True, "append_images": others, "duration": 40}
    first.save(buffer, form, **options)
    return buffer.getvalue()


def media_uri(content: bytes, media_type: str) -> str:
    """Return a file as a data URI."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def gif_of(count: int, last_side: int = 1) -> bytes:
    """Return a GIF of one pixel with so many frames, of which the last says another side."""
    head = b"GIF89a\1\0\1\0\x80\0\0" + bytes(6)

    def frame(side: int) -> bytes:
        sides = side.to_bytes(2, "little") * 2
        control = b"\x21\xf9\x04\0\1\0\0\0"
        return control + b"\x2c\0\0\0\0" + sides + b"\0\2\2\x44\1\0"

    return head + (count - 1) * frame(1) + frame(last_side) + b";"
