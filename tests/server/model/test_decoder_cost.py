"""What a forward really launches: as many FLOPs as are counted, and nothing for an idle layer."""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import torch
from catalog_parts import skipping_policies
from model_batches import Piece, Rows, build_batch, poisoned_cache, scattered_pages
from operation_counts import count_operations
from tiny_llava import make_checkpoint
from tiny_opt import OptShape
from torch.utils._python_dispatch import TorchDispatchMode

from skipserve.model.layers import KVCache
from skipserve.model.llava import Llava
from skipserve.model.plain.layers import PlainLayers
from skipserve_policies.flops import count_rows, decoder_flops, head_flops
from skipserve_policies.plan import Plan, TokenClass, trim
from skipserve_policies.resolve import resolve

NUM_LAYERS = 32
CATALOG = skipping_policies()


WIDTH = 32
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"hidden": WIDTH, "num_kv_heads": 2},
    "opt": {"hidden": WIDTH, "opt": OptShape()},
    "opt-350m": {"hidden": 48, "opt": OptShape(is_post_norm=True, word_size=WIDTH)},
}


# OPT's type runs the same plans in other products: some policies show them all.
COUNTED = [("llama", name) for name in CATALOG] + [
    (shape, name)
    for shape in ("opt", "opt-350m")
    for name in ("opskip-7b-20", "parallel-ffn-attention-every-3-from-16-all", "exit-after-24")
]


@pytest.fixture(scope="module", params=["llama"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Llava:
    folder = tmp_path_factory.mktemp("models") / request.param
    shape = SHAPES[request.param]
    make_checkpoint(folder, num_layers=NUM_LAYERS, ffn=48, num_heads=4, **shape)
    model = Llava.load(folder, torch.device("cpu"), torch.float32)
    # What a library can do is tried once, by products that no formula counts.
    executed_flops(model, make_rows(2, 1), trim(Plan.full(NUM_LAYERS)), 0, 3)
    return model


def make_rows(num_visual: int, num_generated: int) -> Rows:
    classes = [TokenClass.TEXT] * 3 + [TokenClass.VISUAL] * num_visual + [TokenClass.TEXT] * 2
    classes += [TokenClass.LAST] + [TokenClass.GENERATED] * num_generated
    return Rows(
        ids=torch.arange(5, 5 + len(classes)),
        classes=tuple(classes),
        features=torch.randn(num_visual, WIDTH),
        is_visual=torch.tensor([c is TokenClass.VISUAL for c in classes]),
    )


def cleared_cache(model: Llava, num_positions: int) -> KVCache:
    """Return a cache of zeros: pieces of a sequence are run without what precedes them."""
    cache = poisoned_cache(model, num_positions)
    for layer in cache.layers:
        layer.keys.zero_()
        layer.values.zero_()
    return cache


def executed_flops(model: Llava, rows: Rows, plan: Plan, start: int, stop: int) -> int:
    """Run rows and count: products of matrices as torch counts them, attention by its pairs."""
    sizes = model.config.sizes.decoder
    (pages,) = scattered_pages(len(rows))
    batch = build_batch([Piece(rows, plan, start, stop, pages)], [stop - start - 1])
    cache = cleared_cache(model, len(rows))
    _, counted = count_operations(lambda: model.forward(batch, cache))
    return counted.flops(sizes)


@pytest.mark.parametrize(("model", "name"), COUNTED, indirect=["model"])
def test_a_forward_executes_what_is_counted(model: Llava, name: str) -> None:
    sizes = model.config.sizes.decoder
    resolved = resolve(name, CATALOG[name], NUM_LAYERS)
    rows = make_rows(num_visual=9, num_generated=1)
    num_prompt = len(rows) - 1
    for plan, start, stop in (
        (resolved.untrimmed, 0, num_prompt),
        (resolved.plan, 5, num_prompt),
        (resolved.plan, num_prompt, len(rows)),
    ):
        counted = count_rows(rows.classes[start:stop], first_position=start)
        expected = decoder_flops(sizes, plan, counted) + head_flops(sizes, 1)
        assert executed_flops(model, rows, plan, start, stop) == expected


@pytest.mark.fast
@pytest.mark.parametrize("model", SHAPES, indirect=True)
def test_the_full_model_executes_what_is_counted(model: Llava) -> None:
    sizes = model.config.sizes.decoder
    rows = make_rows(num_visual=4, num_generated=0)
    plan = trim(Plan.full(NUM_LAYERS))
    expected = decoder_flops(sizes, plan, count_rows(rows.classes)) + head_flops(sizes, 1)
    assert executed_flops(model, rows, plan, 0, len(rows)) == expected


class Touched(TorchDispatchMode):
    """Remembers the memory of all tensors that operations are given."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Note the tensors; run everything."""
        self.addresses |= {a.untyped_storage().data_ptr() for a in _tensors(args)}
        return func(*args, **(kwargs or {}))


def _tensors(values: Any) -> list[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        return [values]
    return [t for v in values for t in _tensors(v)] if isinstance(values, (list, tuple)) else []


def addresses_of_block(model: Llava, layer: int) -> set[int]:
    layers = model._decoder.layers
    assert isinstance(layers, PlainLayers)
    return {tensor.untyped_storage().data_ptr() for tensor in _tensors_of(layers.blocks[layer])}


def _tensors_of(part: Any) -> list[torch.Tensor]:
    """Return the weights of a part of a block, and of the parts inside it."""
    if isinstance(part, torch.Tensor):
        return [part]
    if not is_dataclass(part):
        return []
    return [t for field in fields(part) for t in _tensors_of(getattr(part, field.name))]


@pytest.mark.fast
@pytest.mark.parametrize(
    ("name", "idle_in_prefill", "idle_in_decode"),
    [
        ("full", set(), set()),
        ("skip-block-every-3-from-16", set(), {18, 21, 24, 27, 30}),
        ("skip-block-every-3-from-16-all", {18, 21, 24, 27, 30}, {18, 21, 24, 27, 30}),
        ("exit-after-24", set(range(25, 32)), set(range(25, 32))),
    ],
)
def test_a_layer_that_no_row_needs_is_not_launched(
    model: Llava, name: str, idle_in_prefill: set[int], idle_in_decode: set[int]
) -> None:
    plan = resolve(name, CATALOG[name], NUM_LAYERS).plan
    rows = make_rows(num_visual=4, num_generated=1)
    cache = cleared_cache(model, len(rows))
    (pages,) = scattered_pages(len(rows))
    last = len(rows) - 1
    for start, stop, idle in ((0, last, idle_in_prefill), (last, len(rows), idle_in_decode)):
        batch = build_batch([Piece(rows, plan, start, stop, pages)], [stop - start - 1])
        with Touched() as touched:
            model.forward(batch, cache)
        launched = {
            layer
            for layer in range(NUM_LAYERS)
            if addresses_of_block(model, layer) & touched.addresses
        }
        assert launched == set(range(NUM_LAYERS)) - idle
