"""Which pages are held, free or cached: against a naive model, and with poked bookkeeping."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count, pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from skipserve.engine.pages import OutOfPagesError, PageKey, PagePool

pytestmark = pytest.mark.fast

NUM_PAGES = 9


def keys(content: str) -> list[PageKey]:
    """Return the keys of a sequence whose pages hold one letter each."""
    digests = [content[:length].encode() for length in range(len(content) + 1)]
    return [PageKey(digest, parent, digest[-1:]) for parent, digest in pairwise(digests)]


def publish(pool: PagePool, pages: list[int], content: str) -> None:
    for page, key in zip(pages, keys(content), strict=True):
        pool.publish(page, key)


def written(pool: PagePool, content: str) -> list[int]:
    """Allocate and publish the pages of a sequence."""
    pages = pool.allocate(len(content))
    publish(pool, pages, content)
    return pages


def counts(pool: PagePool) -> tuple[int, int, int]:
    return pool.num_used, pool.num_cached, pool.num_available


# --- where pages come from


def test_pages_of_an_empty_pool_are_neighbours() -> None:
    pool = PagePool(NUM_PAGES, 16)
    assert pool.allocate(3) == [0, 1, 2]
    assert pool.allocate(2) == [3, 4]
    assert counts(pool) == (5, 0, 4)


def test_a_sequence_grows_next_to_its_last_page() -> None:
    pool = PagePool(NUM_PAGES, 16)
    first, other, rest = pool.allocate(2), pool.allocate(2), pool.allocate(5)
    pool.release(other)
    pool.release(rest)
    assert pool.allocate(2, after=first[-1]) == other
    assert pool.allocate(3, after=rest[0]) == rest[1:4]


def test_a_released_run_is_handed_out_as_a_run() -> None:
    pool = PagePool(NUM_PAGES, 16)
    pages = pool.allocate(NUM_PAGES)
    pool.release(pages[2:6])
    assert pool.allocate(4) == pages[2:6]


def test_evicted_pages_are_handed_out_as_a_run() -> None:
    pool = PagePool(NUM_PAGES, 16)
    pages = written(pool, "abcdefghi")
    pool.release(pages)
    assert pool.allocate(4) == pages[5:]
    assert pool.num_evictions == 4


def test_the_page_after_the_last_is_not_asked_for() -> None:
    pool = PagePool(2, 16)
    assert pool.allocate(1, after=1) == [0]


def test_free_pages_are_taken_before_cached_ones() -> None:
    pool = PagePool(4, 16)
    pool.release(written(pool, "ab"))
    assert pool.allocate(2) == [2, 3]
    assert (pool.num_evictions, pool.num_cached) == (0, 2)


def test_too_many_pages_are_refused_and_none_is_taken() -> None:
    pool = PagePool(4, 16)
    held = pool.allocate(1)
    pool.release(written(pool, "ab"))
    before = counts(pool)
    with pytest.raises(OutOfPagesError, match="4 pages are wanted, 3 can be had"):
        pool.allocate(4)
    assert counts(pool) == before
    assert pool.num_evictions == 0
    assert pool.check([held]) == []
    assert len(pool.allocate(3)) == 3


def test_nothing_can_be_asked_for() -> None:
    assert PagePool(0, 16).allocate(0) == []


# --- what is found again


def test_published_pages_outlive_their_holder() -> None:
    pool = PagePool(NUM_PAGES, 16)
    pages = written(pool, "abc")
    pool.release(pages)
    assert counts(pool) == (0, 3, NUM_PAGES)
    assert pool.match(keys("abx")) == pages[:2]
    assert counts(pool) == (2, 1, NUM_PAGES - 2)
    assert pool.check([pages[:2]]) == []


def test_pages_that_were_not_published_are_free() -> None:
    pool = PagePool(NUM_PAGES, 16)
    pages = pool.allocate(3)
    publish(pool, pages[:2], "ab")
    pool.release(pages)
    assert counts(pool) == (0, 2, NUM_PAGES)


def test_a_page_is_shared_while_it_is_held() -> None:
    pool = PagePool(NUM_PAGES, 16)
    pages = written(pool, "ab")
    assert pool.match(keys("ab")) == pages
    pool.release(pages)
    assert counts(pool) == (2, 0, NUM_PAGES - 2)
    pool.release(pages)
    assert counts(pool) == (0, 2, NUM_PAGES)


def test_a_match_ends_at_the_first_page_that_is_missing() -> None:
    pool = PagePool(NUM_PAGES, 16)
    pages = pool.allocate(3)
    first, _, third = keys("abc")
    pool.publish(pages[0], first)
    pool.publish(pages[2], third)
    assert pool.match(keys("abc")) == pages[:1]


def test_no_key_is_worked_out_behind_the_first_page_that_is_missing() -> None:
    pool = PagePool(NUM_PAGES, 16)
    written(pool, "ab")
    asked = iter(keys("axyz"))
    pool.match(asked)
    assert list(asked) == keys("axyz")[2:]


@pytest.mark.parametrize("change", [{"parent": b"x"}, {"token_ids": b"x"}])
def test_a_digest_alone_is_not_believed(change: dict[str, bytes]) -> None:
    pool = PagePool(NUM_PAGES, 16)
    written(pool, "a")
    assert pool.match([replace(keys("a")[0], **change)]) == []


def test_of_two_pages_with_one_key_the_first_stays_published() -> None:
    pool = PagePool(NUM_PAGES, 16)
    one, other = written(pool, "a"), written(pool, "a")
    assert pool.match(keys("a")) == one
    pool.release([*one, *one])
    pool.release(other)
    assert counts(pool) == (0, 1, NUM_PAGES)
    assert pool.check([]) == []


def test_publishing_twice_changes_nothing() -> None:
    pool = PagePool(NUM_PAGES, 16)
    pages = written(pool, "a")
    publish(pool, pages, "a")
    assert pool.check([pages]) == []


@pytest.mark.parametrize(
    "misuse",
    [
        lambda pool: pool.release([5]),
        lambda pool: pool.release([0, 0]),
        lambda pool: pool.publish(5, keys("x")[0]),
        lambda pool: pool.publish(0, keys("x")[0]),
    ],
    ids=["release a free page", "release twice", "publish a free page", "publish anew"],
)
def test_misuse_is_caught(misuse: Callable[[PagePool], None]) -> None:
    pool = PagePool(NUM_PAGES, 16)
    written(pool, "a")
    with pytest.raises(AssertionError, match="page"):
        misuse(pool)


# --- what is given up


def test_the_least_recently_used_go_first_and_a_sequences_last_page_before_the_others() -> None:
    pool = PagePool(6, 16)
    for content in ("abc", "xyz"):
        pool.release(written(pool, content))
    pool.release(pool.match(keys("ab")))
    # By now c was used first, then z, y and x, then b and a.
    given_up = [pool.allocate(1)[0] for _ in range(6)]
    assert given_up == [2, 5, 4, 3, 1, 0]
    assert pool.num_evictions == 6
    assert pool.match(keys("a")) == pool.match(keys("x")) == []


def test_a_held_page_is_never_given_up() -> None:
    pool = PagePool(4, 16)
    pages = written(pool, "ab")
    pool.release(written(pool, "xy"))
    assert pool.match(keys("x")) == [2]
    assert pool.allocate(1) == [3]
    with pytest.raises(OutOfPagesError):
        pool.allocate(1)
    assert pool.check([pages, [2], [3]]) == []


# --- the bookkeeping checks itself

POKES: dict[str, Callable[[PagePool], object]] = {
    "page 0 counts 1 holds, 2 hold it": lambda pool: pool._holds.__setitem__(0, 1),
    "page 0 counts 3 holds, 2 hold it": lambda pool: pool._holds.__setitem__(0, 3),
    "page 7 counts 1 holds, 0 hold it": lambda pool: pool._holds.__setitem__(7, 1),
    "page 7 is lost": lambda pool: pool._free.pop(7),
    "page 3 is lost": lambda pool: pool._cached.pop(3),
    "page 0 is used and free": lambda pool: pool._free.__setitem__(0, None),
    "page 1 is used and cached": lambda pool: pool._cached.__setitem__(1, None),
    "page 3 is free and cached": lambda pool: pool._free.__setitem__(3, None),
    "page 99 does not exist": lambda pool: pool._free.__setitem__(99, None),
    "page 7 is free but published": lambda pool: pool._keys.__setitem__(7, keys("q")[0]),
    "page 3 is cached but not published": lambda pool: pool._keys.pop(3),
    "page 4 is published but not found under its key": lambda pool: pool._index.pop(b"xy"),
    "page 1 is found under a key that it does not have": lambda pool: pool._index.__setitem__(
        b"z", 1
    ),
    "page 6 is found under a key that it does not have": lambda pool: pool._index.__setitem__(
        b"z", 6
    ),
}


def _sound_pool() -> tuple[PagePool, list[list[int]]]:
    """Return a pool with used pages 0 (twice), 1 and 2, cached 3 to 5, free 6 to 8; and holders."""
    pool = PagePool(NUM_PAGES, 16)
    held = [written(pool, "abc")]
    pool.release(written(pool, "xyz"))
    return pool, [*held, pool.match(keys("a"))]


def test_a_sound_pool_has_no_faults() -> None:
    pool, held = _sound_pool()
    assert counts(pool) == (3, 3, 6)
    assert pool.check(held) == []


@pytest.mark.parametrize("fault", POKES)
def test_a_fault_in_the_bookkeeping_is_found(fault: str) -> None:
    pool, held = _sound_pool()
    POKES[fault](pool)
    assert fault in pool.check(held)


@pytest.mark.parametrize(
    ("held", "fault"),
    [
        ([[0, 1, 2]], "page 0 counts 2 holds, 1 hold it"),
        ([[0, 1, 2], [0, 4]], "page 4 counts 0 holds, 1 hold it"),
        ([[0, 1, 2], [0, 12]], "page 12 counts 0 holds, 1 hold it"),
        ([[0, 1, 2, 0]], "one holder has a page twice: [0, 1, 2, 0]"),
    ],
)
def test_holders_that_disagree_with_the_pool_are_found(held: list[list[int]], fault: str) -> None:
    pool, _ = _sound_pool()
    assert fault in pool.check(held)


# --- against a naive model


class PoolAndModel(RuleBasedStateMachine):
    """Sequences that write the letters of their content on one page each.

    The model is a list of tables, a dict of what is published, and the order of last use.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pool = PagePool(NUM_PAGES, 16)
        self.tables: list[list[int]] = []
        self.contents: list[str] = []
        self.published: dict[str, int] = {}
        self.last_used: dict[int, int] = {}
        self.clock = count()
        self.num_evictions = 0

    @property
    def held(self) -> set[int]:
        return {page for table in self.tables for page in table}

    @property
    def cached(self) -> list[int]:
        """Return what nobody holds but others may match, least recently used first."""
        pages = set(self.published.values()) - self.held
        return sorted(pages, key=lambda page: self.last_used[page])

    @property
    def free(self) -> set[int]:
        return set(range(NUM_PAGES)) - self.held - set(self.cached)

    @rule(content=st.text("ab", max_size=4))
    def begin(self, content: str) -> None:
        """Start a sequence with all pages that are known of it."""
        known = (self.published.get(content[: i + 1]) for i in range(len(content)))
        expected = list(iter(lambda: next(known, None), None))
        pages = self.pool.match(keys(content))
        assert pages == expected
        self.tables.append(pages)
        self.contents.append(content[: len(pages)])

    @precondition(lambda self: self.tables)
    @rule(data=st.data(), letters=st.text("ab", max_size=4))
    def grow(self, data: st.DataObject, letters: str) -> None:
        """Append pages to a sequence."""
        index = data.draw(st.integers(0, len(self.tables) - 1))
        after = self.tables[index][-1] if self.tables[index] else None
        num_missing = len(letters) - len(self.free)
        if num_missing > len(self.cached):
            with pytest.raises(OutOfPagesError):
                self.pool.allocate(len(letters), after)
            return
        evicted = self.cached[: max(num_missing, 0)]
        allowed = self.free | set(evicted)
        pages = self.pool.allocate(len(letters), after)
        self._check_allocated(pages, after, allowed)
        self.num_evictions += len(evicted)
        self.published = {k: page for k, page in self.published.items() if page not in evicted}
        self.tables[index] += pages
        self.contents[index] += letters

    def _check_allocated(self, pages: list[int], after: int | None, allowed: set[int]) -> None:
        assert len(set(pages)) == len(pages)
        assert set(pages) <= allowed
        for before, page in pairwise([after, *pages]):
            if before is not None and before + 1 in allowed:
                assert page == before + 1
            allowed = allowed - {page}

    @precondition(lambda self: any(self.tables))
    @rule(data=st.data())
    def publish(self, data: st.DataObject) -> None:
        """Publish some page of a sequence, again or in any order."""
        index = data.draw(st.sampled_from([i for i, table in enumerate(self.tables) if table]))
        place = data.draw(st.integers(0, len(self.tables[index]) - 1))
        content = self.contents[index][: place + 1]
        page = self.tables[index][place]
        self.pool.publish(page, keys(content)[-1])
        self.published.setdefault(content, page)

    @precondition(lambda self: self.tables)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """Let go of a sequence."""
        index = data.draw(st.integers(0, len(self.tables) - 1))
        pages = self.tables.pop(index)
        self.contents.pop(index)
        self.pool.release(pages)
        for page in reversed(pages):
            self.last_used[page] = next(self.clock)

    @invariant()
    def counts_agree(self) -> None:
        assert self.pool.num_used == len(self.held)
        assert self.pool.num_cached == len(self.cached)
        assert self.pool.num_available == len(self.free) + len(self.cached)
        assert self.pool.num_evictions == self.num_evictions

    @invariant()
    def the_pool_is_sound(self) -> None:
        assert self.pool.check(self.tables) == []

    def teardown(self) -> None:
        """End all: every page can be had again."""
        for pages in self.tables:
            self.pool.release(pages)
        assert self.pool.check([]) == []
        assert sorted(self.pool.allocate(NUM_PAGES)) == list(range(NUM_PAGES))


PoolAndModel.TestCase.settings = settings(max_examples=150, stateful_step_count=30)
TestPoolAndModel = PoolAndModel.TestCase
