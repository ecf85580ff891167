"""Tests of the arguments of `LLaVA`."""

from pathlib import Path
from typing import Any

import pytest
import torch

from skipserve.engine.limits import EngineLimits
from skipserve.model_folder import StartError
from skipserve.offline.arguments import (
    checked_count,
    checked_device,
    checked_dtype,
    checked_limits,
    checked_path,
    checked_threads,
    name_arguments,
)

pytestmark = pytest.mark.fast


def limits(**fields: Any) -> EngineLimits:
    return EngineLimits(**fields)


def test_what_is_taken() -> None:
    assert checked_path("model", "a") == checked_path("model", Path("a")) == Path("a")
    assert checked_dtype("bfloat16") == checked_dtype(torch.bfloat16) == "bfloat16"
    assert checked_device("auto") == "auto"
    assert checked_device(torch.device("cpu")) == "cpu"
    assert checked_device("cuda:1") == checked_device(torch.device("cuda", 1)) == "cuda:1"
    assert checked_count("num_threads", 3) == 3
    assert checked_threads(None) is None
    assert checked_threads(1024) == 1024
    assert checked_limits(None) == EngineLimits()
    given = limits(max_batch_tokens=64, page_size=1, kv_cache_bytes=10**9)
    assert checked_limits(given) is given


@pytest.mark.parametrize(
    ("check", "value", "told"),
    [
        (lambda it: checked_path("policies", it), 5, "policies is 5; it must be a path"),
        (lambda it: checked_path("model", it), None, "model is None; it must be a path"),
        (checked_dtype, "float23", "dtype is 'float23'; it must be one of auto, float32, "),
        (checked_dtype, torch.int8, "dtype is torch.int8; it must be one of auto, float32, "),
        (checked_device, "gpu", "device is 'gpu'; it must be auto, cpu, cuda, or "),
        (checked_device, "mps", "device is 'mps'; it must be auto, cpu, cuda, or "),
        (checked_device, None, "device is None; it must be auto, cpu, cuda, or "),
        (checked_device, [], "device is []; it must be auto, cpu, cuda, or "),
        *(
            (lambda it: checked_count("num_threads", it), it, f"num_threads is {it!r}; it must be")
            for it in (0, -1, "2", 1.0, True, None)
        ),
        (checked_limits, {"max_running": 1}, "limits is {'max_running': 1}; it must be Engine"),
        (checked_limits, EngineLimits(max_running=0), "max_running is 0; it must be a whole"),
        (checked_limits, EngineLimits(max_batch_tokens=0), "max_batch_tokens is 0; it must be"),
        (checked_limits, EngineLimits(kv_cache_bytes=0), "kv_cache_bytes is 0; it must be a whole"),
        *(
            (checked_limits, limits(encoder_cache_bytes=it), f"encoder_cache_bytes is {it!r}")
            for it in (-1, None, "1", 2.5)
        ),
        *(
            (checked_limits, limits(**{name: it}), f"{name} is {it!r}; it must be True or F")
            for name in ("reuses_prefixes", "looks_ahead", "uses_graphs")
            for it in ("no", 0, 1)
        ),
        (checked_limits, limits(reuses_prefixes=None), "reuses_prefixes is None; it must"),
        (checked_threads, 10**9, "num_threads is 1000000000; it must be a whole number from 1 to"),
        (checked_threads, "2", "num_threads is '2'; it must be"),
        (checked_limits, EngineLimits(page_size=24), "page_size is 24; it must be a power of two"),
    ],
)
def test_what_is_refused(check: Any, value: Any, told: str) -> None:
    with pytest.raises(StartError) as caught:
        check(value)
    assert str(caught.value).startswith(told)


def test_flags_of_the_command_line_become_arguments() -> None:
    said = "--kv-cache-gib asks for 2 GiB: set at least --kv-cache-gib 2.5. Lower"
    assert name_arguments(said) == (
        f"kv_cache_bytes asks for 2 GiB: set at least kv_cache_bytes={5 * 2**29}. Lower"
    )
    said = "steps (--max-batch-tokens 64), images (--encoder-cache-mib 3), graphs"
    assert name_arguments(f"{said} (--no-cuda-graphs), --max-running-requests") == (
        f"steps (max_batch_tokens=64), images (encoder_cache_bytes={3 * 2**20}), graphs "
        "(uses_graphs=False), max_running"
    )
    assert name_arguments("nothing -- at all") == "nothing -- at all"
