"""What was made lately, by what it was made from, within bounds."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LatestCache(Generic[K, V]):
    """Keeps what was used last.

    Attributes:
        num_bytes: of all that is kept, as whoever puts it in says.

    Args:
        max_entries: so many are kept at most.
        max_bytes: and so many bytes.
    """

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self.num_bytes = 0
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._kept: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: K) -> V | None:
        """Return what is kept, which is then the one used last; None if it is not."""
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key][0]

    def put(self, key: K, value: V, num_bytes: int) -> None:
        """Keep something, and let go of what was not used for longest."""
        if key in self._kept:
            self.num_bytes -= self._kept.pop(key)[1]
        self._kept[key] = value, num_bytes
        self.num_bytes += num_bytes
        while len(self._kept) > self._max_entries or self.num_bytes > self._max_bytes:
            _, (_, freed) = self._kept.popitem(last=False)
            self.num_bytes -= freed
