"""Whether our kernels mean on the device what their references in float32 mean.

A result's error may be twice that of the library's own 16-bit operations, plus two roundings.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skipserve_kernels.attention import reference as attention_reference
from skipserve_kernels.input_projection import reference as input_reference
from skipserve_kernels.input_projection.inputs import Inputs, Sizes, make_inputs
from skipserve_kernels.input_projection.packing import InputWeights, Part, pack_factors, pack_inputs
from skipserve_kernels.input_projection.reference import Result
from skipserve_kernels.input_projection.triton import Bits, Place, input_projection
from skipserve_kernels.output_projection import inputs as output_inputs
from skipserve_kernels.output_projection import reference as output_reference
from skipserve_kernels.output_projection.triton import output_projection
from skipserve_kernels.output_projection.triton import scratch_sizes as projection_scratch
from skipserve_kernels.paged_decode.inputs import Pages, make_pages
from skipserve_kernels.paged_decode.triton import paged_decode
from skipserve_kernels.paged_decode.triton import scratch_sizes as decode_scratch
from skipserve_kernels.paged_prefill.spans import find_spans
from skipserve_kernels.paged_prefill.triton import paged_prefill
from skipserve_kernels.rms_norm import inputs as norm_inputs
from skipserve_kernels.rms_norm import reference as norm_reference
from skipserve_kernels.rms_norm.triton import Target, norm_rows
from skipserve_kernels.scratch import Scratch
from skipserve_kernels.selection import Selection
from skipserve_kernels.tiles import architecture, prefill_tile
from skipserve_policies.sizes import DecoderSizes

_EPSILON = 1e-5
_PAGE_SIZE = 16
_TAKES_PART = 4


@dataclass(frozen=True)
class Setting:
    """What kernels are checked with.

    Attributes:
        sizes: of the decoder.
        device: where.
        dtype: of 16 bits.
        row_counts: of forwards that decode.
        prefill_counts: of forwards that prefill.
        context: keys of a row that decodes, at most.
    """

    sizes: DecoderSizes
    device: torch.device
    dtype: torch.dtype
    row_counts: tuple[int, ...]
    prefill_counts: tuple[int, ...]
    context: int

    @property
    def heads(self) -> tuple[int, int]:
        """Query heads, and heads of keys and values."""
        return self.sizes.num_heads, self.sizes.num_kv_heads


class Share(NamedTuple):
    """What a check gave: the error as a share of what is allowed; not above 1 in a sound kernel."""

    case: str
    share: float


# Checks one kernel.
Check = Callable[[Setting], Iterator[Share]]


def error_share(actual: Tensor, plain: Tensor, exact: Tensor) -> float:
    """Return a result's largest error as a share of what is allowed.

    Args:
        actual: what the kernel gave.
        plain: what the library gives in the same type.
        exact: the reference, in float32.
    """
    assert actual.dtype is plain.dtype
    assert actual.shape == plain.shape == exact.shape
    rounding = torch.finfo(actual.dtype).eps * exact.abs().max()
    allowed = 2 * (plain.float() - exact).abs().max() + 2 * rounding
    share = ((actual.float() - exact).abs().max() / allowed).item()
    return float("inf") if math.isnan(share) else float(share)


def check_input_projection(setting: Setting) -> Iterator[Share]:
    """Check all parts together on chosen rows, parts alone on the first rows, and gates."""
    sizes = setting.sizes
    counts = (*setting.row_counts, *setting.prefill_counts)
    made = make_inputs(
        max(counts),
        Sizes(sizes.hidden_size, *setting.heads, sizes.head_dim, sizes.ffn_size),
        dtype=setting.dtype,
    )
    inputs: Inputs = moved(made, setting.device)
    weights = pack_inputs(*inputs.layers, head_size=sizes.head_dim)
    for num_rows in counts:
        for part in (Part.ALL, Part.QUERY_KEY_VALUE, Part.FFN):
            index = inputs.index[:num_rows] if part is Part.ALL else None
            trial = _InputTrial(inputs, weights, Selection(num_rows, index))
            yield Share(f"{part.name.lower()} {num_rows} rows", trial.run(part))
    for num_rows in setting.row_counts:
        gates = torch.arange(num_rows, device=setting.device) % 2 * _TAKES_PART
        trial = _InputTrial(inputs, weights, Selection(num_rows, gates=gates))
        yield Share(f"gated ffn {num_rows} rows", trial.run_gated())


class _InputTrial:
    """One call of the input projection, and what it should give."""

    def __init__(self, inputs: Inputs, weights: InputWeights, selection: Selection) -> None:
        self._inputs, self._weights, self._selection = inputs, weights, selection
        self._rows = slice(0, selection.num_rows)
        room = (len(inputs.slots) + 3, weights.num_kv_heads, weights.head_size)
        self._keys, self._values = (_unwritten(inputs.attention_input, *room) for _ in range(2))
        self._query = _unwritten(inputs.attention_input, selection.num_rows, weights.query_size)
        self._activation = _unwritten(inputs.attention_input, selection.num_rows, weights.ffn_size)

    def run(self, part: Part) -> float:
        """Return the largest share of what the part gives."""
        self._launch(part, Bits())
        plain, exact = self._plain(), self._exact()
        slots = self._of_rows(self._inputs.slots)
        found = {
            "query": self._query,
            "key": self._keys[slots].flatten(1),
            "value": self._values[slots].flatten(1),
            "activation": self._activation,
        }
        wanted = part.has_query * ["query"] + part.has_key_value * ["key", "value"]
        wanted += part.has_ffn * ["activation"]
        return max(
            error_share(found[name], getattr(plain, name), getattr(exact, name)) for name in wanted
        )

    def run_gated(self) -> float:
        """Return the share of the FFN's rows that take part; the others must not be touched."""
        assert self._selection.gates is not None
        self._launch(Part.FFN, Bits(ffn=_TAKES_PART))
        takes_part = self._selection.gates != 0
        if not self._activation[~takes_part].isnan().all():
            return float("inf")
        if not takes_part.any():
            return 0.0
        plain, exact = self._plain().activation, self._exact().activation
        return error_share(self._activation[takes_part], plain[takes_part], exact[takes_part])

    def _launch(self, part: Part, bits: Bits) -> None:
        inputs = self._inputs
        factors = pack_factors(inputs.cosine, inputs.sine)
        input_projection(
            self._weights,
            part,
            self._selection,
            attention_input=inputs.attention_input[self._rows],
            ffn_input=inputs.ffn_input[self._rows],
            place=Place(self._keys, self._values, inputs.slots, inputs.positions, factors),
            query=self._query,
            activation=self._activation,
            bits=bits,
        )

    def _of_rows(self, x: Tensor) -> Tensor:
        """Return what each entry has of something that all rows of the forward have."""
        index = self._selection.index
        return x[self._rows] if index is None else x[index]

    def _exact(self) -> Result:
        inputs = self._inputs
        return input_reference.input_projection(
            inputs.attention_input[self._rows],
            inputs.ffn_input[self._rows],
            inputs.layers,
            inputs.cosine,
            inputs.sine,
            self._of_rows(inputs.positions),
        )

    def _plain(self) -> Result:
        """Compute with the library's products, as transformers does."""
        inputs = self._inputs
        dtype = inputs.attention_input.dtype
        positions = self._of_rows(inputs.positions)
        cosine, sine = (x.to(dtype)[positions][:, None] for x in (inputs.cosine, inputs.sine))

        def turn(x: Tensor) -> Tensor:
            heads = x.view(len(x), -1, inputs.cosine.shape[1])
            first, second = heads.chunk(2, -1)
            turned = heads * cosine + torch.cat((-second, first), -1) * sine
            return torch.stack(turned.chunk(2, -1), -1).flatten(1)

        attention_input, ffn_input = (
            inputs.attention_input[self._rows],
            inputs.ffn_input[self._rows],
        )
        layers = inputs.layers
        query, key, value = (F.linear(attention_input, layer.weight) for layer in layers[:3])
        gate, up = (F.linear(ffn_input, layer.weight) for layer in layers[3:])
        return Result(turn(query), turn(key), value, F.silu(gate) * up)


