"""Devices, dtypes and models that a spec names."""

from pathlib import Path

import pytest
import torch
from tiny_llava import make_checkpoint

from skipserve.engine.limits import EngineLimits, EngineSpec
from skipserve.engine.loading import load, resolve_device, resolve_dtype
from skipserve.errors import EngineError

pytestmark = pytest.mark.fast

CPU = torch.device("cpu")
CUDA = torch.device("cuda")


@pytest.mark.parametrize(
    ("name", "device", "declared", "dtype"),
    [
        ("auto", CPU, "float32", torch.float32),
        ("auto", CPU, "bfloat16", torch.bfloat16),
        ("auto", CPU, "float16", torch.bfloat16),
        ("auto", CPU, None, torch.float32),
        ("auto", CPU, "float64", torch.float32),
        ("auto", CUDA, "float64", torch.float32),
        ("auto", CUDA, "float16", torch.float16),
        ("float16", CPU, "float32", torch.float16),
        ("float32", CUDA, "float16", torch.float32),
    ],
)
def test_the_dtype_is_what_was_asked_for_or_declared(
    name: str, device: torch.device, declared: str | None, dtype: torch.dtype
) -> None:
    assert resolve_dtype(name, device, declared) is dtype


def test_the_device_is_what_was_asked_for_or_a_gpu_where_there_is_one() -> None:
    assert resolve_device("cpu") == CPU
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_told(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"the device is cuda:0, but .* no CUDA device"):
        load(EngineSpec(tmp_path, device="cuda:0"))


@pytest.mark.parametrize("declared", [None, "auto"])
def test_without_a_declaration_the_dtype_is_that_of_the_weights(
    tmp_path: Path, declared: str | None
) -> None:
    make_checkpoint(tmp_path, dtype=torch.bfloat16, top_config=(("dtype", declared),))
    limits = EngineLimits(page_size=8, kv_cache_bytes=10**6)
    assert load(EngineSpec(tmp_path, device="cpu", limits=limits))[1].dtype == "bfloat16"


def test_a_model_is_loaded_as_its_spec_says(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model")
    limits = EngineLimits(page_size=8, kv_cache_bytes=10**6)
    spec = EngineSpec(folder, device="cpu", dtype="bfloat16", num_threads=1, limits=limits)
    engine, ready = load(spec)
    assert (ready.device, ready.dtype) == ("cpu", "bfloat16")
    assert len(ready.weights_digest) == 64
    assert ready.num_cache_tokens == engine.num_cache_tokens == 8 * engine.state.num_pages
    assert not engine.has_work
