"""Which frames are shown, against numpy."""

import numpy as np
import pytest

from skipserve.media.frames import pick_frames

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("wanted", [2, 8])
def test_frames_are_as_far_apart_as_can_be(wanted: int) -> None:
    for count in range(wanted, 300):
        chosen = pick_frames(count, wanted)
        assert list(chosen) == np.linspace(0, count - 1, wanted).round().astype(int).tolist()
        assert len(set(chosen)) == wanted
