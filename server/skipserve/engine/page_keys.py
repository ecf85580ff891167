"""Names the pages of a sequence by all that their keys and values depend on."""

import hashlib
from collections.abc import Iterator, Sequence
from struct import pack

import numpy as np
from numpy.typing import NDArray

from skipserve.digests import digest_of, frame
from skipserve.engine.pages import PageKey
from skipserve.engine.request import Request
from skipserve_policies.plan import TokenClass

_DIGEST_SIZE = 32
_ID_SIZE = 4


def find_visual(request: Request, image_token_id: int) -> NDArray[np.int64]:
    """Return the prompt rows that show an image, [N], ascending, whatever their classes."""
    return np.flatnonzero(request.prompt_array == image_token_id)


class PageKeys:
    """The keys of one sequence's pages; two keys are equal iff the pages are computed alike.

    That is: from the same tokens and image rows at the same positions, by rows of the same
    `kv_digest`, under the same salt. Classes and policies are not named.

    Args:
        request: whose pages they are.
        kv_digests: of its plan, by class.
        page_size: positions of a page.
        visual_positions: all of these rows, as `find_visual` gives them.
    """

    def __init__(
        self,
        request: Request,
        kv_digests: Sequence[bytes],
        page_size: int,
        visual_positions: NDArray[np.int64],
    ) -> None:
        self._page_size = page_size
        self._images = request.images
        self._image_starts = request.image_starts
        self._visual_positions = visual_positions
        self._prompt_ids = request.prompt_array.astype("<i4").tobytes()
        # By row, 32 bytes each.
        self._prompt_rows = b"".join(map(kv_digests.__getitem__, request.class_array.tolist()))
        self._generated_row = kv_digests[TokenClass.GENERATED]
        has_images = len(visual_positions) > 0
        self._visual_range = (
            (int(visual_positions[0]), int(visual_positions[-1]) + 1) if has_images else (0, 0)
        )
        self._root = digest_of(b"root", request.cache_salt.encode(), pack("<Q", page_size))
        self._keys: list[PageKey] = []

    def key(self, index: int, token_ids: NDArray[np.int64]) -> PageKey:
        """Return the key of a page, which is worked out once, after those of the pages before.

        Args:
            index: of the page, counted from 0 in the sequence.
            token_ids: all that are known, of prompt and answer; they fill the page.
        """
        assert (index + 1) * self._page_size <= len(token_ids), f"page {index} is not full"
        while len(self._keys) <= index:
            self._keys.append(self._next_key(token_ids))
        return self._keys[index]

    def _next_key(self, token_ids: NDArray[np.int64]) -> PageKey:
        """Work out the next key. All fields but the last have one length: none needs a frame."""
        start = len(self._keys) * self._page_size
        stop = start + self._page_size
        parent = self._keys[-1].digest if self._keys else self._root
        page_ids = self._prompt_ids[start * _ID_SIZE : stop * _ID_SIZE]
        if len(page_ids) < self._page_size * _ID_SIZE:
            page_ids = token_ids[start:stop].astype("<i4").tobytes()
        rows = self._prompt_rows[start * _DIGEST_SIZE : stop * _DIGEST_SIZE]
        rows += self._generated_row * (self._page_size - len(rows) // _DIGEST_SIZE)
        first, end = self._visual_range
        images = b"".join(self._image_fields(start, stop)) if start < end and first < stop else b""
        digest = hashlib.sha256(b"".join((b"page", parent, page_ids, rows, images))).digest()
        return PageKey(digest, parent, page_ids)

    def _image_fields(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield of each image in the rows: its digest, which of its rows is the first, how many."""
        first, end = np.searchsorted(self._visual_positions, (start, stop)).tolist()
        while first < end:
            place = int(self._image_starts.searchsorted(first, side="right")) - 1
            image, offset = self._images[place], first - int(self._image_starts[place])
            count = min(image.num_rows - offset, end - first)
            yield frame(image.shown_digest, pack("<QQ", offset, count))
            first += count
