"""What a step reads of the weights, and how fast this machine reads."""

from collections.abc import Collection
from statistics import median

import torch
from splitting.watched import Clock

from skipserve_policies.plan import Ffn, Plan, TokenClass
from skipserve_policies.sizes import DecoderSizes

_REPEATS = 5
_LEAST_READ = 2**30


def weights_read(decoder: DecoderSizes, plan: Plan, classes: Collection[TokenClass]) -> int:
    """Return the numbers of weights that a step reads: the head, and what some row needs.

    Args:
        decoder: the model's.
        plan: of all rows, trimmed.
        classes: of the rows.
    """
    hidden, ffn_size = decoder.hidden_size, (2 + decoder.is_gated) * decoder.ffn_size
    d_q, d_kv = (heads * decoder.head_dim for heads in (decoder.num_heads, decoder.num_kv_heads))
    total = decoder.embedding_size * decoder.vocab_size
    for layer in range(decoder.num_layers):
        cells = [plan.cell(layer, c) for c in classes]
        total += 2 * hidden * d_q * any(cell.attention for cell in cells)
        total += 2 * hidden * d_kv * any(plan.kv[c][layer] for c in classes)
        total += hidden * ffn_size * any(cell.ffn is not Ffn.NONE for cell in cells)
    return total


def read_bandwidth(num_bytes: int, device: torch.device, clock: Clock) -> float:
    """Return how many bytes a second are read, of so many that are read again and again.

    Args:
        num_bytes: as many as a model's weights, so that a cache holds as much of them.
        device: who reads; of a CPU, one thread.
        clock: gives seconds.
    """
    numbers = torch.ones(max(num_bytes // 4, 1), device=device)
    count = max(_LEAST_READ // num_bytes, 1)
    taken = []
    for _ in range(_REPEATS):
        started = clock()
        for _ in range(count):
            total = numbers.sum()
        total.item()  # which waits for a device
        taken.append((clock() - started) / count)
    return numbers.nbytes / median(taken)
