"""Which models the fused kernels can run; needs no Triton itself."""

from skipserve_policies.sizes import DecoderSizes

_HEAD_SIZES = (16, 32, 64, 128, 256)
_MAX_QUERY_GROUP = 16
# Of a matrix product on a tensor core.
_LEAST_SIDE = 16


def fits_triton(sizes: DecoderSizes) -> bool:
    """Return whether the kernels take a decoder's sizes: all of published LLaVA models do."""
    sides = (
        sizes.hidden_size,
        sizes.num_heads * sizes.head_dim,
        sizes.num_kv_heads * sizes.head_dim,
        sizes.ffn_size,
    )
    return (
        sizes.head_dim in _HEAD_SIZES
        and sizes.num_heads // sizes.num_kv_heads <= _MAX_QUERY_GROUP
        and all(side % _LEAST_SIDE == 0 for side in sides)
    )
