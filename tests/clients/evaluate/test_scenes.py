"""The generator: repeatable, disjoint by split, and what the pictures show."""

import math

import numpy as np
import pytest

from skipserve_client.evaluate.scenes import (
    CANVAS,
    COLOURS,
    MAX_OBJECTS,
    SHAPES,
    SIZES,
    Scene,
    SceneObject,
    Split,
    make_scene,
)

pytestmark = pytest.mark.fast


def _scenes(split: Split, count: int = 200) -> list[Scene]:
    return [make_scene(split, index) for index in range(count)]


def _inside(item: SceneObject) -> tuple[int, int]:
    return min(int(item.y), CANVAS - 1), min(int(item.x), CANVAS - 1)


def test_the_same_number_is_the_same_scene() -> None:
    assert make_scene(Split.TRAIN, 7) == make_scene(Split.TRAIN, 7)
    assert make_scene(Split.TRAIN, 7).render().tobytes() == (
        make_scene(Split.TRAIN, 7).render().tobytes()
    )


def test_scene_zero_is_pinned() -> None:
    # A change here makes another data set: retrain, and measure again.
    described = [
        (item.size, item.colour, item.shape) for item in make_scene(Split.TRAIN, 0).objects
    ]
    assert described == [("small", "white", "star"), ("small", "white", "square")]
    assert make_scene(Split.TRAIN, 0).objects[0].x == pytest.approx(11.343292141021363)


def test_splits_share_no_scene() -> None:
    train = {scene.objects for scene in _scenes(Split.TRAIN)}
    held_out = {scene.objects for scene in _scenes(Split.HELD_OUT)}
    assert not train & held_out


def test_scenes_use_everything() -> None:
    items = [item for scene in _scenes(Split.TRAIN) for item in scene.objects]
    assert {item.shape for item in items} == set(SHAPES)
    assert {item.colour for item in items} == set(COLOURS)
    assert {item.size for item in items} == set(SIZES)
    assert {len(scene.objects) for scene in _scenes(Split.TRAIN)} == set(range(1, MAX_OBJECTS + 1))


def test_objects_are_whole_and_apart() -> None:
    for scene in _scenes(Split.TRAIN):
        for number, item in enumerate(scene.objects):
            assert item.radius <= item.x <= CANVAS - item.radius
            assert item.radius <= item.y <= CANVAS - item.radius
            for other in scene.objects[:number]:
                distance = math.hypot(item.x - other.x, item.y - other.y)
                assert distance > item.radius + other.radius


def test_a_picture_shows_each_object_in_its_colour() -> None:
    for scene in _scenes(Split.TRAIN, 40):
        picture = np.asarray(scene.render()).astype(int)
        assert picture.shape == (CANVAS, CANVAS, 3)
        for item in scene.objects:
            assert np.abs(picture[_inside(item)] - item.rgb).max() <= 12
