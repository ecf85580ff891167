"""How long cells take."""

import pytest

from skipserve_training.paper import estimate
from skipserve_training.paper.cells import grid

pytestmark = pytest.mark.fast

CELLS = grid()


def test_two_cores_hold_what_is_not_extra_in_six_hours() -> None:
    usual = [cell for cell in CELLS if not cell.is_extra]
    assert sum(map(estimate.seconds, usual)) < 6 * 3600
    assert estimate.in_words(usual).endswith(" h")
    assert estimate.in_words(usual[:1]) == "0 min"
    assert estimate.in_words(usual[:3], pace=2.0).endswith(" min")
