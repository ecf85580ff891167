"""The cost of encoders by formula, against what torch counts."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_encoders import ENCODERS, save_encoder
from torch.utils.flop_counter import FlopCounterMode

from skipserve_policies.flops import vision_flops
from skipserve_policies.sizes import VisionSizes
from skipserve_training.mapping.encoders import TransformersEncoder
from skipserve_training.mapping.media import load_media

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_formula_counts_what_torch_counts(kind: str, tmp_path: Path) -> None:
    encoder = TransformersEncoder(save_encoder(kind, tmp_path / "encoder"), torch.device("cpu"))
    encoder._model.set_attn_implementation("eager")
    ENCODERS[kind].write_media(tmp_path / "media-1", 1)
    (path,) = tmp_path.glob("media-1*")
    with FlopCounterMode(display=False) as counter:
        rows = encoder.encode([load_media(path)])
    fields: dict[str, Any] = encoder.config.to_dict()
    pooler = 2 * 32 * 32 if kind == "vit" else 0  # of the class, which nobody reads
    sizes = VisionSizes.of_tower(fields)
    assert vision_flops(sizes, sizes.num_layers) == counter.get_total_flops() - pooler
    assert (sizes.num_features, sizes.feature_size) == tuple(rows.shape[1:])


def test_published_sizes_come_near_published_costs() -> None:
    """ViT-L/16 at 224 pixels: 61.6 billion multiply-adds. AST: 1212 patches."""
    vit = {"model_type": "vit", "hidden_size": 1024, "num_hidden_layers": 24}
    vit |= {"num_attention_heads": 16, "intermediate_size": 4096}
    large = VisionSizes.of_tower(vit)
    assert vision_flops(large, 24) / 2 == pytest.approx(61.6e9, rel=0.01)
    assert large.num_rows == 197
    assert VisionSizes.of_tower({"model_type": "audio-spectrogram-transformer"}).num_rows == 1214
    assert VisionSizes.of_tower({"model_type": "timesformer"}).num_rows == 8 * 196 + 1
