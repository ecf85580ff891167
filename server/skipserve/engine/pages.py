"""Which pages of the K/V cache are held, free, or kept for reuse. Knows page ids, no tensor."""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations


class OutOfPagesError(Exception):
    """More pages are wanted than can be had."""


@dataclass(frozen=True, slots=True)
class PageKey:
    """What the keys and values of a page were computed from.

    Attributes:
        digest: of all that they depend on, 32 bytes.
        parent: digest of the page before; for the first page that of the root.
        token_ids: of the page, int32 little endian.
    """

    digest: bytes
    parent: bytes
    token_ids: bytes


class PagePool:
    """All pages of a cache; each is either used (held by a request), free, or cached.

    Args:
        num_pages: how many there are.
        page_size: positions of each.
    """

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.num_pages = num_pages
        self.page_size = page_size
        self.num_evictions = 0
        self._holds = [0] * num_pages
        # Those that were never used come before those that were given up singly.
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(num_pages))
        # Least recently used first.
        self._cached: OrderedDict[int, None] = OrderedDict()
        self._keys: dict[int, PageKey] = {}
        self._index: dict[bytes, int] = {}

    @property
    def num_available(self) -> int:
        """Pages that could be allocated now."""
        return len(self._free) + len(self._cached)

    @property
    def num_used(self) -> int:
        """Pages that someone holds."""
        return self.num_pages - self.num_available

    @property
    def num_cached(self) -> int:
        """Pages that nobody holds, kept for reuse."""
        return len(self._cached)

    def allocate(self, count: int, after: int | None = None) -> list[int]:
        """Return pages to write on, each with one hold.

        They are neighbours in ascending order as far as free ones are: attention reads those
        faster.

        Args:
            count: how many.
            after: the page which the first of them should be next to.

        Raises:
            OutOfPagesError: there are not so many; none was taken.
        """
        if count > self.num_available:
            raise OutOfPagesError(f"{count} pages are wanted, {self.num_available} can be had")
        while len(self._free) < count:
            self._evict()
        pages: list[int] = []
        while len(pages) < count:
            after = self._take_free(after, count - len(pages))
            pages.append(after)
        return pages

    def release(self, pages: Iterable[int]) -> None:
        """Give up one hold of each page of a sequence, which come in the sequence's order.

        A page without holders is cached if it was published, else it is free. The last pages are
        given up for others first: without the pages before it a page cannot be matched.
        """
        for page in reversed(list(pages)):
            assert self._holds[page] > 0, f"page {page} is not held"
            self._holds[page] -= 1
            if self._holds[page] == 0:
                kept = self._cached if page in self._keys else self._free
                kept[page] = None

    def match(self, keys: Iterable[PageKey]) -> list[int]:
        """Return the pages published under the first keys, up to the first key without one.

        Each gets a hold. No key is asked for beyond that.
        """
        pages = []
        for key in keys:
            page = self._index.get(key.digest)
            if page is None or self._keys[page] != key:
                break
            self._cached.pop(page, None)
            self._holds[page] += 1
            pages.append(page)
        return pages

    def publish(self, page: int, key: PageKey) -> None:
        """Let others match a held page that is full and computed.

        Nothing happens if another page has that key already.
        """
        assert self._holds[page] > 0, f"page {page} is not held"
        assert self._keys.get(page, key) == key, f"page {page} is published under another key"
        if self._index.setdefault(key.digest, page) == page:
            self._keys[page] = key

    def check(self, held: Iterable[Sequence[int]]) -> list[str]:
        """Return what is wrong with the bookkeeping; nothing in a sound pool.

        Args:
            held: the pages of each holder.
        """
        return [*self._hold_faults(held), *self._place_faults(), *self._index_faults()]

    def _evict(self) -> None:
        page, _ = self._cached.popitem(last=False)
        del self._index[self._keys.pop(page).digest]
        self._free[page] = None
        self.num_evictions += 1

    def _take_free(self, after: int | None, count: int) -> int:
        page = -1 if after is None else after + 1
        if page not in self._free:
            page = self._run_start(count)
        del self._free[page]
        self._holds[page] = 1
        return page

    def _run_start(self, count: int) -> int:
        """Return the first of up to `count` free neighbours; the last of them comes next in line.

        The pages of a victim are evicted last ones first.
        """
        page = next(iter(self._free))
        first = page
        while first - 1 in self._free and page - first < count - 1:
            first -= 1
        return first

    def _hold_faults(self, held: Iterable[Sequence[int]]) -> Iterator[str]:
        found: Counter[int] = Counter()
        for pages in held:
            if len(set(pages)) < len(pages):
                yield f"one holder has a page twice: {list(pages)}"
            found.update(pages)
        counted = {page: count for page, count in enumerate(self._holds) if count}
        for page in sorted(found.keys() | counted.keys()):
            if counted.get(page, 0) != found[page]:
                yield f"page {page} counts {counted.get(page, 0)} holds, {found[page]} hold it"

    def _place_faults(self) -> Iterator[str]:
        places = {
            "used": {page for page, count in enumerate(self._holds) if count},
            "free": self._free.keys(),
            "cached": self._cached.keys(),
        }
        for (one, pages), (other, others) in combinations(places.items(), 2):
            yield from (f"page {page} is {one} and {other}" for page in sorted(pages & others))
        everywhere = set[int]().union(*places.values())
        existing = set(range(self.num_pages))
        yield from (f"page {page} is lost" for page in sorted(existing - everywhere))
        yield from (f"page {page} does not exist" for page in sorted(everywhere - existing))

    def _index_faults(self) -> Iterator[str]:
        for page in sorted(self._free.keys() & self._keys.keys()):
            yield f"page {page} is free but published"
        for page in sorted(self._cached.keys() - self._keys.keys()):
            yield f"page {page} is cached but not published"
        for page, key in self._keys.items():
            if self._index.get(key.digest) != page:
                yield f"page {page} is published but not found under its key"
        for digest, page in self._index.items():
            if page not in self._keys or self._keys[page].digest != digest:
                yield f"page {page} is found under a key that it does not have"
