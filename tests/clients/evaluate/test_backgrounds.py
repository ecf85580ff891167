"""Backgrounds: fixed by their seed, dark or light, plain or not, and how far colours stand out."""

import random

import numpy as np
import pytest
from numpy.typing import NDArray

from skipserve_client.evaluate.backgrounds import (
    BACKGROUND_KINDS,
    Background,
    BackgroundKind,
    Pattern,
    draw_background,
)

pytestmark = pytest.mark.fast

SIDE = 96
LIGHT = (BackgroundKind.LIGHT_PLAIN, BackgroundKind.LIGHT_TEXTURED)
PLAIN = (BackgroundKind.DARK_PLAIN, BackgroundKind.LIGHT_PLAIN)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def _drawn(kind: BackgroundKind, count: int = 60) -> list[Background]:
    return [draw_background(kind, random.Random(f"{kind}/{number}")) for number in range(count)]


def _pixels(background: Background) -> NDArray[np.int64]:
    return np.asarray(background.paint(SIDE)).astype(np.int64)


def _between(first: tuple[int, int, int], second: tuple[int, int, int]) -> Background:
    return Background(
        BackgroundKind.LIGHT_TEXTURED, Pattern.GRADIENT, (first, second), 0.0, 8.0, 0.0, 1
    )


@pytest.mark.parametrize("kind", BACKGROUND_KINDS)
def test_a_seed_decides(kind: BackgroundKind) -> None:
    first, again, other = (draw_background(kind, random.Random(seed)) for seed in (3, 3, 4))
    assert first == again
    assert first.paint(SIDE).tobytes() == again.paint(SIDE).tobytes()
    assert np.array_equal(first.noise(SIDE), again.noise(SIDE))
    assert first != other


@pytest.mark.parametrize("kind", BACKGROUND_KINDS)
def test_light_and_dark_do_not_meet(kind: BackgroundKind) -> None:
    for background in _drawn(kind):
        pixels = _pixels(background)
        if kind in LIGHT:
            assert pixels.min() >= 170
        else:
            assert pixels.max() <= 95


@pytest.mark.parametrize("kind", BACKGROUND_KINDS)
def test_only_plain_ones_are_of_one_colour(kind: BackgroundKind) -> None:
    for background in _drawn(kind):
        varies = bool(np.ptp(_pixels(background) + background.noise(SIDE), axis=(0, 1)).any())
        assert varies is (kind not in PLAIN)


def test_plain_ones_are_often_white_or_black_and_sometimes_coloured() -> None:
    for kind, extreme in ((BackgroundKind.LIGHT_PLAIN, WHITE), (BackgroundKind.DARK_PLAIN, BLACK)):
        colours = [background.ends[0] for background in _drawn(kind)]
        assert 15 <= colours.count(extreme) <= 35
        assert any(len(set(colour)) == 3 for colour in colours)


def test_all_textures_are_drawn_and_differ() -> None:
    drawn = _drawn(BackgroundKind.LIGHT_TEXTURED)
    by_pattern = {background.pattern: background for background in drawn}
    assert set(by_pattern) == set(Pattern) - {Pattern.FLAT, Pattern.CORNERS}
    assert len({background.paint(SIDE).tobytes() for background in drawn}) == len(drawn)


@pytest.mark.parametrize("pattern", [Pattern.STRIPES, Pattern.CHECKS])
def test_stripes_and_checks_have_two_colours_and_nothing_between(pattern: Pattern) -> None:
    background = Background(
        BackgroundKind.LIGHT_TEXTURED, pattern, (WHITE, (230, 240, 250)), 0.7, 9.0, 0.0, 1
    )
    colours = np.unique(_pixels(background).reshape(-1, 3), axis=0).tolist()
    assert colours == [[230, 240, 250], [255, 255, 255]]


def test_a_gradient_reaches_both_ends() -> None:
    pixels = _pixels(_between((200, 200, 200), (240, 220, 200)))
    assert pixels.min(axis=(0, 1)).tolist() == [200, 200, 200]
    assert pixels.max(axis=(0, 1)).tolist() == [240, 220, 200]


def test_noise_stays_within_the_grain() -> None:
    background = _drawn(BackgroundKind.SHADED, 1)[0]
    noise = background.noise(SIDE)
    assert 0.9 * background.grain < np.abs(noise).max() <= background.grain


def test_contrast_is_the_distance_to_the_nearest_colour_between_the_ends() -> None:
    flat = _between(WHITE, WHITE)
    assert flat.contrast(WHITE) == 0.0
    assert flat.contrast((255, 255, 155)) == pytest.approx(100.0)
    sloped = _between((200, 200, 200), (220, 200, 200))
    assert sloped.contrast((210, 200, 150)) == pytest.approx(50.0)  # at its middle
    assert sloped.contrast((250, 200, 200)) == pytest.approx(30.0)  # beyond its end
    assert sloped.contrast((170, 200, 200)) == pytest.approx(30.0)
