"""What torch is asked to compute: products of matrices, and the pairs that attention looks at."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from skipserve_policies.sizes import DecoderSizes

T = TypeVar("T")

_PRODUCTS = (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.linear, torch.ops.aten.bmm)


@dataclass(frozen=True)
class OperationCounts:
    """What was executed.

    Attributes:
        products: FLOPs of products of matrices.
        num_pairs: (query, key) pairs of each head that attention was asked for.
    """

    products: int
    num_pairs: int

    def flops(self, sizes: DecoderSizes) -> int:
        """Return all FLOPs, as the formula counts them."""
        return self.products + 4 * sizes.num_heads * sizes.head_dim * self.num_pairs


class _PairCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the (query, key) pairs of each head that attention is asked for."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.num_pairs = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Look at attention; run everything."""
        kwargs = kwargs or {}
        if func is torch.ops.aten.scaled_dot_product_attention.default:
            self.num_pairs += _pairs(args[0].shape[2], args[1].shape[2], is_causal=False)
        if func is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default:
            query, keys, _, *dropout_and_causality = args
            is_causal = dropout_and_causality[1:] == [True]
            self.num_pairs += _pairs(query.shape[2], keys.shape[2], is_causal, **kwargs)
        return func(*args, **kwargs)


def _pairs(
    num_queries: int, num_keys: int, is_causal: bool, attn_mask: torch.Tensor | None = None
) -> int:
    if is_causal:
        assert num_queries == num_keys
        return num_queries * (num_queries + 1) // 2
    if attn_mask is None:
        return num_queries * num_keys
    return int((attn_mask == 0).sum())


def count_operations(run: Callable[[], T]) -> tuple[T, OperationCounts]:
    """Run something, and return what it gives with what it executed."""
    flops, pairs = FlopCounterMode(display=False), _PairCounter()
    with flops, pairs:
        result = run()
    by_operation = flops.get_flop_counts()["Global"]
    products = sum(by_operation[op] for op in by_operation if op in _PRODUCTS)
    return result, OperationCounts(products, pairs.num_pairs)
