"""The input projection on a GPU: products whose results go straight where they are needed."""

from dataclasses import dataclass
from math import gcd

import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from skipserve_kernels.fused.input_projection.packing import InputWeights, Part
from skipserve_kernels.fused.launch import Selection
from skipserve_kernels.fused.paged import PagedKeyValues
from skipserve_kernels.fused.tiles import Kernel, Tile, architecture, projection_tile

_FEWEST_COLUMNS = 16

# Of the pass that finishes the library's product: a thread holds 32 numbers.
_FINISHING = Tile(rows=32, columns=128, depth=0, num_warps=4, num_stages=1)


@dataclass(frozen=True, slots=True)
class Normed:
    """What a product reads: normed rows, with any stride between them.

    Attributes:
        attention: for queries, keys and values, [N, D]; may be None where none is computed.
        ffn: for the FFN, [N, D]; likewise, and may be the same tensor.
    """

    attention: Tensor | None = None
    ffn: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Projected:
    """Where results of a product go, besides keys and values, with any stride between rows.

    Attributes:
        query: [N, H C]; may be None where none is computed.
        activation: of the FFN, [N, F]; likewise.
    """

    query: Tensor | None = None
    activation: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Bits:
    """With gates, which entries take part in what: those with one of these bits."""

    query: int = 0
    key_value: int = 0
    ffn: int = 0


_NO_BITS = Bits()


def input_projection(
    weights: InputWeights,
    part: Part,
    selection: Selection,
    normed: Normed,
    projected: Projected,
    paged: PagedKeyValues | None = None,
    bits: Bits = _NO_BITS,
) -> None:
    """Compute turned queries and keys, values, and silu(gate) * up, and leave each in its place.

    Few rows take one launch, which reads each weight once. For many, the library computes the
    product, which takes N times the part's rows of new memory, and one pass finishes it; gates are
    for few rows only. All sums and epilogues are float32. NVIDIA GPUs from 8.0 on; H C, K C and 2 F
    multiples of 16, and fast where D is one too.

    Args:
        weights: of the block.
        part: what is computed; what it does not need may be given and is not touched.
        selection: the N rows.
        normed: what is read.
        projected: where the results go.
        paged: positions, and where keys and values go; needed for all but the FFN.
        bits: with gates, who takes part.
    """
    num_rows = selection.num_rows
    width = weights.hidden_size
    attention_input = _checked(normed.attention, part.has_attention, num_rows, width)
    ffn_input = _checked(normed.ffn, part.has_ffn, num_rows, width)
    query = _checked(projected.query, part.has_query, num_rows, weights.query_size)
    activation = _checked(projected.activation, part.has_ffn, num_rows, weights.ffn_size)
    dtype, device = weights.weight.dtype, weights.weight.device
    weight: Tensor | None = weights.weight
    tile = projection_tile(Kernel.INPUT_PROJECTION, num_rows, dtype, architecture(device))
    if tile is None:
        assert selection.gates is None, f"{num_rows} rows with gates: too many for one launch"
        attention_input, ffn_input = _library_products(weights, part, attention_input, ffn_input)
        tile, weight = _FINISHING, None
    _project[_grid(weights, part, num_rows, tile)](
        attention_input,
        ffn_input,
        _row_stride(attention_input),
        _row_stride(ffn_input),
        weight,
        weights.bias,
        selection.index,
        selection.gates,
        bits.query,
        bits.key_value,
        bits.ffn,
        query,
        activation,
        _row_stride(query),
        _row_stride(activation),
        num_rows,
        **_page_arguments(weights, part, paged),
        D=width,
        QN=weights.query_size,
        KVN=weights.key_value_size,
        C=weights.head_size,
        FIRST=weights.rows(part).start,
        ROWS=tile.rows,
        COLUMNS=_tile_columns(weights, tile),
        DEPTH=tile.depth,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )


def _checked(rows: Tensor | None, is_used: bool, num_rows: int, width: int) -> Tensor | None:
    """Return rows [N, width] if they are used, else None."""
    if not is_used:
        return None
    assert rows is not None
    assert rows.shape == (num_rows, width), f"{tuple(rows.shape)}, not {num_rows} x {width}"
    assert rows.stride(1) == 1
    return rows


def _row_stride(rows: Tensor | None) -> int:
    return 0 if rows is None else rows.stride(0)


