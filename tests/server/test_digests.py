"""Fields that are put into one digest cannot be mistaken for other fields."""

import hashlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from skipserve.digests import digest_of, frame

pytestmark = pytest.mark.fast

# Short ones of few letters: lists that read the same without framing are drawn often.
FIELDS = st.lists(st.text("ab\0", max_size=3).map(str.encode), max_size=4)
LENGTH = b"\1" + bytes(7)


@given(FIELDS, FIELDS)
@example([b"ab", b"c"], [b"a", b"bc"])
@example([b"a"], [b"a", b""])
@example([], [b""])
@example([b"a", b"b"], [b"a" + LENGTH + b"b"])
@example([LENGTH + b"a"], [b"a"])
def test_only_equal_fields_read_the_same(one: list[bytes], other: list[bytes]) -> None:
    assert (frame(*one) == frame(*other)) == (one == other)
    assert (digest_of(*one) == digest_of(*other)) == (one == other)


@given(FIELDS, FIELDS, FIELDS, FIELDS)
def test_frames_within_frames_keep_their_borders(
    a: list[bytes], b: list[bytes], c: list[bytes], d: list[bytes]
) -> None:
    is_same = frame(frame(*a), frame(*b)) == frame(frame(*c), frame(*d))
    assert is_same == ((a, b) == (c, d))


def test_a_digest_is_sha256_of_lengths_and_fields() -> None:
    expected = hashlib.sha256(LENGTH + b"a" + bytes(8)).digest()
    assert digest_of(b"a", b"") == expected
