"""Keeps projected images for requests that show them again, whatever their plans."""

from collections import OrderedDict

from torch import Tensor

from skipserve.digests import digest_of
from skipserve.engine.request import Image


def image_key(image: Image, salt: str) -> bytes:
    """Return what the features of an image are kept under, 32 bytes."""
    return digest_of(b"image", salt.encode(), image.shown_digest)


class EncoderCache:
    """Projected images, the least recently used ones given up first.

    Args:
        max_bytes: room for the features.
    """

    def __init__(self, max_bytes: int) -> None:
        self.num_bytes = 0
        self.num_evictions = 0
        self._max_bytes = max_bytes
        self._entries: OrderedDict[bytes, Tensor] = OrderedDict()

    def get(self, key: bytes) -> Tensor | None:
        """Return the features of an image, [P, D], if they are here."""
        if key in self._entries:
            self._entries.move_to_end(key)
        return self._entries.get(key)

    def put(self, key: bytes, features: Tensor) -> None:
        """Keep the features of an image, [P, D], unless they alone are more than there is room for.

        Of a larger tensor's part a copy is kept: the part would keep all of it alive.
        """
        if features.nbytes > self._max_bytes:
            return
        if features.untyped_storage().nbytes() > features.nbytes:
            features = features.clone()
        self._remove(key)
        while self.num_bytes + features.nbytes > self._max_bytes:
            self._remove(next(iter(self._entries)))
            self.num_evictions += 1
        self._entries[key] = features
        self.num_bytes += features.nbytes

    def clear(self) -> None:
        """Give all features up."""
        self.num_evictions += len(self._entries)
        self._entries.clear()
        self.num_bytes = 0

    def _remove(self, key: bytes) -> None:
        features = self._entries.pop(key, None)
        self.num_bytes -= 0 if features is None else features.nbytes
