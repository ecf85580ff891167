"""Where the fused kernels run, and which decoders; needs no Triton itself."""

import os
import shutil

import torch

from skipserve_policies.sizes import DecoderSizes

_HEAD_SIZES = (16, 32, 64, 128, 256)
_MAX_QUERY_GROUP = 16
# Of a matrix product on a tensor core.
_LEAST_SIDE = 16
_OLDEST_CAPABILITY = (8, 0)


def runs_triton(device: torch.device) -> bool:
    """Return whether a device runs the kernels: NVIDIA's GPUs from the A100 on."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= _OLDEST_CAPABILITY


def fits_triton(sizes: DecoderSizes) -> bool:
    """Return whether the kernels take a decoder: those of all published LLaVA models.

    Its blocks must be of LLaMA's type, whose FFN has a gate: the kernels norm, turn and gate as it
    does. Any other decoder runs in torch's own operations.
    """
    sides = (
        sizes.hidden_size,
        sizes.num_heads * sizes.head_dim,
        sizes.num_kv_heads * sizes.head_dim,
        sizes.ffn_size,
    )
    return (
        sizes.is_gated
        and sizes.head_dim in _HEAD_SIZES
        and sizes.num_heads // sizes.num_kv_heads <= _MAX_QUERY_GROUP
        and all(side % _LEAST_SIDE == 0 for side in sides)
    )


def has_compiler() -> bool:
    """Return whether Triton finds the C compiler with which it builds what starts its kernels."""
    return bool(os.environ.get("CC")) or any(map(shutil.which, ("gcc", "clang")))