def check_output_projection(setting: Setting) -> Iterator[Share]:
    """Check the attention's part, the FFN's, and both at once."""
    sizes = setting.sizes
    counts = (*setting.row_counts, *setting.prefill_counts)
    query_size = sizes.num_heads * sizes.head_dim
    made = output_inputs.make_inputs(
        max(counts), sizes.hidden_size, query_size, sizes.ffn_size, dtype=setting.dtype
    )
    inputs: output_inputs.Inputs = moved(made, setting.device)
    scratch = new_scratch(setting)
    parts = {
        "attention": (inputs.x[:, :query_size], inputs.weights.output[0]),
        "ffn": (inputs.x[:, query_size:], inputs.weights.down[0]),
        "both": (inputs.x, inputs.weights.all[0]),
    }
    for num_rows in counts:
        selection = Selection(num_rows, torch.arange(num_rows, device=setting.device).flip(0))
        for part, (x, weight) in parts.items():
            hidden = inputs.hidden.clone()
            args = x[:num_rows], weight, None
            exact = output_reference.output_projection(*args, inputs.hidden, selection)
            output_projection(*args, hidden, selection, scratch)
            plain = inputs.hidden.clone()
            assert selection.index is not None
            plain[selection.index] += F.linear(x[:num_rows], weight)
            yield Share(f"{part} {num_rows} rows", error_share(hidden, plain, exact))