def _tile_columns(weights: InputWeights, tile: Tile) -> int:
    """Return the most columns that a tile can have and lie within one section."""
    sizes = (weights.query_size, weights.key_value_size, 2 * weights.ffn_size)
    common = gcd(*sizes)
    columns = min(common & -common, tile.columns)
    assert columns >= _FEWEST_COLUMNS, f"no tile divides sections of {sizes} columns"
    return columns


def _grid(weights: InputWeights, part: Part, num_rows: int, tile: Tile) -> tuple[int, int]:
    """Return programs by rows and by columns.

    Those by rows are started first, so that a tile of weights is soon used again.
    """
    num_columns = len(weights.rows(part)) // _tile_columns(weights, tile)
    return triton.cdiv(num_rows, tile.rows), num_columns


def _page_arguments(
    weights: InputWeights, part: Part, paged: PagedKeyValues | None
) -> dict[str, Tensor | None]:
    """Return what the kernel is told of pages: nothing, if the part has no use for them."""
    if not part.has_attention:
        return dict.fromkeys(("KEYS", "VALUES", "SLOTS", "POSITIONS", "FACTORS"))
    assert paged is not None
    paged.check_projection(weights.num_kv_heads, weights.head_size)
    return {
        "KEYS": paged.keys,
        "VALUES": paged.values,
        "SLOTS": paged.slots,
        "POSITIONS": paged.positions,
        "FACTORS": paged.factors,
    }


