"""The generator: repeatable, disjoint by split, and what the pictures show."""

import math
from collections import Counter

import numpy as np
import pytest

from skipserve_client.evaluate.backgrounds import (
    BACKGROUND_KINDS,
    MIN_CONTRAST,
    BackgroundKind,
)
from skipserve_client.evaluate.scenes import (
    CANVAS,
    COLOURS,
    MAX_OBJECTS,
    SHAPES,
    SIZES,
    Colour,
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
            assert np.abs(picture[_inside(item)] - item.rgb).max() <= 15


@pytest.mark.parametrize("split", list(Split))
def test_every_kind_of_background_comes_up_alike(split: Split) -> None:
    kinds = Counter(scene.background.kind for scene in _scenes(split, 1000))
    assert set(kinds) == set(BACKGROUND_KINDS)
    assert all(150 < count < 250 for count in kinds.values())


def test_a_scene_can_be_kept_to_some_kinds() -> None:
    kind = BackgroundKind.LIGHT_PLAIN
    for index in range(20):
        assert make_scene(Split.TRAIN, index, (kind,)).background.kind is kind


@pytest.mark.parametrize("kind", BACKGROUND_KINDS)
def test_every_object_stands_out(kind: BackgroundKind) -> None:
    for index in range(200):
        scene = make_scene(Split.TRAIN, index, (kind,))
        assert scene.objects
        picture = np.asarray(scene.render()).astype(int)
        for item in scene.objects:
            assert scene.background.contrast(item.rgb) >= MIN_CONTRAST
            seen = np.linalg.norm(picture[_inside(item)] - picture[_beside(scene)])
            assert seen > 30  # what is left of it under the strongest grain


def test_nothing_white_lies_on_white() -> None:
    scenes = [make_scene(Split.TRAIN, index, (BackgroundKind.LIGHT_PLAIN,)) for index in range(300)]
    on_white = [scene for scene in scenes if scene.background.ends[0] == (255, 255, 255)]
    colours = {item.colour for scene in on_white for item in scene.objects}
    assert colours == set(COLOURS) - {Colour.WHITE}


def _beside(scene: Scene) -> tuple[int, int]:
    """Find a pixel that no object reaches."""
    for y in range(0, CANVAS, 6):
        for x in range(0, CANVAS, 6):
            if all(math.hypot(x - item.x, y - item.y) > item.radius + 2 for item in scene.objects):
                return y, x
    raise AssertionError("the objects cover everything")
