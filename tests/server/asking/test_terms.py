"""Tests of the terms on which questions are taken."""

import pytest

from skipserve.asking.terms import TimeLimits

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("own", "asked", "seconds"),
    [(None, None, None), (None, 5.0, 5.0), (9.0, None, 9.0), (9.0, 5.0, 5.0), (9.0, 20.0, 9.0)],
)
def test_the_shorter_time_holds(own: float | None, asked: float | None, seconds: object) -> None:
    assert TimeLimits(request_seconds=own).deadline(asked) == seconds
