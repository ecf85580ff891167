"""The parts of a step sum to the step."""

import pytest
from splitting.assembling import fit, fit_device, take_reading, uncertainty
from splitting.parts import Part

pytestmark = pytest.mark.fast

PROFILED = dict.fromkeys(Part, 0.0) | {
    Part.ARITHMETIC: 6.0,
    Part.CALLS: 4.0,
    Part.PICTURE: 3.0,
    Part.HOST: 2.0,
}


def test_a_profile_is_scaled_to_the_forward_without_it() -> None:
    parts, ratio = fit(PROFILED, 8.0)
    assert ratio == pytest.approx(1.25)
    assert parts[Part.ARITHMETIC] == pytest.approx(4.8)
    assert sum(parts.values()) == pytest.approx(8.0)
    assert not {Part.PICTURE, Part.HOST} & parts.keys()


def test_on_a_device_the_host_takes_the_rest() -> None:
    parts = fit_device(PROFILED, 20.0)
    assert (parts[Part.ARITHMETIC], parts[Part.HOST]) == (6.0, 7.0)
    assert sum(parts.values()) == pytest.approx(20.0)


@pytest.mark.parametrize(("seconds", "reading", "rest"), [(2.0, 2.0, 4.0), (9.0, 6.0, 0.0)])
def test_reading_comes_out_of_the_products(seconds: float, reading: float, rest: float) -> None:
    parts = take_reading(PROFILED, seconds)
    assert (parts[Part.WEIGHTS], parts[Part.ARITHMETIC]) == (reading, rest)
    assert sum(parts.values()) == sum(PROFILED.values())


def test_equal_turns_leave_no_doubt() -> None:
    assert uncertainty([0.5, 0.5, 0.5]) == 0
    assert uncertainty([0.4, 0.5, 0.6, 0.7]) == pytest.approx(1.57 * 0.15 / 2)
