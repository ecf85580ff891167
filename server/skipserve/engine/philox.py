"""Random numbers that depend on a key and a counter alone: Philox4x32-10, vectorised.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 10
# Little-endian, so that the halves of a product are views.
_WORD, _PRODUCT = np.dtype("<u4"), np.dtype("<u8")
_MULTIPLIERS = np.array([[0xD2511F53], [0xCD9E8D57]], _PRODUCT)
_KEY_STEPS = np.array([[0x9E3779B9], [0xBB67AE85]], _PRODUCT)
_KEY_OFFSETS = (_KEY_STEPS * np.arange(_ROUNDS, dtype=_PRODUCT)[:, None, None]).astype(_WORD)


def philox(counters: NDArray[np.uint32], keys: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return four random words for each counter and key, [4, N].

    Args:
        counters: [4, N], the lowest word first.
        keys: [2, N], likewise.
    """
    even, odd = counters[0::2], counters[1::2]
    for round_keys in _KEY_OFFSETS + keys:
        words = np.multiply(_MULTIPLIERS, even, dtype=_PRODUCT).view(_WORD)[::-1]
        even, odd = words[:, 1::2] ^ odd ^ round_keys, words[:, 0::2]
    return np.stack((even, odd), axis=1).reshape(4, -1)


def uniform(
    seeds: NDArray[np.uint64], positions: NDArray[np.int64], choices: NDArray[np.int64] | int = 0
) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each seed, position and choice, [N]."""
    counters = np.zeros((4, len(seeds)), _WORD)
    counters[:2] = _words(positions)
    counters[2] = choices
    words = philox(counters, _words(seeds))
    bits: NDArray[np.uint64] = words[0].astype(np.uint64) << np.uint64(32) | words[1]
    return (bits >> np.uint64(11)).astype(np.float64) * np.float64(2.0**-53)


def _words(numbers: NDArray[np.integer[Any]]) -> NDArray[np.uint32]:
    """Return the low and the high word of each, [2, N]."""
    return numbers.astype(_PRODUCT).view(_WORD).reshape(-1, 2).T
