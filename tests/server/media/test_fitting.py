"""Tests of what is known of a picture from its size alone; test_preprocess compares the pixels."""

from dataclasses import replace

import pytest
from pictures import random_picture

from skipserve.errors import UnusableImageError
from skipserve.media.fitting import Fitting

pytestmark = pytest.mark.fast

SIDE = 28
SHORTEST = Fitting(SIDE, None, {"shortest_edge": SIDE}, 3, True, 1_000_000)
PADDED = replace(SHORTEST, background=(0, 0, 0))
FIXED = replace(SHORTEST, size={"height": SIDE, "width": SIDE}, crops=False)


@pytest.mark.parametrize(
    ("fitting", "size", "num_pixels"),
    [
        (SHORTEST, (40, 30), 1200),
        (SHORTEST, (1, 100), 28 * 2800),
        (PADDED, (100, 10), 100 * 100),
        (FIXED, (1, 1000), 28 * 1000),
        (FIXED, (1000, 1), 28 * 1000),
    ],
)
def test_the_most_pixels_on_the_way(
    fitting: Fitting, size: tuple[int, int], num_pixels: int
) -> None:
    assert fitting.num_pixels(*size, "p") == num_pixels


@pytest.mark.parametrize("fitting", [SHORTEST, PADDED, FIXED])
@pytest.mark.parametrize("size", [(1, 40_000_000), (40_000_000, 1)])
def test_s20_what_is_too_thin_is_known_by_its_size(fitting: Fitting, size: tuple[int, int]) -> None:
    with pytest.raises(UnusableImageError, match="too thin") as caught:
        fitting.num_pixels(*size, "messages[0]")
    assert caught.value.param == "messages[0]"


def test_of_what_nothing_would_be_left_is_known_when_it_is_upright() -> None:
    """Whether a picture lies or stands is not always known before it is decoded."""
    fitting = replace(SHORTEST, size={"max_height": 200, "max_width": 10})
    with pytest.raises(UnusableImageError, match="too thin"):
        fitting.fit(random_picture(200, 1), "p")
    assert fitting.num_pixels(200, 1, "p") == 200
