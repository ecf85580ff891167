"""What policies should gain."""

import pytest
from on_gpu.skipping import gain_in_turns, gain_target

pytestmark = pytest.mark.fast


def test_large_gains_are_to_be_reached_and_small_ones_not_lost() -> None:
    assert gain_target(1.18) == pytest.approx(0.95 * 1.18)
    assert gain_target(1.05) == 0.98
    assert gain_target(1.0) == 0.98


def test_a_gain_is_that_of_neighbours_and_the_first_pair_warms_up() -> None:
    full, skipping = iter([99.0, 4.0, 6.0, 8.0]), iter([1.0, 2.0, 4.0, 2.0])
    gain, spread = gain_in_turns(lambda: next(full), lambda: next(skipping), 3)
    assert gain == 2.0
    assert spread == pytest.approx(0.25)
