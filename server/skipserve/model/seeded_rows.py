"""Rows of an image that are chosen at random, alike wherever it is asked again."""

import numpy as np
from numpy.typing import NDArray


def random_rows(seed: int | None, num_rows: int, count: int) -> NDArray[np.int64]:
    """Return which of an image's rows a seed chooses, [count], ascending."""
    generator = np.random.Generator(np.random.PCG64(seed))
    return np.sort(generator.choice(num_rows, count, replace=False))
