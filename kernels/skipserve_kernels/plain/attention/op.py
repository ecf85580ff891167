"""Causal, grouped-query attention over paged keys and values: the public functions.

Shapes: T queries, N new keys, H query heads, K key/value heads, S slots, C head size.
"""

import torch
from torch import Tensor

from skipserve_kernels.key_values import KeyValues
from skipserve_kernels.plain.attention import cpu, cpu_layout, gathered
from skipserve_kernels.plain.attention.layout import Queries, Runs

# Who reads what, as the device's path wants it: opaque.
Layout = cpu_layout.Layout | tuple[gathered.Span, ...]


def new_cache(
    num_slots: int, num_heads: int, head_size: int, dtype: torch.dtype, device: torch.device
) -> KeyValues:
    """Return room for so many positions, in the type that the device keeps; not cleared."""
    shape = (2, num_heads, num_slots, head_size)
    room = torch.empty(shape, dtype=cache_dtype(dtype, device), device=device)
    return KeyValues(keys=room[:1], values=room[1:])


def cache_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """Return the type in which a device keeps keys and values of a type."""
    return cpu.cache_dtype(dtype) if device.type == "cpu" else dtype


def prepare(queries: Queries, runs: Runs, device: torch.device) -> Layout:
    """Say what the queries of a layer read; good for all layers whose rows and pages agree."""
    if device.type == "cpu" and cpu.can_merge():
        return cpu_layout.prepare(queries, runs)
    return gathered.prepare(queries, runs, device)


def store(cache: KeyValues, slots: Tensor, key: Tensor, value: Tensor) -> None:
    """Write new keys and values, [N, K, C] each in the cache's type, into their slots [N]."""
    for room, rows in ((cache.keys, key), (cache.values, value)):
        room.index_copy_(2, slots, rows.transpose(0, 1).unsqueeze(0))


def attention(
    query: Tensor, new: tuple[Tensor, Tensor], cache: KeyValues, layout: Layout
) -> Tensor:
    """Attend to cached keys, each sequence on its own and without padding.

    All is in the type of the cache.

    Args:
        query: [T, H, C]; H is a multiple of K.
        new: the keys and values of this forward, [N, K, C] each, which are stored already.
        cache: the keys and values of the layer, [1, K, S, C] each.
        layout: who reads what.

    Returns:
        [T, H * C].
    """
    if isinstance(layout, cpu_layout.Layout):
        return cpu.attention(query, new, (cache.keys, cache.values), layout).flatten(1)
    return gathered.attention(query, cache.keys, cache.values, layout).flatten(1)
