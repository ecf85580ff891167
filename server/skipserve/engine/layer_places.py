"""Where rows of answers find and leave their keys and values, layer by layer, as arrays.

Of a prompt some of whose rows have left, each layer has kept those that it saw. How many these are
is settled with the prompt, so the rows of its answer need no more than their positions.
"""

from functools import lru_cache

import numpy as np

from skipserve.engine.inputs import StepRows
from skipserve.engine.scheduler import Step
from skipserve.engine.tables import SeatTables
from skipserve.model.work import Index


def layer_places(step: Step, rows: StepRows, tables: SeatTables, num_layers: int) -> Index:
    """Return the K/V slot, the place and the position of each row in each layer, [3, L, T].

    Args:
        step: one row of each sequence, of its answer where rows leave its prompt.
        rows: the same, gathered.
        tables: what the sequences hold.
        num_layers: L.
    """
    _, positions, slots, seats = rows.numbers
    alike = np.stack([slots, positions, positions])
    by_layer = np.broadcast_to(alike[:, None], (3, num_layers, len(seats)))
    drops = [chunk.sequence.drops for chunk in step.chunks]
    leaving = [at for at, it in enumerate(drops) if it is not None]
    if not leaving:
        return by_layer
    by_layer, size = by_layer.copy(), tables.page_size
    dropped = [_num_dropped(it.layers, it.num_rows, num_layers) for it in drops if it is not None]
    renumbers = [it is not None and it.narrowing.renumbers for it in drops]
    places = positions[leaving] - np.stack(dropped, axis=1)
    by_layer[0][:, leaving] = tables.pages[seats[leaving], places // size] * size + places % size
    by_layer[1][:, leaving] = places
    by_layer[2][:, renumbers] = by_layer[1][:, renumbers]
    return by_layer


@lru_cache(maxsize=1024)
def _num_dropped(layers: tuple[int, ...], num_rows: tuple[int, ...], num_layers: int) -> Index:
    """Return how many rows of a prompt each layer does not see, [L], given its stages."""
    return np.repeat(num_rows[0] - np.array(num_rows), np.diff([0, *layers, num_layers]))
