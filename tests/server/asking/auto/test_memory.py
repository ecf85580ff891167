"""What is remembered of earlier requests, and what is forgotten first."""

import pytest

from skipserve.asking.auto.memory import Conversations, SeenImages, WarmPrefixes
from skipserve.asking.auto.traces import Mark

pytestmark = pytest.mark.fast

FULL, SKIP = b"full", b"skip"


def marks(name: str, *ends: tuple[int, int]) -> tuple[Mark, ...]:
    return tuple(Mark(f"{name}{end}".encode(), *end) for end in ends)


CAT = marks("cat", (16, 0), (20, 1), (36, 1))
DOG = marks("dog", (16, 0), (20, 1))


def test_pages_are_warm_for_what_computed_them() -> None:
    warm = WarmPrefixes()
    warm.note(FULL, CAT[:2], 10, 100)
    assert warm.last(FULL, CAT) == CAT[1]
    assert warm.last(FULL, CAT[:1]) == CAT[0]
    assert warm.last(SKIP, CAT) is None
    assert warm.last(FULL, DOG) is None


def test_as_much_is_remembered_as_the_pages_hold() -> None:
    warm = WarmPrefixes()
    warm.note(FULL, CAT, 10, 80)
    warm.note(FULL, DOG, 10, 80)
    assert (warm.last(FULL, CAT), warm.last(FULL, DOG)) == (CAT[2], DOG[1])
    warm.note(SKIP, DOG[:1], 10, 80)
    # The end of what was used longest ago goes first.
    assert warm.last(FULL, CAT) == CAT[1]
    warm.note(FULL, CAT[:1], 10, 80)
    warm.note(SKIP, CAT, 10, 80)
    assert warm.last(FULL, CAT) == CAT[0]
    assert (warm.last(FULL, DOG), warm.last(SKIP, CAT)) == (None, CAT[2])


def test_nothing_is_warm_where_no_page_is_reused() -> None:
    warm = WarmPrefixes()
    warm.note(FULL, CAT, 10, 0)
    assert warm.last(FULL, CAT) is None


def test_what_is_noted_again_counts_once() -> None:
    warm = WarmPrefixes()
    for _ in range(9):
        warm.note(FULL, CAT, 10, 46)
    assert warm.last(FULL, CAT) == CAT[2]


def test_conversations_that_nobody_goes_on_with_are_forgotten() -> None:
    talks = Conversations(most=2)
    talks.note(b"a", "full")
    talks.note(b"b", "skip")
    assert talks.find([b"unknown", b"b", b"a"]) == "skip"
    talks.note(b"c", "full")
    assert (talks.find([b"a"]), talks.find([b"b"]), talks.find([])) == (None, "skip", None)


def test_pictures_are_forgotten_too() -> None:
    seen = SeenImages(most=1)
    seen.note(b"cat")
    assert b"cat" in seen
    seen.note(b"dog")
    assert b"cat" not in seen
