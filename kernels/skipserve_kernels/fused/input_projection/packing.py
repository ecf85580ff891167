"""The weights of an input projection and the factors of its turns, as the kernels read them."""

from dataclasses import dataclass
from enum import Enum, auto

import torch
from torch import Tensor

from skipserve_kernels.projection import Projection


class Part(Enum):
    """What of a block's inputs a product computes: neighbouring rows of the packed weight."""

    QUERY = auto()
    KEY_VALUE = auto()
    QUERY_KEY_VALUE = auto()
    FFN = auto()
    ALL = auto()

    @property
    def has_query(self) -> bool:
        """Return whether queries are computed."""
        return self in (Part.QUERY, Part.QUERY_KEY_VALUE, Part.ALL)

    @property
    def has_key_value(self) -> bool:
        """Return whether keys and values are computed."""
        return self in (Part.KEY_VALUE, Part.QUERY_KEY_VALUE, Part.ALL)

    @property
    def has_attention(self) -> bool:
        """Return whether anything is computed from the input of the attention."""
        return self is not Part.FFN

    @property
    def has_ffn(self) -> bool:
        """Return whether the FFN's activation is computed."""
        return self in (Part.FFN, Part.ALL)


@dataclass(frozen=True, slots=True)
class InputWeights:
    """The rows of queries, keys, values and the FFN below each other.

    Inside each head of queries and keys, the two numbers that a position turns together, HF's d and
    d + C / 2, are neighbours, 2 d and 2 d + 1. Scores do not notice, and cached keys stay in that
    order. The FFN's rows alternate: gate 0, up 0, gate 1, up 1, ... So all that an epilogue
    combines lies in neighbouring columns.

    Attributes:
        weight: [H C + 2 K C + 2 F, D], contiguous.
        bias: [H C + 2 K C + 2 F], or None.
        num_heads: H.
        num_kv_heads: K.
        head_size: C.
        ffn_size: F.
    """

    weight: Tensor
    bias: Tensor | None
    num_heads: int
    num_kv_heads: int
    head_size: int
    ffn_size: int

    @property
    def hidden_size(self) -> int:
        """Return D."""
        return self.weight.shape[1]

    @property
    def query_size(self) -> int:
        """Return H C."""
        return self.num_heads * self.head_size

    @property
    def key_value_size(self) -> int:
        """Return K C."""
        return self.num_kv_heads * self.head_size

    @property
    def attention_size(self) -> int:
        """Return the number of rows of queries, keys and values: where the FFN's begin."""
        return self.query_size + 2 * self.key_value_size

    def rows(self, part: Part) -> range:
        """Return the rows of the weight that compute a part."""
        start, stop = 0, self.attention_size
        if part is Part.QUERY:
            stop = self.query_size
        elif part is Part.KEY_VALUE:
            start = self.query_size
        elif part is Part.FFN:
            start = self.attention_size
        if part.has_ffn:
            stop = len(self.weight)
        return range(start, stop)


def pack_inputs(
    query: Projection,
    key: Projection,
    value: Projection,
    gate: Projection,
    up: Projection,
    *,
    head_size: int,
) -> InputWeights:
    """Copy the five layers, in HF's order of rows, into one; the originals can go.

    Where only some have a bias, the others' is zero.
    """
    layers = (query, key, value, gate, up)
    sizes = [len(layer.weight) for layer in layers]
    assert sizes[1] == sizes[2]
    assert sizes[3] == sizes[4]
    assert sizes[0] % head_size == 0
    assert sizes[1] % head_size == 0
    bias = None
    if any(layer.bias is not None for layer in layers):
        bias = _pack_rows([_bias_or_zeros(layer) for layer in layers], head_size)
    return InputWeights(
        weight=_pack_rows([layer.weight for layer in layers], head_size),
        bias=bias,
        num_heads=sizes[0] // head_size,
        num_kv_heads=sizes[1] // head_size,
        head_size=head_size,
        ffn_size=sizes[3],
    )


def pack_factors(cosine: Tensor, sine: Tensor) -> Tensor:
    """Return the factors of positions, [P, C] each with both halves alike, as [P, 2, C / 2]."""
    half = cosine.shape[1] // 2
    return torch.stack((cosine[:, :half], sine[:, :half]), dim=1).float().contiguous()


def _bias_or_zeros(layer: Projection) -> Tensor:
    return layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias


def _pack_rows(layers: list[Tensor], head_size: int) -> Tensor:
    """Copy the rows of query, key, value, gate and up to their places in one tensor."""
    query, key, value, gate, up = layers
    width = query.shape[1:]
    packed = query.new_empty(sum(map(len, layers)), *width)
    start = 0
    for rows in (query, key):
        halves = rows.view(-1, 2, head_size // 2, *width).transpose(1, 2)
        packed[start : start + len(rows)].view(halves.shape).copy_(halves)
        start += len(rows)
    packed[start : start + len(value)].copy_(value)
    alternating = packed[start + len(value) :].view(-1, 2, *width)
    alternating[:, 0].copy_(gate)
    alternating[:, 1].copy_(up)
    return packed
