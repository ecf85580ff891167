"""A modelled replica takes the time that its terms say, worked out by hand."""

import math

import pytest
from fleets.replica import Asked, Replica
from fleets.terms import Terms, Warmth

pytestmark = pytest.mark.fast

_TERMS = Terms(
    seconds={
        "full": {Warmth.NOTHING: 4.0, Warmth.FEATURES: 2.0, Warmth.PAGES: 1.0},
        "light": {Warmth.NOTHING: 3.0, Warmth.FEATURES: 1.5, Warmth.PAGES: 0.5},
    },
    speeds=(1.0, 1.5),
    num_features=2,
    num_pages=2,
    source="by hand",
)


def _asked(number: int, picture: int, policy: str = "full", at: float = 0.0) -> Asked:
    return Asked(number, picture, policy, at)


def test_one_alone_takes_its_seconds() -> None:
    replica = Replica(_TERMS, max_running=2)

    replica.add(_asked(0, 0), 1.0)

    assert replica.next_end() == 5.0
    assert replica.end(5.0).warmth is Warmth.NOTHING
    assert replica.next_end() == math.inf


def test_two_share_the_speed_that_two_have() -> None:
    replica = Replica(_TERMS, max_running=2)
    replica.add(_asked(0, 0), 0.0)
    replica.add(_asked(1, 1), 2.0)

    # Half of the first is done after 2 s alone; then each gets 0.75 of a second in a second.
    assert replica.next_end() == pytest.approx(2 + 2 / 0.75)
    assert replica.end(replica.next_end()).number == 0
    # The second has had as much by then, and goes on alone.
    assert replica.next_end() == pytest.approx(2 + 2 / 0.75 + 2)


def test_what_finds_no_room_waits_and_is_started_then() -> None:
    replica = Replica(_TERMS, max_running=1)
    replica.add(_asked(0, 0), 0.0)
    replica.add(_asked(1, 0), 0.0)

    assert replica.load == 2
    replica.end(4.0)

    # The pages of the first are there by the time at which the second starts.
    assert replica.next_end() == 5.0
    assert replica.end(5.0).warmth is Warmth.PAGES


def test_another_policy_finds_the_features_alone() -> None:
    replica = Replica(_TERMS, max_running=1)
    replica.add(_asked(0, 0), 0.0)
    replica.end(4.0)

    replica.add(_asked(1, 0, "light"), 4.0)

    assert replica.next_end() == 5.5


def test_what_was_used_longest_ago_goes() -> None:
    replica, now = Replica(_TERMS, max_running=1), 0.0
    found = []
    for number, picture in enumerate((0, 1, 0, 2, 0, 1)):
        replica.add(_asked(number, picture), now)
        now = replica.next_end()
        found.append(replica.end(now).warmth)

    assert found == [
        Warmth.NOTHING,
        Warmth.NOTHING,
        Warmth.PAGES,
        Warmth.NOTHING,
        Warmth.PAGES,
        Warmth.NOTHING,
    ]


def test_terms_without_time_are_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        Terms({"full": dict.fromkeys(Warmth, 0.0)}, (1.0,), 1, 1, "")


def test_terms_are_read_as_they_were_written() -> None:
    assert Terms.from_json(_TERMS.as_json()) == _TERMS
