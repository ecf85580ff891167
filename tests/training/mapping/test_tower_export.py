"""An exported tower gives the features that it was trained to give."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from skipserve_client.evaluate.easy_vqa import EasySplit
from skipserve_training.mapping.encoders import TransformersEncoder
from skipserve_training.mapping.tower import LabelledTower, TowerSizes, normalise, resize
from skipserve_training.mapping.tower_export import FEATURE_LAYER, export_tower
from skipserve_training.mapping.tower_training import load_pictures

pytestmark = pytest.mark.fast

SIZES = TowerSizes(hidden=32, ffn=48, layers=1, heads=1, side=32, patch=8)


def test_the_layer_before_the_last_is_the_towers_output(
    easy_split: EasySplit, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    tower = LabelledTower(SIZES).bfloat16().float()
    export_tower(tower, tmp_path)
    encoder = TransformersEncoder(tmp_path, torch.device("cpu"), FEATURE_LAYER, keeps_class=False)
    encoded = encoder.encode([easy_split.load(0)])
    pixels = normalise(resize(load_pictures(easy_split).pixels[:1], SIZES.side))
    expected = tower.vision(pixels).last_hidden_state[:, 1:]
    torch.testing.assert_close(encoded, expected, rtol=0.05, atol=0.05)


def test_the_last_layer_is_zeros_in_bf16(tmp_path: Path) -> None:
    export_tower(LabelledTower(SIZES), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert {value.dtype for value in tensors.values()} == {torch.bfloat16}
    unread = [value for name, value in tensors.items() if name.endswith("layers.1.mlp.fc2.weight")]
    assert len(unread) == 1
    assert not unread[0].any()
