"""The parts of a step's time, and which operator or kernel belongs to which."""

from collections.abc import Mapping
from enum import StrEnum


class Stage(StrEnum):
    """Which steps: those with rows of prompts, or those in which all requests decode."""

    PROMPT = "prompt"
    DECODE = "decode"


class Part(StrEnum):
    """A part of a step's time, by the name that a reader sees."""

    WEIGHTS = "reading weights"
    ARITHMETIC = "arithmetic"
    ATTENTION = "attention"
    ELEMENTWISE = "elementwise"
    ROWS = "gathers and puts"
    CALLS = "calls"
    PICTURE = "picture"
    HOST = "host"
    OTHER = "other"


# What the parts hold, for readers.
MEANING: Mapping[Part, str] = {
    Part.WEIGHTS: "an estimate: the bytes of the layers that run, at the bandwidth of the same run",
    Part.ARITHMETIC: "the rest of the time of matrix products",
    Part.ATTENTION: "scores, softmax and mixing, with the reading of keys and values",
    Part.ELEMENTWISE: "norms, activations, rotary, residuals, conversions",
    Part.ROWS: "choosing, taking, putting and joining rows, writes of keys and values, embedding",
    Part.CALLS: "what each operation costs whatever its size: views, allocations, dispatch, Python",
    Part.PICTURE: "vision tower and projector, and what reduces images before the language model",
    Part.HOST: "all outside of the model: schedule, inputs, sampling, outputs",
    Part.OTHER: "operators that the table does not know",
}

# The table names matrix products by their arithmetic; `time_split.py` takes the reading out of it.
_PRODUCTS = """
    _linear_pointwise addmm mkldnn_linear mm
"""
# Batched products are the scores of rows that are ranked.
_ATTENTION = """
    _scaled_dot_product_attention_math _scaled_dot_product_efficient_attention
    _scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_for_cpu _softmax
    baddbmm bmm
"""
_ELEMENTWISE = """
    abs add add_ addcmul addcmul_ clamp clamp_min copy_ cos div div_ exp gelu
    hypot_ isfinite le lerp linalg_vector_norm log lt mean mul mul_ native_layer_norm ne neg
    norm pow relu roll rsqrt rsub sigmoid silu sin sqrt square sub sub_ sum tanh
"""
# Whatever ranks rows, or makes masks and places of them, is here too.
_ROWS = """
    __iand__ __ior__ __or__ _index_put_impl_ all amin any arange argmax argmin argsort
    bitwise_and_ bitwise_not bitwise_or bitwise_or_ cat cumsum embedding eq fill_diagonal_
    gather ge gt index index_copy index_copy_ index_fill index_fill_ index_put index_put_
    index_select masked_fill masked_fill_ max nonzero scatter scatter_ sort stack
    take_along_dim topk tril where
"""
_CALLS = """
    _local_scalar_dense _reshape_alias _to_copy _unsafe_view alias allclose as_strided
    as_strided_ broadcast_to chunk clone contiguous detach detach_ diagonal empty empty_like
    empty_strided expand expand_as fill_ flatten full full_like is_nonzero isclose item
    layer_norm lift_fresh linear matmul narrow new_empty new_full new_zeros normalize numpy_T
    ones ones_like permute reshape resize_ resolve_conj resolve_neg result_type
    scaled_dot_product_attention select set_ slice softmax split split_with_sizes squeeze
    squeeze_ t to transpose transpose_ unbind unflatten unsqueeze view zero_ zeros zeros_like
"""

OPERATORS: Mapping[str, Part] = {
    name: part
    for part, names in {
        Part.ARITHMETIC: _PRODUCTS,
        Part.ATTENTION: _ATTENTION,
        Part.ELEMENTWISE: _ELEMENTWISE,
        Part.ROWS: _ROWS,
        Part.CALLS: _CALLS,
    }.items()
    for name in names.split()
}

# Pieces of the names of kernels on a GPU, in lower case; the first that occurs decides. Ours have
# the names of their Triton functions.
KERNELS: Mapping[str, Part] = {
    "_prefill": Part.ATTENTION,
    "_decode": Part.ATTENTION,
    "_score": Part.ATTENTION,
    "flash": Part.ATTENTION,
    "fmha": Part.ATTENTION,
    "softmax": Part.ATTENTION,
    "_project": Part.ARITHMETIC,
    "gemm": Part.ARITHMETIC,
    "gemv": Part.ARITHMETIC,
    "nvjet": Part.ARITHMETIC,
    "cutlass": Part.ARITHMETIC,
    "splitk": Part.ARITHMETIC,
    "_norm_row": Part.ELEMENTWISE,
    "_add_rows": Part.ELEMENTWISE,
    "index": Part.ROWS,
    "gather": Part.ROWS,
    "scatter": Part.ROWS,
    "sort": Part.ROWS,
    "topk": Part.ROWS,
    "catarray": Part.ROWS,
    "memcpy": Part.ROWS,
    "memset": Part.ROWS,
    "_mean": Part.ELEMENTWISE,
    "elementwise": Part.ELEMENTWISE,
    "reduce": Part.ELEMENTWISE,
    "layer_norm": Part.ELEMENTWISE,
}


def part_of_operator(name: str) -> Part:
    """Return the part of an operator on the host, such as `aten::mm`."""
    return OPERATORS.get(name.rpartition("::")[2], Part.OTHER)


def part_of_kernel(name: str) -> Part:
    """Return the part of a kernel on a GPU."""
    lower = name.lower()
    return next((part for piece, part in KERNELS.items() if piece in lower), Part.OTHER)
