"""How long cells take."""

import pytest

from skipserve_training.paper import estimate
from skipserve_training.paper.cells import grid

pytestmark = pytest.mark.fast

CELLS = grid()


def test_two_cores_hold_what_is_not_extra_in_six_hours() -> None:
    usual = [cell for cell in CELLS if not cell.is_extra]
    assert sum(map(estimate.seconds, usual)) < 6 * 3600


@pytest.mark.parametrize(
    ("seconds", "words"), [(14.4, "14 s"), (90, "2 min"), (5_900, "98 min"), (7_000, "1.9 h")]
)
def test_times_are_told_in_words(seconds: float, words: str) -> None:
    assert estimate.in_words(seconds) == words
