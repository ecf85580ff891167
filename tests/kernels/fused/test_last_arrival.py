"""How the last of several programs learns that it is the last."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor
from triton_interpreter import shuffled

from skipserve_kernels.fused.input_projection.inputs import Sizes
from skipserve_kernels.fused.last_arrival import arrives_last
from skipserve_kernels.fused.launch import Launch, Scratch, Selection
from skipserve_kernels.fused.output_projection import triton as output_projection
from skipserve_kernels.fused.output_projection.inputs import make_inputs
from skipserve_kernels.fused.paged_decode import triton as paged_decode
from skipserve_kernels.fused.paged_decode.inputs import make_pages
from skipserve_kernels.fused.tiles import MAX_FUSED_ROWS, architecture
from skipserve_kernels.projection import Projection

pytestmark = pytest.mark.kernels

# Numbers of rows at which programs of a model of 32 heads share results.
SPLIT_AT = {"projection": (1, 2, 4, 16, 64), "attention": (1, 2, 4)}

# Computes one thing, whose programs share a piece of scratch memory.
Run = Callable[[], Tensor]


def _kernel(function: Callable[..., Any]) -> Any:
    """Decorate a kernel; Triton's own decorator has no types."""
    return triton.jit(function)


@_kernel
def _count(parts: Any, sums: Any, arrivals: Any, NUM: tl.constexpr) -> None:
    """Add up what the programs of each place have stored; each last one adds once."""
    place, part = tl.program_id(0), tl.program_id(1)
    tl.store(parts + place * NUM + part, 10 * place + part + 1)
    if arrives_last(arrivals, place, NUM):
        total = tl.load(sums + place)
        for other in tl.static_range(NUM):
            total += tl.load(parts + place * NUM + other)
        tl.store(sums + place, total)


@pytest.mark.fast
@pytest.mark.parametrize("num", [1, 2, 5])
def test_one_program_finds_all_parts(num: int) -> None:
    arrivals = torch.zeros(3, dtype=torch.int32)
    for seed in range(3):
        parts, sums = torch.zeros(3 * num, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)
        with shuffled(seed):
            _count[(3, num)](parts, sums, arrivals, num)
        first = num * (num + 1) // 2
        assert sums.tolist() == [first, first + 10 * num, first + 20 * num]
        assert not arrivals.any()


def projections(num_rows: int, block: Sizes, scratch: Scratch) -> list[Run]:
    """Return output projections of two inputs."""
    inputs = make_inputs(
        num_rows,
        block.hidden,
        block.heads * block.head,
        block.ffn,
        dtype=torch.bfloat16,
        device=scratch.parts.device,
    )

    rows = Launch(Selection(num_rows), scratch)

    def launch(x: Tensor) -> Run:
        def project() -> Tensor:
            hidden = inputs.hidden.clone()
            layer = Projection(inputs.weights.weight)
            output_projection.output_projection(x, layer, hidden, rows)
            return hidden

        return project

    return [launch(inputs.x), launch(-inputs.x)]


def attentions(num_rows: int, block: Sizes, scratch: Scratch) -> list[Run]:
    """Return decode attention of two queries to the same keys."""
    device = scratch.parts.device
    context = 648 if device.type == "cuda" else 130
    pages = make_pages(
        [context] * num_rows,
        num_heads=block.kv_heads,
        head_size=block.head,
        page_size=16,
        dtype=torch.bfloat16,
        device=device,
    )
    paged = pages.seen_from(torch.full((num_rows,), context - 1, device=device))
    rows = Launch(Selection(num_rows), scratch)

    def launch(query: Tensor) -> Run:
        def attend() -> Tensor:
            out = torch.empty_like(query.flatten(1))
            paged_decode.paged_decode(query, paged, out, rows)
            return out

        return attend

    generator = torch.Generator(device).manual_seed(0)
    shape = (num_rows, block.heads, block.head)
    query = torch.randn(shape, generator=generator, device=device).bfloat16()
    return [launch(query), launch(-query)]


KINDS = {"projection": projections, "attention": attentions}


def count_changes(kind: str, num_rows: int, block: Sizes, device: torch.device) -> int:
    """Launch on two inputs in turn, often on a GPU; return how often the bits were other ones.

    What one launch leaves in the scratch memory is wrong for the next. What is compared with was
    computed when nothing in it meant anything.
    """
    sizes = block.heads, block.kv_heads, block.head, architecture(device)
    num_parts, num_arrivals = map(
        max,
        output_projection.scratch_sizes(MAX_FUSED_ROWS, block.hidden),
        paged_decode.scratch_sizes(MAX_FUSED_ROWS, *sizes),
    )
    scratch = Scratch.empty(num_parts, num_arrivals, device)
    launches, expected = KINDS[kind](num_rows, block, scratch), []
    for launch in launches:
        scratch.parts.fill_(torch.nan)
        expected.append(launch())
    changes = torch.zeros((), dtype=torch.int64, device=device)
    for _ in range(1000 if device.type == "cuda" else 1):
        for launch, wanted in zip(launches, expected, strict=True):
            changes += (launch() != wanted).any()
    return int(changes.item())


@pytest.mark.parametrize(
    ("kind", "num_rows"), [(kind, count) for kind in KINDS for count in SPLIT_AT[kind]]
)
def test_launches_give_the_same_bits(
    kind: str, num_rows: int, block: Sizes, device: torch.device
) -> None:
    assert count_changes(kind, num_rows, block, device) == 0


@_kernel
def _arrives_first(ARRIVALS: Any, place: Any, num: Any) -> Any:
    """Return whether this is the first program to arrive, when the others' parts are missing."""
    num_earlier = tl.atomic_add(ARRIVALS + place, 1)
    tl.store(ARRIVALS + place, 0, mask=num_earlier == num - 1)
    return num_earlier == 0


@pytest.mark.fast
@pytest.mark.parametrize("kind", KINDS)
def test_parts_that_are_read_too_early_are_found(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Sizes(hidden=64, heads=4, kv_heads=4, head=16, ffn=96)
    for module in (output_projection, paged_decode):
        monkeypatch.setattr(module, "arrives_last", _arrives_first)
    assert count_changes(kind, 1, small, torch.device("cpu")) > 0
