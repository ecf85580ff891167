"""The counter-based generator: the published vectors, and what `uniform` makes of it."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from skipserve.engine.philox import philox, uniform

pytestmark = pytest.mark.fast

ONES = "ffffffff"


def _words(text: str) -> NDArray[np.uint32]:
    return np.array([int(word, 16) for word in text.split()], np.uint32)[:, None]


@pytest.mark.parametrize(
    ("counter", "key", "wanted"),
    [
        ("0 0 0 0", "0 0", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        (" ".join([ONES] * 4), " ".join([ONES] * 2), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_the_known_answers_of_random123(counter: str, key: str, wanted: str) -> None:
    several = philox(np.repeat(_words(counter), 3, axis=1), np.repeat(_words(key), 3, axis=1))
    assert (several == _words(wanted)).all()


def test_seed_is_the_key_and_position_the_counter() -> None:
    seed, position = 2**63 + 5, 2**40 + 7
    words = philox(
        np.array([[7], [2**8], [0], [0]], np.uint32), np.array([[5], [2**31]], np.uint32)
    )[:, 0].tolist()
    (number,) = uniform(np.array([seed], np.uint64), np.array([position]))
    assert number == ((words[0] << 32 | words[1]) >> 11) / 2**53


def test_each_choice_has_numbers_of_its_own() -> None:
    seeds, positions = np.full(64, 5, np.uint64), np.arange(64)
    first, second = (uniform(seeds, positions, np.full(64, choice)) for choice in (0, 1))
    assert (first == uniform(seeds, positions)).all()
    assert not (first == second).any()
    mixed = uniform(seeds, positions, np.arange(64) % 2)
    assert (mixed == np.where(np.arange(64) % 2, second, first)).all()


def test_numbers_are_uniform_and_distinct() -> None:
    seeds, positions = np.divmod(np.arange(10_000), 100)
    numbers = uniform(seeds.astype(np.uint64), positions)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts, _ = np.histogram(numbers, bins=10, range=(0, 1))
    assert np.abs(counts - 1000).max() < 4 * math.sqrt(1000)
    assert len(set(numbers.tolist())) == 10_000


def test_no_rows() -> None:
    assert uniform(np.zeros(0, np.uint64), np.zeros(0, np.int64)).shape == (0,)
