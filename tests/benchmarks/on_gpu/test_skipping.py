"""What policies should gain."""

import pytest
from on_gpu.skipping import gain_target

pytestmark = pytest.mark.fast


def test_large_gains_are_to_be_reached_and_small_ones_not_lost() -> None:
    assert gain_target(1.18) == pytest.approx(0.95 * 1.18)
    assert gain_target(1.05) == 0.98
    assert gain_target(1.0) == 0.98
