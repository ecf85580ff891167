"""Which rows do what at each layer: bits of columns as row sets, on the host."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from skipserve.model.batch import Every, LayerRows, Work

Index = NDArray[np.int64]

# A row set before it goes to the device: all rows, none, or the place of its index in HostRows.
HostRowSet = Every | int

_FIELDS = {Work[field.name.upper()]: field.name for field in fields(LayerRows)}


@dataclass(frozen=True)
class HostRows:
    """Who does what in a batch.

    Attributes:
        indexes: the distinct row sets that are neither all nor none, ascending.
        layers: the distinct layers, by the names in LayerRows.
        places: which of them each layer of the model is.
    """

    indexes: tuple[Index, ...]
    layers: tuple[dict[str, HostRowSet], ...]
    places: tuple[int, ...]


@dataclass(frozen=True)
class Pattern:
    """Who does what in a batch of some columns, before its rows are known.

    Attributes:
        sets: the distinct row sets that are neither all nor none, each as its columns, [C] bool.
        layers, places: as in HostRows.
    """

    sets: tuple[NDArray[np.bool_], ...]
    layers: tuple[dict[str, HostRowSet], ...]
    places: tuple[int, ...]


def find_pattern(work: NDArray[np.uint8], occurs: NDArray[np.bool_]) -> Pattern:
    """Find the distinct layers among the columns that occur, and the distinct sets in them."""
    sets: dict[bytes, int] = {}
    layers: dict[bytes, int] = {}
    found: list[dict[str, HostRowSet]] = []
    masks: list[NDArray[np.bool_]] = []
    for layer_work in np.where(occurs[:, None], work, 0).T:
        key = layer_work.tobytes()
        if key in layers:
            continue
        layers[key] = len(found)
        layer: dict[str, HostRowSet] = {}
        for bit, name in _FIELDS.items():
            mask = (layer_work & bit.value) != 0
            if not mask.any():
                layer[name] = Every.NONE
            elif (mask == occurs).all():
                layer[name] = Every.ALL
            else:
                layer[name] = sets.setdefault(mask.tobytes(), len(sets))
                if len(masks) < len(sets):
                    masks.append(mask)
        found.append(layer)
    keys = (layer_work.tobytes() for layer_work in np.where(occurs[:, None], work, 0).T)
    return Pattern(tuple(masks), tuple(found), tuple(layers[key] for key in keys))
