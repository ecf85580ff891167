"""How fast our kernels are beside the library's, and beside what the device can do.

Each launch works on another copy of what it reads, so that nothing is left in the device's cache.
Shapes: M rows, D hidden, H query heads, K key/value heads, C head size, F FFN size.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from on_gpu.bench import Bench, Rows
from on_gpu.clock import Work, device_seconds
from report import Row
from torch import Tensor

from skipserve_kernels.fused.input_projection.packing import InputWeights, Part
from skipserve_kernels.fused.input_projection.triton import Normed, Projected, input_projection
from skipserve_kernels.fused.launch import Launch, Scratch, Selection
from skipserve_kernels.fused.norm_rows.triton import Target, norm_rows
from skipserve_kernels.fused.output_projection.triton import output_projection
from skipserve_kernels.fused.output_projection.triton import scratch_sizes as projection_scratch
from skipserve_kernels.fused.paged import PagedKeyValues
from skipserve_kernels.fused.paged_decode.triton import paged_decode
from skipserve_kernels.fused.paged_decode.triton import scratch_sizes as decode_scratch
from skipserve_kernels.fused.paged_prefill.spans import find_spans
from skipserve_kernels.fused.paged_prefill.triton import paged_prefill
from skipserve_kernels.fused.paged_scores.triton import paged_scores
from skipserve_kernels.fused.tiles import Kernel, architecture, prefill_tile
from skipserve_kernels.projection import Projection
from skipserve_policies.sizes import DecoderSizes

# Of small things, so that all copies together do not fit into the cache.
_MAX_COPIES = 64
_PAGE_SIZE = 16
# Of a projection, with any tile.
MOST_SPLITS = 8
_EPSILON = 1e-5


@dataclass(frozen=True)
class Setting:
    """What kernels are timed with.

    Attributes:
        sizes: of the decoder.
        device: where.
        dtype: of 16 bits.
        row_counts: of forwards that decode.
        prefill_counts: of forwards that prefill.
        context: keys of a row that decodes, at most.
        num_copies: of what a launch reads.
    """

    sizes: DecoderSizes
    device: torch.device
    dtype: torch.dtype
    row_counts: tuple[int, ...]
    prefill_counts: tuple[int, ...]
    context: int
    num_copies: int

    @property
    def heads(self) -> tuple[int, int]:
        """Query heads, and heads of keys and values."""
        return self.sizes.num_heads, self.sizes.num_kv_heads


@dataclass(frozen=True)
class Race:
    """One operation on one number of rows.

    Attributes:
        name: of the operation.
        num_rows: M.
        flops: of one launch.
        num_bytes: that one launch reads and writes at least.
        ours: one launch of ours for each copy.
        library: likewise.
    """

    name: str
    num_rows: int
    flops: float
    num_bytes: float
    ours: list[Work]
    library: list[Work]


def setting_of(bench: Bench) -> Setting:
    """Return what kernels are timed with."""
    amount = bench.amount
    return Setting(
        sizes=bench.config.sizes.decoder,
        device=bench.device,
        dtype=bench.dtype,
        row_counts=amount.row_counts,
        prefill_counts=amount.prefill_counts,
        context=amount.context,
        num_copies=amount.num_copies,
    )


@torch.inference_mode()
def measure_kernels(bench: Bench) -> Rows:
    """Time each kernel."""
    if not bench.runs_kernels:
        return
    for races in RACES.values():
        for race in races(setting_of(bench)):
            yield from _rows(bench, race)


def _rows(bench: Bench, race: Race) -> Rows:
    contenders = {"ours": race.ours, "library": race.library}
    seconds = device_seconds(contenders, bench.device, bench.amount.repeats)
    name = f"{race.name}/{race.num_rows} rows"
    floor = bench.ceilings.seconds(race.flops, race.num_bytes)
    yield Row(f"{name}/ours", 1e6 * seconds["ours"], "us")
    yield Row(f"{name}/library", 1e6 * seconds["library"], "us")
    yield Row(f"{name}/ours, of the floor", 100 * floor / seconds["ours"], "%")


def _input_races(setting: Setting) -> Iterator[Race]:
    copies = [_input_weights(setting) for _ in range(setting.num_copies)]
    for num_rows in (*setting.row_counts, *setting.prefill_counts):
        for name, part in _PARTS.items():
            yield _input_race(setting, name, part, num_rows, copies)


_PARTS = {
    "query, key and value": Part.QUERY_KEY_VALUE,
    "gate and up": Part.FFN,
    "all inputs": Part.ALL,
}


def _input_weights(setting: Setting) -> InputWeights:
    sizes, (num_heads, num_kv_heads) = setting.sizes, setting.heads
    num_outputs = (num_heads + 2 * num_kv_heads) * sizes.head_dim + 2 * sizes.ffn_size
    scale = sizes.hidden_size**-0.5
    weight = _random(setting, num_outputs, sizes.hidden_size, scale=scale)
    return InputWeights(weight, None, num_heads, num_kv_heads, sizes.head_dim, sizes.ffn_size)


def _input_race(
    setting: Setting, name: str, part: Part, num_rows: int, copies: Sequence[InputWeights]
) -> Race:
    sizes, device = setting.sizes, setting.device
    x = _random(setting, num_rows, sizes.hidden_size)
    rows = torch.arange(num_rows, device=device)
    room = x.new_empty(2, num_rows, sizes.num_kv_heads, sizes.head_dim)
    project = partial(
        input_projection,
        part=part,
        selection=Selection(num_rows),
        normed=Normed(x, x),
        projected=Projected(
            x.new_empty(num_rows, copies[0].query_size), x.new_empty(num_rows, sizes.ffn_size)
        ),
        paged=_paged(room[0], room[1], rows[:, None], rows),
    )
    used = copies[0].rows(part)
    return Race(
        name=name,
        num_rows=num_rows,
        flops=2 * num_rows * len(used) * sizes.hidden_size,
        num_bytes=x.itemsize * len(used) * (sizes.hidden_size + num_rows),
        ours=[partial(project, weights) for weights in copies],
        library=[partial(F.linear, x, w.weight[used.start : used.stop]) for w in copies],
    )


def _output_races(setting: Setting) -> Iterator[Race]:
    sizes = setting.sizes
    hidden, query_size = sizes.hidden_size, sizes.num_heads * sizes.head_dim
    width = query_size + sizes.ffn_size
    copies = [_random(setting, hidden, width, scale=width**-0.5) for _ in range(setting.num_copies)]
    scratch = _new_scratch(setting)
    parts = {"output": (0, query_size), "down": (query_size, width), "all outputs": (0, width)}
    for num_rows in (*setting.row_counts, *setting.prefill_counts):
        for name, (first, last) in parts.items():
            x = _random(setting, num_rows, last - first)
            # Ours are added to it, again and again: it grows slowly.
            residual = _random(setting, num_rows, hidden)
            weights = [weight[:, first:last] for weight in copies]
            rest = residual, Launch(Selection(num_rows), scratch)
            yield Race(
                name=name,
                num_rows=num_rows,
                flops=2 * num_rows * x.shape[1] * hidden,
                num_bytes=x.itemsize * (hidden + num_rows) * x.shape[1],
                ours=[partial(output_projection, x, Projection(each), *rest) for each in weights],
                library=[partial(torch.addmm, residual, x, weight.t()) for weight in weights],
            )


def _decode_races(setting: Setting) -> Iterator[Race]:
    """Yield rows that see all keys of the context.

    The library has no page tables: it reads the same pool, as if each sequence lay in one piece.
    """
    sizes, context = setting.sizes, setting.context
    num_sequences = setting.num_copies * max(setting.row_counts)
    width = -(-context // _PAGE_SIZE)
    by_sequence = (num_sequences, width * _PAGE_SIZE, sizes.num_kv_heads, sizes.head_dim)
    keys, values = (_random(setting, *by_sequence) for _ in range(2))
    pages = torch.arange(num_sequences * width, device=setting.device)
    scratch = _new_scratch(setting)
    for num_rows in setting.row_counts:
        query = _random(setting, num_rows, sizes.num_heads, sizes.head_dim)
        attend = partial(
            paged_decode,
            query,
            out=torch.empty_like(query.flatten(1)),
            launch=Launch(Selection(num_rows), scratch),
        )
        positions = torch.full((num_rows,), context - 1, device=setting.device)
        firsts = range(0, num_sequences, num_rows)[:_MAX_COPIES]
        tables = [pages.view(num_sequences, width)[first : first + num_rows] for first in firsts]
        seen = [
            [x[first : first + num_rows, :context].transpose(1, 2) for x in (keys, values)]
            for first in firsts
        ]
        yield Race(
            name=f"decode attention, {context} keys",
            num_rows=num_rows,
            flops=4 * num_rows * sizes.num_heads * sizes.head_dim * context,
            num_bytes=2 * query.itemsize * num_rows * context * by_sequence[2] * by_sequence[3],
            ours=[
                partial(attend, _paged(keys.flatten(0, 1), values.flatten(0, 1), table, positions))
                for table in tables
            ],
            library=[_attention(query.unsqueeze(2), *pair, is_causal=False) for pair in seen],
        )


def _scores_races(setting: Setting) -> Iterator[Race]:
    """Yield one row that scores its context; the library reads keys that lie in one piece."""
    sizes, num_rows = setting.sizes, setting.context
    num_slots = setting.num_copies * num_rows
    keys = _random(setting, num_slots, sizes.num_kv_heads, sizes.head_dim)
    query = _random(setting, 1, sizes.num_heads, sizes.head_dim)
    starts = torch.arange(0, num_rows + 1, num_rows, device=setting.device)
    copies = torch.arange(num_slots, device=setting.device).view(-1, num_rows)[:_MAX_COPIES]
    yield Race(
        name="scores of one row",
        num_rows=num_rows,
        flops=2 * sizes.num_heads * sizes.head_dim * num_rows,
        num_bytes=keys.itemsize * num_rows * sizes.num_kv_heads * sizes.head_dim,
        ours=[partial(paged_scores, query, keys, slots, starts, num_rows) for slots in copies],
        library=[
            partial(_mean_softmax, query, each)
            for each in torch.split(keys, num_rows)[:_MAX_COPIES]
        ],
    )


def _mean_softmax(query: Tensor, keys: Tensor) -> Tensor:
    """Return the mean over heads of the softmax of the scores of keys [N, K, C], [N]."""
    by_group = query.view(keys.shape[1], -1, keys.shape[2])
    return (by_group @ keys.permute(1, 2, 0)).float().softmax(dim=-1).flatten(0, 1).mean(dim=0)


def _prefill_races(setting: Setting) -> Iterator[Race]:
    """Yield whole prompts of one sequence."""
    sizes, device = setting.sizes, setting.device
    tile = prefill_tile(setting.dtype, architecture(device))
    for num_rows in setting.prefill_counts:
        width = -(-num_rows // _PAGE_SIZE)
        room = (2, width * _PAGE_SIZE, sizes.num_kv_heads, sizes.head_dim)
        copies = [_random(setting, *room).unbind(0) for _ in range(setting.num_copies)]
        query = _random(setting, num_rows, sizes.num_heads, sizes.head_dim)
        spans = find_spans(np.array([num_rows], dtype=np.int64), tile.rows)
        attend = partial(
            paged_prefill,
            query,
            out=torch.empty_like(query.flatten(1)),
            selection=Selection(num_rows),
            spans=torch.from_numpy(spans).to(device),
        )
        where = torch.arange(width, device=device)[None], torch.arange(num_rows, device=device)
        by_head = [[x[:num_rows].transpose(0, 1)[None] for x in (query, *pair)] for pair in copies]
        num_heads = 2 * (sizes.num_heads + sizes.num_kv_heads)
        num_pairs = num_rows * (num_rows + 1) // 2
        yield Race(
            name="prefill attention",
            num_rows=num_rows,
            flops=4 * sizes.num_heads * sizes.head_dim * num_pairs,
            num_bytes=query.itemsize * num_heads * num_rows * sizes.head_dim,
            ours=[partial(attend, paged=_paged(keys, values, *where)) for keys, values in copies],
            library=[_attention(*each, is_causal=True) for each in by_head],
        )


def _norm_races(setting: Setting) -> Iterator[Race]:
    width = setting.sizes.hidden_size
    gain = _random(setting, width)
    for num_rows in (*setting.row_counts, *setting.prefill_counts):
        copies = [_random(setting, num_rows, width) for _ in range(setting.num_copies)]
        rest = [Target(gain, torch.empty_like(copies[0]))], _EPSILON, Selection(num_rows)
        yield Race(
            name="normalisation",
            num_rows=num_rows,
            flops=0,
            num_bytes=2 * gain.itemsize * num_rows * width,
            ours=[partial(norm_rows, x, *rest) for x in copies],
            library=[partial(F.rms_norm, x, (width,), gain, _EPSILON) for x in copies],
        )


# By kernel.
RACES: dict[str, Callable[[Setting], Iterator[Race]]] = {
    Kernel.INPUT_PROJECTION: _input_races,
    Kernel.OUTPUT_PROJECTION: _output_races,
    Kernel.PAGED_DECODE: _decode_races,
    Kernel.PAGED_PREFILL: _prefill_races,
    Kernel.PAGED_SCORES: _scores_races,
    "rms_norm": _norm_races,
}


def _paged(keys: Tensor, values: Tensor, tables: Tensor, positions: Tensor) -> PagedKeyValues:
    """Return keys and values, into which rows store theirs in their order."""
    return PagedKeyValues(
        keys=keys,
        values=values,
        page_size=_PAGE_SIZE,
        tables=tables,
        positions=positions,
        slots=torch.arange(len(positions), device=keys.device),
        factors=torch.ones(len(positions), 2, keys.shape[2] // 2, device=keys.device),
    )


def _new_scratch(setting: Setting) -> Scratch:
    """Return room for the largest launch, with as many splits as are tried."""
    sizes, most = setting.sizes, max(setting.row_counts)
    arch = architecture(setting.device)
    num_parts, num_arrivals = map(
        max,
        projection_scratch(most, sizes.hidden_size),
        decode_scratch(most, *setting.heads, sizes.head_dim, arch),
    )
    num_parts = max(num_parts, MOST_SPLITS * most * sizes.hidden_size)
    return Scratch.empty(num_parts, num_arrivals, setting.device)


def _attention(query: Tensor, keys: Tensor, values: Tensor, *, is_causal: bool) -> Work:
    has_groups = query.shape[1] != keys.shape[1]
    return partial(
        F.scaled_dot_product_attention,
        query,
        keys,
        values,
        is_causal=is_causal,
        enable_gqa=has_groups,
    )


def _random(setting: Setting, *shape: int, scale: float = 1.0) -> Tensor:
    return torch.randn(shape, dtype=setting.dtype, device=setting.device).mul_(scale)
