"""Every operator that a forward calls has its part."""

from pathlib import Path

import pytest
import torch
from plans import policies_for
from questions import QuestionSource
from splitting import parts
from splitting.parts import KERNELS, MEANING, OPERATORS, Part, part_of_kernel, part_of_operator
from splitting.trace import Profiled, read_events, split
from splitting.watched import WatchedEngine
from tiny_llava import make_checkpoint
from torch.profiler import ProfilerActivity, profile

from skipserve.model.llava import Llava

pytestmark = pytest.mark.fast


# A width that computes in float32, and one that computes in bfloat16, in products of oneDNN; the
# product that each calls.
WIDTHS = {32: "aten::mm", 288: "mkldnn::_linear_pointwise"}


@pytest.mark.parametrize("width", WIDTHS)
def test_each_operator_of_every_policy_has_a_part(width: int, tmp_path: Path) -> None:
    """All policies are in one batch, so their operators are those of one run."""
    num_heads = width // 16
    folder = make_checkpoint(
        tmp_path, num_layers=8, hidden=width, num_heads=num_heads, num_kv_heads=num_heads, ffn=48
    )
    llava = Llava.load(folder, torch.device("cpu"), torch.bfloat16)
    source, engine = QuestionSource(llava.config, seed=0), WatchedEngine(llava)
    policies = policies_for(llava.config.sizes)
    assert len(policies) > 40
    with profile(activities=[ProfilerActivity.CPU]) as found:
        engine.answer([source.question(10, 3, policy=policy) for policy in policies])
    events, on_device = read_events(found)
    pieces = Profiled.of(split(events, on_device=on_device))
    names = {part: {name for _, own, name in pieces.labels if own is part} for part in Part}
    assert not names[Part.OTHER]
    assert names[Part.PICTURE]
    assert names[Part.HOST]
    assert "aten::_scaled_dot_product_flash_attention_for_cpu" in names[Part.ATTENTION]
    assert {"aten::index_select", "aten::index_copy"} <= names[Part.ROWS]
    assert WIDTHS[width] in names[Part.ARITHMETIC]


def test_no_operator_is_in_two_parts() -> None:
    lists = (parts._PRODUCTS, parts._ATTENTION, parts._ELEMENTWISE, parts._ROWS, parts._CALLS)
    assert sum(len(names.split()) for names in lists) == len(OPERATORS)


def test_each_part_has_a_meaning() -> None:
    assert set(MEANING) == set(Part)


def test_an_unknown_operator_is_other() -> None:
    assert part_of_operator("aten::mm") is Part.ARITHMETIC
    assert part_of_operator("aten::never_heard_of") is Part.OTHER


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("_project", Part.ARITHMETIC),
        ("_decode", Part.ATTENTION),
        ("_prefill", Part.ATTENTION),
        ("_norm_row", Part.ELEMENTWISE),
        ("_add_rows", Part.ELEMENTWISE),
        ("nvjet_sm90_tst_128x256_64x4_1x2_h_bz_coopA_TNT", Part.ARITHMETIC),
        ("void at::native::vectorized_elementwise_kernel<4, ...>", Part.ELEMENTWISE),
        ("void at::native::indexSelectLargeIndex<...>", Part.ROWS),
        ("Memcpy DtoD (Device -> Device)", Part.ROWS),
        ("strange", Part.OTHER),
    ],
)
def test_kernels_go_by_pieces_of_their_names(name: str, part: Part) -> None:
    assert part_of_kernel(name) is part


def test_each_launched_kernel_of_ours_has_a_part() -> None:
    """A kernel is launched by `name[grid](`."""
    sources = Path(parts.__file__).parents[2] / "kernels/skipserve_kernels/fused"
    launched = {
        line.strip().partition("[")[0]
        for file in sources.rglob("triton.py")
        for line in file.read_text().splitlines()
        if line.startswith("    _") and "](" in line and "=" not in line.partition("](")[0]
    }
    assert {"_project", "_decode", "_prefill", "_norm_row"} <= launched
    assert all(part_of_kernel(name) is not Part.OTHER for name in launched), KERNELS
