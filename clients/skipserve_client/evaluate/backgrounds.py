"""What a scene's shapes lie on: dark or light, plain or textured, drawn from a seed."""

import math
import random
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from PIL import Image

RGB = tuple[int, int, int]
Pixels = NDArray[np.float32]

MIN_CONTRAST = 70.0  # between a shape and its background: a distance in RGB
_DARK, _LIGHT = (0, 95), (170, 255)
_SHADED = (25, 95)
_SHADED_NOISE = 7.0
_MAX_GRAIN = 14.0
_EXTREME_SHARE = 0.4  # of the plain ones: black or white, as people draw them
_GREY_SHARE = 0.5  # of the other levels
_NEAR = 34  # how far apart the two colours of a texture are, at most, on each channel


class BackgroundKind(StrEnum):
    """How bright a background is, and whether it varies."""

    SHADED = "shaded"  # dark greys that run into each other under a little noise
    DARK_PLAIN = "dark, plain"
    DARK_TEXTURED = "dark, textured"
    LIGHT_PLAIN = "light, plain"
    LIGHT_TEXTURED = "light, textured"


BACKGROUND_KINDS = tuple(BackgroundKind)


class Pattern(StrEnum):
    """How a background passes from its one colour to its other."""

    FLAT = "flat"
    CORNERS = "corners"
    GRADIENT = "gradient"
    STRIPES = "stripes"
    CHECKS = "checks"
    BLOTCHES = "blotches"


_TEXTURES = (Pattern.GRADIENT, Pattern.STRIPES, Pattern.CHECKS, Pattern.BLOTCHES)


@dataclass(frozen=True)
class Background:
    """Every pixel lies between two colours, but for the grain.

    Attributes:
        ends: the two colours; equal ones where it is flat.
        angle: of gradients, stripes and checks, in radians.
        period: of stripes and checks in pixels, of blotches as blotches on a side.
        grain: how far noise changes a channel, at most.
        seed: of the corners, of the blotches and of the grain.
    """

    kind: BackgroundKind
    pattern: Pattern
    ends: tuple[RGB, RGB]
    angle: float
    period: float
    grain: float
    seed: int

    def contrast(self, colour: RGB) -> float:
        """Return how near a colour comes to any pixel without grain: a distance in RGB."""
        first, second = (np.array(end, dtype=np.float64) for end in self.ends)
        step = second - first
        length = float(step @ step)
        share = float((np.array(colour) - first) @ step) / length if length else 0.0
        nearest = first + min(1.0, max(0.0, share)) * step
        return float(np.linalg.norm(np.array(colour) - nearest))

    def paint(self, side: int) -> Image.Image:
        """Paint it without its grain."""
        first, second = (np.array(end, dtype=np.float32) for end in self.ends)
        share = self._shares(side)[..., None]
        return Image.fromarray((first + share * (second - first)).round().astype(np.uint8))

    def noise(self, side: int) -> Pixels:
        """Draw what the grain adds to each channel of each pixel, `[side, side, 3]`."""
        uniform = self._generator().random((side, side, 3), dtype=np.float32)
        return (uniform - np.float32(0.5)) * np.float32(2 * self.grain)

    def _shares(self, side: int) -> Pixels:
        """Return how much of the second colour each pixel holds, `[side, side]`."""
        if self.pattern is Pattern.FLAT:
            return np.zeros((side, side), dtype=np.float32)
        if self.pattern in (Pattern.CORNERS, Pattern.BLOTCHES):
            return self._smooth(side)
        across, along = self._axes(side)
        if self.pattern is Pattern.GRADIENT:
            shares: Pixels = (across - across.min()) / np.ptp(across)
            return shares
        waves: Pixels = np.sin(across * np.float32(2 * math.pi / self.period))
        if self.pattern is Pattern.CHECKS:
            waves *= np.sin(along * np.float32(2 * math.pi / self.period))
        return (waves > 0).astype(np.float32)

    def _axes(self, side: int) -> tuple[Pixels, Pixels]:
        rows, columns = np.mgrid[:side, :side].astype(np.float32)
        cosine, sine = np.float32(math.cos(self.angle)), np.float32(math.sin(self.angle))
        return columns * cosine + rows * sine, rows * cosine - columns * sine

    def _smooth(self, side: int) -> Pixels:
        """Draw a few levels, from 0 to 1 at least once each, and interpolate them."""
        knots = 2 if self.pattern is Pattern.CORNERS else round(self.period)
        levels = self._generator().random((knots, knots), dtype=np.float32)
        levels = (levels - levels.min()) / np.ptp(levels)
        small = Image.fromarray(levels)
        return np.asarray(small.resize((side, side), Image.Resampling.BILINEAR))

    def _generator(self) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(self.seed))


def draw_background(kind: BackgroundKind, rng: random.Random) -> Background:
    """Draw a background of one kind."""
    if kind is BackgroundKind.SHADED:
        dark, light = sorted((rng.randint(*_SHADED), rng.randint(*_SHADED)))
        return _background(kind, Pattern.CORNERS, (_grey(dark), _grey(light)), _SHADED_NOISE, rng)
    levels = _DARK if kind in (BackgroundKind.DARK_PLAIN, BackgroundKind.DARK_TEXTURED) else _LIGHT
    if kind in (BackgroundKind.DARK_PLAIN, BackgroundKind.LIGHT_PLAIN):
        colour = _plain_colour(levels, rng)
        return _background(kind, Pattern.FLAT, (colour, colour), 0.0, rng)
    first = _colour(levels, rng)
    second = _near(first, levels, rng)
    grain = rng.uniform(0.0, _MAX_GRAIN)
    return _background(kind, rng.choice(_TEXTURES), (first, second), grain, rng)


def _background(
    kind: BackgroundKind,
    pattern: Pattern,
    ends: tuple[RGB, RGB],
    grain: float,
    rng: random.Random,
) -> Background:
    return Background(
        kind=kind,
        pattern=pattern,
        ends=ends,
        angle=rng.uniform(0, 2 * math.pi),
        period=rng.uniform(4.0, 24.0),
        grain=grain,
        seed=rng.getrandbits(63),
    )


def _plain_colour(levels: tuple[int, int], rng: random.Random) -> RGB:
    if rng.random() < _EXTREME_SHARE:
        return _grey(0 if levels is _DARK else 255)
    return _colour(levels, rng)


def _colour(levels: tuple[int, int], rng: random.Random) -> RGB:
    if rng.random() < _GREY_SHARE:
        return _grey(rng.randint(*levels))
    return rng.randint(*levels), rng.randint(*levels), rng.randint(*levels)


def _near(colour: RGB, levels: tuple[int, int], rng: random.Random) -> RGB:
    """Draw a colour that differs a little, on every channel in a way of its own."""
    red, green, blue = (
        min(levels[1], max(levels[0], level + rng.randint(-_NEAR, _NEAR))) for level in colour
    )
    return red, green, blue


def _grey(level: int) -> RGB:
    return level, level, level
