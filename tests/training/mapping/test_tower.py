"""The small tower: what it is asked, and how pictures are varied."""

import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil

from skipserve_client.evaluate.easy_vqa import Attributes, EasySplit
from skipserve_training.mapping.tower import (
    LabelledTower,
    Reading,
    TowerSizes,
    label,
    normalise,
    resize,
    score_tower,
    shape_mask,
    tower_loss,
    vary,
)
from skipserve_training.mapping.tower_training import load_pictures

pytestmark = pytest.mark.fast

SIZES = TowerSizes(hidden=32, ffn=48, layers=1, heads=1, side=32, patch=8)


def test_pictures_come_with_what_is_known_of_them(easy_split: EasySplit) -> None:
    pictures = load_pictures(easy_split)
    assert pictures.pixels.shape == (8, 3, 64, 64)
    assert pictures.colours[:2].tolist() == [1, 5]
    assert pictures.shapes[:3].tolist() == [0, 1, 2]
    assert pictures.pixels.max() <= 1


def test_the_mask_is_the_shape(easy_split: EasySplit) -> None:
    masks = shape_mask(load_pictures(easy_split).pixels)
    rectangle = masks[1].nonzero()
    assert rectangle.min(0).values.tolist() == [11, 11]
    assert rectangle.max(0).values.tolist() == [31, 31]
    assert masks[1].sum() == 21 * 21


def test_varied_shapes_stay_whole(easy_split: EasySplit) -> None:
    pictures = load_pictures(easy_split)
    before = shape_mask(pictures.pixels).sum((1, 2))
    draw = torch.Generator().manual_seed(0)
    for _ in range(10):
        after = shape_mask(vary(pictures.pixels, draw)).sum((1, 2))
        assert torch.all(after > before * 0.65**2 * 0.8)
        assert torch.all(after < before * 1.5**2 * 1.25)


def test_pixels_are_nearly_those_of_the_checkpoints_processor(easy_split: EasySplit) -> None:
    image: Image.Image = easy_split.load(2)
    side = {"height": 80, "width": 80}
    processor = CLIPImageProcessorPil(size={"shortest_edge": 80}, crop_size=side)
    expected = processor(images=image, return_tensors="pt")["pixel_values"]
    ours = normalise(resize(load_pictures(easy_split).pixels[2:3], 80))
    assert (ours - expected).abs().mean() < 0.5 / 255
    assert (ours - expected).abs().max() < 0.3


def test_votes_follow_the_patches_that_show_the_shape() -> None:
    colours, shapes = torch.zeros(1, 2, 8), torch.zeros(1, 2, 3)
    colours[0, 0, 3], colours[0, 1, 5] = 5, 9
    shapes[0, 0, 1], shapes[0, 1, 2] = 5, 9
    presence = torch.tensor([[[8.0], [-8.0]]])
    assert [vote.item() for vote in Reading(colours, shapes, presence).vote()] == [3, 1]


def test_what_is_unknown_is_not_asked(easy_split: EasySplit) -> None:
    torch.manual_seed(0)
    tower = LabelledTower(SIZES)
    pixels = load_pictures(easy_split).pixels[:2]
    unknown = tower_loss(tower, label(pixels, [Attributes(None, None)] * 2))
    known = tower_loss(tower, label(pixels, [Attributes("red", None)] * 2))
    assert known > unknown + 1
    score = score_tower(tower, label(pixels, [Attributes("red", "circle"), Attributes(None, None)]))
    assert score.n == 2
    assert score.colour in (0.0, 1.0)
