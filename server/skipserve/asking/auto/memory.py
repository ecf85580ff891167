"""What is remembered of earlier requests, within bounds: what is warm, and who talks under what."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TypeVar

from skipserve.asking.auto.traces import Mark

Key = TypeVar("Key")
Value = TypeVar("Value")

_MAX_CONVERSATIONS = 4096
_MAX_IMAGES = 1024


class WarmPrefixes:
    """The beginnings of prompts whose pages should be there, as the engine keeps them.

    It is what the front end believes: the engine alone knows. Beyond as many rows as the engine's
    pages have, those that were used longest ago are forgotten, as the engine does.
    """

    def __init__(self) -> None:
        # By what pages depend on besides the prompt, and mark: the rows since the mark before.
        self._rows: OrderedDict[tuple[bytes, bytes], int] = OrderedDict()
        self._num_rows = 0

    def last(self, kind: bytes, marks: Iterable[Mark]) -> Mark | None:
        """Return the last mark up to which a prompt's pages are there; None for none.

        Args:
            kind: what pages depend on besides the prompt: policies that share it share pages.
            marks: of the prompt.
        """
        found = None
        for mark in marks:
            if (kind, mark.digest) not in self._rows:
                break
            found = mark
        return found

    def note(self, kind: bytes, marks: Sequence[Mark], image_rows: int, max_rows: int) -> None:
        """Remember a prompt that was computed.

        Args:
            kind: as above.
            marks: of the prompt.
            image_rows: rows of each of its images.
            max_rows: rows that all pages have.
        """
        ends = [mark.num_rows(image_rows) for mark in marks]
        sizes = [end - begin for begin, end in pairwise((0, *ends))]
        # The last comes first: without its beginning, what is left of a prompt is of no use.
        for mark, size in reversed(list(zip(marks, sizes, strict=True))):
            key = kind, mark.digest
            self._num_rows += size - self._rows.pop(key, 0)
            self._rows[key] = size
        while self._num_rows > max_rows:
            self._num_rows -= self._rows.popitem(last=False)[1]


class Conversations:
    """The policies of conversations: each goes on under the one that was chosen for it."""

    def __init__(self, most: int = _MAX_CONVERSATIONS) -> None:
        self._policies: OrderedDict[bytes, str] = OrderedDict()
        self._most = most

    def find(self, earlier: Iterable[bytes]) -> str | None:
        """Return the policy of the first of these turns that is known."""
        return next((self._policies[turn] for turn in earlier if turn in self._policies), None)

    def note(self, turn: bytes, policy_name: str) -> None:
        """Remember which policy a turn ran under."""
        _put(self._policies, turn, policy_name, self._most)


class SeenImages:
    """Pictures whose features the engine should have."""

    def __init__(self, most: int = _MAX_IMAGES) -> None:
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._most = most

    def __contains__(self, image: bytes) -> bool:
        return image in self._seen

    def note(self, image: bytes) -> None:
        """Remember a picture."""
        _put(self._seen, image, None, self._most)


def _put(entries: OrderedDict[Key, Value], key: Key, value: Value, most: int) -> None:
    """Make an entry the latest, and forget the oldest beyond so many."""
    entries[key] = value
    entries.move_to_end(key)
    if len(entries) > most:
        entries.popitem(last=False)