def check_decode_attention(setting: Setting) -> Iterator[Share]:
    """Check rows of sequences of many lengths, one key alone among them."""
    pages, lengths = _decode_pages(setting)
    num_heads, head_size = setting.sizes.num_heads, setting.sizes.head_dim
    keys, values = (x.to(setting.device) for x in (pages.keys, pages.values))
    tables = pages.tables.to(setting.device)
    positions = torch.tensor(lengths, device=setting.device) - 1
    query = _random(setting, len(lengths), num_heads, head_size)
    seen = [(keys[slots], values[slots]) for slots in map(pages.slots, range(len(lengths)))]
    plain, exact = _attended(query[:, None], seen, [p[None] for p in positions])
    for num_rows in setting.row_counts:
        out = _unwritten(query, num_rows, num_heads * head_size)
        paged_decode(
            query[:num_rows],
            keys,
            values,
            tables,
            positions,
            _PAGE_SIZE,
            Selection(num_rows),
            out,
            new_scratch(setting),
        )
        yield Share(f"{num_rows} rows", error_share(out, plain[:num_rows], exact[:num_rows]))


def check_prefill_attention(setting: Setting) -> Iterator[Share]:
    """Check a whole prompt and, behind cached keys, the rest of another."""
    num_heads, num_kv_heads = setting.heads
    head_size = setting.sizes.head_dim
    for num_rows in setting.prefill_counts:
        starts = (0, num_rows // 3)
        pages = make_pages(
            [num_rows] * 2,
            num_heads=num_kv_heads,
            head_size=head_size,
            page_size=_PAGE_SIZE,
            dtype=setting.dtype,
        )
        keys, values = (x.to(setting.device) for x in (pages.keys, pages.values))
        counts = [num_rows - start for start in starts]
        positions = [torch.arange(start, num_rows, device=setting.device) for start in starts]
        query = _random(setting, sum(counts), num_heads, head_size)
        out = _unwritten(query, len(query), num_heads * head_size)
        tile = prefill_tile(setting.dtype, architecture(setting.device))
        paged_prefill(
            query,
            keys,
            values,
            pages.tables.to(setting.device),
            torch.cat(positions),
            _PAGE_SIZE,
            torch.from_numpy(find_spans(np.array(counts), tile.rows)).to(setting.device),
            Selection(len(query)),
            out,
        )
        seen = [(keys[slots], values[slots]) for slots in map(pages.slots, range(2))]
        plain, exact = _attended(torch.split(query, counts), seen, positions)
        yield Share(f"{num_rows} rows", error_share(out, plain, exact))


def check_norm(setting: Setting) -> Iterator[Share]:
    """Check rows of very different sizes."""
    width = setting.sizes.hidden_size
    for num_rows in (*setting.row_counts, *setting.prefill_counts):
        x, gain = (
            t.to(setting.device)
            for t in norm_inputs.make_inputs(num_rows, width, dtype=setting.dtype)
        )
        out = _unwritten(x, num_rows, width)
        norm_rows(x, [Target(gain, out)], _EPSILON, Selection(num_rows))
        exact = norm_reference.rms_norm(x, gain, _EPSILON)
        plain = F.rms_norm(x, (width,), gain, _EPSILON)
        yield Share(f"{num_rows} rows", error_share(out, plain, exact))


CHECKS: dict[str, Check] = {
    "input projection": check_input_projection,
    "output projection": check_output_projection,
    "decode attention": check_decode_attention,
    "prefill attention": check_prefill_attention,
    "normalisation": check_norm,
}


def split_trials(setting: Setting) -> Iterator[tuple[str, int, Callable[[], Tensor]]]:
    """Yield launches whose programs share results: the kernel, the rows, and what launches it.

    Each must give the same bits every time.
    """
    sizes, num_heads = setting.sizes, setting.sizes.num_heads
    query_size = num_heads * sizes.head_dim
    most = max(setting.row_counts)
    made = output_inputs.make_inputs(
        most, sizes.hidden_size, query_size, sizes.ffn_size, dtype=setting.dtype
    )
    inputs: output_inputs.Inputs = moved(made, setting.device)
    scratch = new_scratch(setting)
    pages, lengths = _decode_pages(setting)
    keys, values = (x.to(setting.device) for x in (pages.keys, pages.values))
    tables = pages.tables.to(setting.device)
    positions = torch.tensor(lengths, device=setting.device) - 1
    query = _random(setting, most, num_heads, sizes.head_dim)

    for num_rows in sorted({min(setting.row_counts), most}):
        selection = Selection(num_rows)

        def project(num_rows: int = num_rows, selection: Selection = selection) -> Tensor:
            hidden = inputs.hidden[:num_rows].clone()
            weight = inputs.weights.weight
            output_projection(inputs.x[:num_rows], weight, None, hidden, selection, scratch)
            return hidden

        def attend(num_rows: int = num_rows, selection: Selection = selection) -> Tensor:
            some = query[:num_rows]
            out = torch.empty_like(some.flatten(1))
            paged_decode(some, keys, values, tables, positions, _PAGE_SIZE, selection, out, scratch)
            return out

        yield "output projection", num_rows, project
        yield "decode attention", num_rows, attend


def count_changes(launch: Callable[[], Tensor], num_trials: int) -> int:
    """Return how many of so many launches gave other bits than the first."""
    first = launch()
    changes = torch.zeros((), dtype=torch.int64, device=first.device)
    for _ in range(num_trials):
        changes += (launch() != first).any()
    return int(changes.item())


def new_scratch(setting: Setting) -> Scratch:
    """Return room for the largest launch."""
    sizes, most = setting.sizes, max(setting.row_counts)
    arch = architecture(setting.device)
    needs = (
        projection_scratch(most, sizes.hidden_size),
        decode_scratch(most, *setting.heads, sizes.head_dim, arch),
    )
    num_parts, num_arrivals = (max(column) for column in zip(*needs, strict=True))
    return Scratch.empty(num_parts, num_arrivals, setting.device)


def moved(value: Any, device: torch.device) -> Any:
    """Return a tensor, or a dataclass or named tuple that holds some, on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(*(moved(getattr(value, f.name), device) for f in fields(value)))
    if isinstance(value, tuple):
        return type(value)(*(moved(part, device) for part in value))
    return value


def _decode_pages(setting: Setting) -> tuple[Pages, list[int]]:
    """Return sequences of up to `context` keys, as many as rows at most, on the host."""
    most = max(setting.row_counts)
    lengths = [setting.context - place * setting.context // most for place in range(most)]
    lengths[-1] = 1
    pages = make_pages(
        lengths,
        num_heads=setting.sizes.num_kv_heads,
        head_size=setting.sizes.head_dim,
        page_size=_PAGE_SIZE,
        dtype=setting.dtype,
    )
    return pages, lengths


def _attended(
    queries: Sequence[Tensor] | Tensor,
    seen: Sequence[tuple[Tensor, Tensor]],
    positions: Sequence[Tensor],
) -> tuple[Tensor, Tensor]:
    """Attend sequence by sequence: as the library does, and as the reference in float32."""
    plain, exact = [], []
    for query, (keys, values), own in zip(queries, seen, positions, strict=True):
        exact.append(attention_reference.attention(query, keys, values, own))
        group = query.shape[1] // keys.shape[1]
        wide_keys, wide_values = (
            x.repeat_interleave(group, dim=1).transpose(0, 1) for x in (keys, values)
        )
        mask = torch.arange(len(keys), device=keys.device) <= own[:, None]
        mixed = F.scaled_dot_product_attention(
            query.transpose(0, 1), wide_keys, wide_values, attn_mask=mask
        )
        plain.append(mixed.transpose(0, 1).flatten(1))
    return torch.cat(plain), torch.cat(exact)


def _random(setting: Setting, *shape: int) -> Tensor:
    generator = torch.Generator(setting.device).manual_seed(0)
    draw = torch.randn(shape, generator=generator, device=setting.device)
    return draw.to(setting.dtype)


def _unwritten(like: Tensor, *shape: int) -> Tensor:
    """Return room that shows what was not written."""
    return like.new_full(shape, torch.nan)
