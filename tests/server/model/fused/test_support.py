"""Which models and devices the fused kernels take."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from skipserve.model.fused.support import fits_triton, runs_triton
from skipserve_policies.sizes import KNOWN_MODELS

pytestmark = pytest.mark.fast

LLAVA_7B = KNOWN_MODELS["llava-1.5-7b"].decoder


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"hidden_size": 5120, "num_heads": 40, "num_kv_heads": 40, "ffn_size": 13824}, True),
        ({"num_kv_heads": 2}, True),
        ({"num_kv_heads": 1}, False),
        ({"head_dim": 96}, False),
        ({"head_dim": 8}, False),
        ({"ffn_size": 11000}, False),
        ({"hidden_size": 4088}, False),
        ({"is_gated": False}, False),
    ],
)
def test_sizes(changes: dict[str, Any], fits: bool) -> None:
    assert fits_triton(replace(LLAVA_7B, **changes)) is fits


def test_a_cpu_does_not_run_them() -> None:
    assert not runs_triton(torch.device("cpu"))


@pytest.mark.parametrize(("capability", "runs"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_gpus_do_from_the_a100_on(
    capability: tuple[int, int], runs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert runs_triton(torch.device("cuda")) is runs
