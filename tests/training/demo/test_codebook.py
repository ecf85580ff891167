"""Visual tokens say what is where, and can be read back."""

import random

import pytest
import torch

from skipserve_client.evaluate.backgrounds import BackgroundKind, draw_background
from skipserve_client.evaluate.scenes import (
    CANVAS,
    COLOURS,
    SHAPES,
    Colour,
    Scene,
    SceneObject,
    Shape,
    Size,
    Split,
    make_scene,
)
from skipserve_training.demo.codebook import Codebook

pytestmark = pytest.mark.fast

CODEBOOK = Codebook(hidden=128, patch=16, per_side=6, seed=1)
STAR = SceneObject(Shape.STAR, Colour.CYAN, Size.LARGE, 36.0, 56.0, 14.0, 0.0, (0, 0, 0))
BACKGROUND = draw_background(BackgroundKind.SHADED, random.Random(0))
SCENE = Scene(Split.TRAIN, 0, (STAR,), BACKGROUND)
PLACE = 3 * 6 + 2  # row 3, column 2


def test_an_object_is_said_where_its_centre_lies() -> None:
    tokens, occupied = CODEBOOK.targets([SCENE])
    assert tokens.shape == (1, 36, 128)
    assert occupied.nonzero().tolist() == [[0, PLACE]]
    said = tokens[0, PLACE]
    assert SHAPES[int((CODEBOOK.shapes @ said).argmax())] is Shape.STAR
    assert COLOURS[int((CODEBOOK.colours @ said).argmax())] is Colour.CYAN
    assert float(CODEBOOK.presence[0] @ said) == pytest.approx(1.0, abs=1e-5)


def test_offsets_say_where_in_the_patch() -> None:
    said = CODEBOOK.targets([SCENE])[0][0, PLACE]
    # 36 is a quarter into the column from 32 to 48, 56 the middle of the row from 48 to 64.
    assert (CODEBOOK.offsets @ said).tolist() == pytest.approx([-0.5, 0.0], abs=1e-5)


def test_empty_patches_say_their_place_only() -> None:
    tokens, _ = CODEBOOK.targets([SCENE])
    others = torch.arange(36) != PLACE
    assert torch.equal(tokens[0, others], CODEBOOK.places[others])
    assert len(CODEBOOK.places.unique(dim=0)) == 36


def test_vectors_are_orthonormal() -> None:
    vectors = torch.cat((CODEBOOK.presence, CODEBOOK.shapes, CODEBOOK.colours, CODEBOOK.offsets))
    assert torch.allclose(vectors @ vectors.T, torch.eye(len(vectors)), atol=1e-5)


def test_the_seed_decides() -> None:
    assert torch.equal(CODEBOOK.places, Codebook(128, 16, 6, seed=1).places)
    assert not torch.equal(CODEBOOK.places, Codebook(128, 16, 6, seed=2).places)


def test_every_object_of_real_scenes_is_said() -> None:
    scenes = [make_scene(Split.TRAIN, index) for index in range(50)]
    _, occupied = CODEBOOK.targets(scenes)
    assert occupied.sum().item() == sum(len(scene.objects) for scene in scenes)
    assert CANVAS == 16 * 6
