"""Seeded pictures of coloured shapes: the same (split, index) is always the same scene."""

import math
import random
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from PIL import Image, ImageDraw

from skipserve_client.evaluate.backgrounds import (
    BACKGROUND_KINDS,
    MIN_CONTRAST,
    Background,
    BackgroundKind,
    Pixels,
    draw_background,
)

CANVAS = 96
MAX_OBJECTS = 5
_SUPERSAMPLING = 3
_PLACEMENT_TRIES = 40
_GAP = 4.0


class Split(StrEnum):
    """Which scenes: the seeds of the two never meet."""

    TRAIN = "train"
    HELD_OUT = "held-out"


class Shape(StrEnum):
    """What an object is."""

    CIRCLE = "circle"
    SQUARE = "square"
    TRIANGLE = "triangle"
    STAR = "star"


class Colour(StrEnum):
    """How an object is painted; the values are the words of the answers."""

    RED = "red"
    GREEN = "green"
    BLUE = "blue"
    YELLOW = "yellow"
    PURPLE = "purple"
    ORANGE = "orange"
    CYAN = "cyan"
    WHITE = "white"


class Size(StrEnum):
    """How large an object is; the two ranges of radii are far apart."""

    SMALL = "small"
    LARGE = "large"


SHAPES = tuple(Shape)
COLOURS = tuple(Colour)
SIZES = tuple(Size)

_RGB: dict[Colour, tuple[int, int, int]] = {
    Colour.RED: (215, 35, 35),
    Colour.GREEN: (40, 165, 60),
    Colour.BLUE: (40, 70, 220),
    Colour.YELLOW: (240, 220, 40),
    Colour.PURPLE: (140, 45, 170),
    Colour.ORANGE: (245, 135, 25),
    Colour.CYAN: (50, 205, 220),
    Colour.WHITE: (242, 242, 242),
}
_RADII: dict[Size, tuple[float, float]] = {Size.SMALL: (8.0, 9.5), Size.LARGE: (13.0, 15.0)}


@dataclass(frozen=True)
class SceneObject:
    """One shape; `x`, `y` (its centre) and `radius` are in pixels, `rotation` in radians."""

    shape: Shape
    colour: Colour
    size: Size
    x: float
    y: float
    radius: float
    rotation: float
    rgb: tuple[int, int, int]


@dataclass(frozen=True)
class Scene:
    """Objects that do not overlap, before a background that all of them stand out from."""

    split: Split
    index: int
    objects: tuple[SceneObject, ...]
    background: Background

    def render(self) -> Image.Image:
        """Paint the scene as an RGB picture of `CANVAS` by `CANVAS` pixels."""
        backdrop = self.background.paint(CANVAS)
        canvas = backdrop.resize((CANVAS * _SUPERSAMPLING,) * 2, Image.Resampling.NEAREST)
        draw = ImageDraw.Draw(canvas)
        for item in self.objects:
            _draw_object(draw, item)
        pixels: Pixels = np.asarray(canvas.reduce(_SUPERSAMPLING), dtype=np.float32)
        noisy = pixels + self.background.noise(CANVAS)
        return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def make_scene(
    split: Split, index: int, kinds: tuple[BackgroundKind, ...] = BACKGROUND_KINDS
) -> Scene:
    """Draw the scene number `index` of a split, before a background of one of `kinds`."""
    backdrop_rng = random.Random(f"background/{split}/{index}")
    background = draw_background(backdrop_rng.choice(kinds), backdrop_rng)
    rng = random.Random(f"scene/{split}/{index}")
    shapes, colours = _palette(rng)
    wanted = rng.choices(range(1, MAX_OBJECTS + 1), weights=(2, 4, 5, 5, 4))[0]
    placed: list[SceneObject] = []
    for _ in range(_PLACEMENT_TRIES):
        if len(placed) == wanted:
            break
        candidate = _draw_candidate(rng, shapes, colours)
        stands_out = background.contrast(candidate.rgb) >= MIN_CONTRAST
        if stands_out and all(_is_clear(candidate, other) for other in placed):
            placed.append(candidate)
    return Scene(split, index, tuple(placed), background)


def _palette(rng: random.Random) -> tuple[tuple[Shape, ...], tuple[Colour, ...]]:
    """Restrict half of the scenes to few shapes and colours, so that some counts exceed one."""
    if rng.random() < 0.5:
        return SHAPES, COLOURS
    return tuple(rng.sample(SHAPES, 2)), tuple(rng.sample(COLOURS, 2))


def _draw_candidate(
    rng: random.Random, shapes: tuple[Shape, ...], colours: tuple[Colour, ...]
) -> SceneObject:
    colour = rng.choice(colours)
    size = rng.choice(SIZES)
    radius = rng.uniform(*_RADII[size])
    red, green, blue = _RGB[colour]
    return SceneObject(
        shape=rng.choice(shapes),
        colour=colour,
        size=size,
        x=rng.uniform(radius, CANVAS - radius),
        y=rng.uniform(radius, CANVAS - radius),
        radius=radius,
        rotation=rng.uniform(0, 2 * math.pi),
        rgb=(_jittered(rng, red), _jittered(rng, green), _jittered(rng, blue)),
    )


def _jittered(rng: random.Random, level: int) -> int:
    return min(255, max(0, level + rng.randint(-13, 13)))


def _is_clear(one: SceneObject, other: SceneObject) -> bool:
    distance = math.hypot(one.x - other.x, one.y - other.y)
    return distance >= one.radius + other.radius + _GAP


def _draw_object(draw: ImageDraw.ImageDraw, item: SceneObject) -> None:
    x, y, radius = (value * _SUPERSAMPLING for value in (item.x, item.y, item.radius))
    if item.shape is Shape.CIRCLE:
        radius *= 0.88  # the outline of equal area lies inside the polygons' corners
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=item.rgb)
        return
    draw.polygon(
        [
            (x + radius * reach * math.cos(angle), y + radius * reach * math.sin(angle))
            for angle, reach in _outline(item.shape, item.rotation)
        ],
        fill=item.rgb,
    )


def _outline(shape: Shape, rotation: float) -> list[tuple[float, float]]:
    """List the corners of a polygon as (angle, share of the radius)."""
    corners, inner = {Shape.SQUARE: (4, 1.0), Shape.TRIANGLE: (3, 1.0), Shape.STAR: (10, 0.42)}[
        shape
    ]
    return [
        (rotation + 2 * math.pi * corner / corners, inner if corner % 2 and inner < 1 else 1.0)
        for corner in range(corners)
    ]
