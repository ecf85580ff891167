"""Tests of what was made lately."""

import pytest

from skipserve.grammar.cache import LatestCache

pytestmark = pytest.mark.fast


def test_what_was_used_longest_ago_goes_first() -> None:
    cache: LatestCache[str, int] = LatestCache(max_entries=2, max_bytes=100)
    cache.put("a", 1, 10)
    cache.put("b", 2, 10)
    assert cache.get("a") == 1
    cache.put("c", 3, 10)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)
    assert len(cache) == 2


def test_bytes_are_bounded() -> None:
    cache: LatestCache[str, int] = LatestCache(max_entries=9, max_bytes=100)
    cache.put("a", 1, 60)
    cache.put("a", 2, 50)
    assert cache.num_bytes == 50
    cache.put("b", 3, 51)
    assert (cache.get("a"), cache.get("b")) == (None, 3)
    cache.put("c", 4, 101)
    assert (len(cache), cache.num_bytes) == (0, 0)