def _library_products(
    weights: InputWeights, part: Part, attention_input: Tensor | None, ffn_input: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """Return the columns of the attention and of the FFN: one product if the input is one."""
    rows, boundary = weights.rows(part), weights.attention_size
    if attention_input is not None and attention_input is ffn_input:
        product = F.linear(attention_input, weights.weight)
        return product[:, :boundary], product[:, boundary:]
    attention, ffn = None, None
    if attention_input is not None:
        section = weights.weight[rows.start : min(rows.stop, boundary)]
        attention = F.linear(attention_input, section)
    if ffn_input is not None:
        ffn = F.linear(ffn_input, weights.weight[boundary:])
    return attention, ffn


@triton.jit(
    do_not_specialize=["query_bits", "key_value_bits", "ffn_bits", "num_rows"],
    do_not_specialize_on_alignment=["INDEX", "GATES", "SLOTS", "POSITIONS"],
)
def _project(
    ATTENTION_INPUT,
    FFN_INPUT,
    attention_stride,
    ffn_stride,
    WEIGHT,
    BIAS,
    INDEX,
    GATES,
    query_bits,
    key_value_bits,
    ffn_bits,
    QUERY,
    ACTIVATION,
    query_stride,
    activation_stride,
    num_rows,
    KEYS,
    VALUES,
    SLOTS,
    POSITIONS,
    FACTORS,
    D: tl.constexpr,
    QN: tl.constexpr,
    KVN: tl.constexpr,
    C: tl.constexpr,
    FIRST: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Turn what a tile of the product holds into what it means, and store it.

    All its columns lie in one section: queries, keys, values, or the FFN. Without WEIGHT the inputs
    are products already.
    """
    FFN_FIRST: tl.constexpr = QN + 2 * KVN
    first = FIRST + tl.program_id(1) * COLUMNS
    entries = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    takes_part = entries < num_rows
    if GATES is not None:
        bits = tl.where(first < FFN_FIRST, key_value_bits, ffn_bits)
        bits = tl.where(first < QN, query_bits, bits)
        takes_part &= (tl.load(GATES + entries, mask=takes_part, other=0) & bits) != 0
        if tl.max(takes_part.to(tl.int32), axis=0) == 0:
            return
    source, stride = _of_section(
        first < FFN_FIRST, ATTENTION_INPUT, FFN_INPUT, attention_stride, ffn_stride
    )
    columns = first + tl.arange(0, COLUMNS)
    product = _product(
        source + entries[:, None] * stride,
        columns - tl.where(first < FFN_FIRST, FIRST, FFN_FIRST),
        takes_part,
        WEIGHT,
        BIAS,
        columns,
        D,
        ROWS,
        COLUMNS,
        DEPTH,
    )
    if ACTIVATION is not None and first >= FFN_FIRST:
        gate, up = tl.split(tl.reshape(product, (ROWS, COLUMNS // 2, 2)))
        places = (first - FFN_FIRST) // 2 + tl.arange(0, COLUMNS // 2)
        activation = gate * tl.sigmoid(gate) * up
        _store_rows(ACTIVATION, entries, activation_stride, places, activation, takes_part)
    if FACTORS is not None and first < FFN_FIRST:
        rows = _rows_of(INDEX, entries, takes_part)
        if first < QN + KVN:
            product = _turn(product, rows, takes_part, first, POSITIONS, FACTORS, C, ROWS, COLUMNS)
        if QUERY is not None and first < QN:
            _store_rows(QUERY, entries, query_stride, columns, product, takes_part)
        if KEYS is not None and first >= QN:
            slots = tl.load(SLOTS + rows, mask=takes_part, other=-1)
            _store_key_value(KEYS, VALUES, slots, columns, first, product, QN, KVN)


@triton.jit
def _of_section(is_attention, ATTENTION, FFN, attention_stride, ffn_stride):
    """Return the tensor and the row stride that a tile reads; at most one of the two is None."""
    if FFN is None:
        source, stride = ATTENTION, attention_stride
    elif ATTENTION is None:
        source, stride = FFN, ffn_stride
    else:
        source = tl.where(is_attention, ATTENTION, FFN)
        stride = tl.where(is_attention, attention_stride, ffn_stride)
    return source, stride


@triton.jit
def _product(
    source_rows,
    source_columns,
    takes_part,
    WEIGHT,
    BIAS,
    columns,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Return a tile of the product, computed in one pass over both; without WEIGHT, read it."""
    if WEIGHT is None:
        places = source_rows + source_columns[None, :]
        product = tl.load(places, mask=takes_part[:, None], other=0.0).to(tl.float32)
    else:
        depth = tl.arange(0, DEPTH)
        x = source_rows + depth[None, :]
        weight = WEIGHT + columns.to(tl.int64)[None, :] * D + depth[:, None]
        product = tl.zeros((ROWS, COLUMNS), tl.float32)
        for start in tl.range(0, D, DEPTH):
            if D % DEPTH == 0:
                x_tile = tl.load(x, mask=takes_part[:, None], other=0.0)
                weight_tile = tl.load(weight)
            else:
                is_inside = depth < D - start
                x_tile = tl.load(x, mask=takes_part[:, None] & is_inside[None, :], other=0.0)
                weight_tile = tl.load(weight, mask=is_inside[:, None], other=0.0)
            product = tl.dot(x_tile, weight_tile, product, input_precision="ieee")
            x += DEPTH
            weight += DEPTH
    if BIAS is not None:
        product += tl.load(BIAS + columns).to(tl.float32)[None, :]
    return product


@triton.jit
def _rows_of(INDEX, entries, takes_part):
    """Return the rows of the forward that entries belong to."""
    rows = entries
    if INDEX is not None:
        rows = tl.load(INDEX + entries, mask=takes_part, other=0)
    return rows


@triton.jit
def _turn(
    product,
    rows,
    takes_part,
    first,
    POSITIONS,
    FACTORS,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Return heads turned by their rows' positions; zero in rows without a position.

    A tile may be wider or narrower than a head: the columns before it are whole heads, so a
    column's place in its head is a remainder.
    """
    HALF: tl.constexpr = C // 2
    position = tl.load(POSITIONS + rows, mask=takes_part, other=-1)
    pair = (first // 2 + tl.arange(0, COLUMNS // 2)) % HALF
    factor = FACTORS + position[:, None] * C + pair[None, :]
    has_position = position[:, None] >= 0
    cosine = tl.load(factor, mask=has_position, other=0.0)
    sine = tl.load(factor + HALF, mask=has_position, other=0.0)
    one, other = tl.split(tl.reshape(product, (ROWS, COLUMNS // 2, 2)))
    turned = tl.join(one * cosine - other * sine, one * sine + other * cosine)
    return tl.reshape(turned, (ROWS, COLUMNS))


@triton.jit
def _store_rows(OUT, rows, stride, columns, tile, is_stored):
    """Round a tile and store it in some rows and columns of a tensor."""
    places = rows[:, None] * stride + columns[None, :]
    tl.store(OUT + places, tile.to(OUT.dtype.element_ty), mask=is_stored[:, None])


@triton.jit
def _store_key_value(
    KEYS, VALUES, slots, columns, first, tile, QN: tl.constexpr, KVN: tl.constexpr
):
    """Store a tile of keys or of values in the rows' slots, where they have one."""
    if first < QN + KVN:
        _store_rows(KEYS, slots, KVN, columns - QN, tile, slots >= 0)
    else:
        _store_rows(VALUES, slots, KVN, columns - (QN + KVN), tile, slots >= 0)
