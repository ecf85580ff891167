"""An exported tower gives the features that it was trained to give."""

from pathlib import Path

import pytest
import torch

from skipserve_client.evaluate.easy_vqa import EasySplit
from skipserve_training.mapping.encoders import TransformersEncoder
from skipserve_training.mapping.tower import LabelledTower, TowerSizes, normalise, resize
from skipserve_training.mapping.tower_export import FEATURE_LAYER, export_tower, tower_tensors
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


def test_names_are_those_of_llavas_checkpoints(tmp_path: Path) -> None:
    export_tower(LabelledTower(SIZES), tmp_path)
    tensors = tower_tensors(tmp_path)
    assert {value.dtype for value in tensors.values()} == {torch.bfloat16}
    name = "vision_tower.vision_model.embeddings.patch_embedding.weight"
    assert tensors[name].shape == (32, 3, 8, 8)
    unread = "vision_tower.vision_model.encoder.layers.1.mlp.fc2.weight"
    assert not tensors[unread].any()
