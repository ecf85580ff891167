"""What is compiled ahead for a run on a GPU: all kernels, and the tiles that it tries."""

import sys
from pathlib import Path

import pytest
from meta_device import META
from triton.runtime.interpreter import InterpretedFunction

from skipserve_kernels.fused.tiles import TILES

pytestmark = pytest.mark.kernels


def test_everything_that_a_run_launches_is_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(__file__).parents[2] / "benchmarks")])
    from kernel_cache import launches  # noqa: PLC0415
    from on_gpu.bench import Bench  # noqa: PLC0415
    from on_gpu.choices import TRIED  # noqa: PLC0415

    launched: list[tuple[str, object]] = []
    monkeypatch.setattr(
        InterpretedFunction,
        "run",
        lambda kernel, *_, **given: launched.append((kernel.__name__, given.get("num_stages"))),
    )
    table = dict(TILES)
    for launch in launches(Bench(META, "tiny")):
        launch()
    kernels = {"_norm_row", "_project", "_add_rows", "_decode", "_prefill", "_score", "_mean"}
    assert {name for name, _ in launched} == kernels
    for kernel, name in (("paged_decode", "_decode"), ("paged_prefill", "_prefill")):
        tried = {tile.num_stages for tile in TRIED[next(k for k in TRIED if k[0] == kernel)]}
        assert tried <= {stages for found, stages in launched if found == name}
    assert table == TILES
