"""Models whose products are made in 8 bits, against transformers' with layers that round alike."""

from pathlib import Path
from typing import Any

import pytest
import torch
from model_batches import Rows, run_whole
from tiny_llava import make_checkpoint
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration

from skipserve.engine.engine import Engine
from skipserve.engine.limits import EngineLimits, EngineSpec
from skipserve.engine.loading import load
from skipserve.errors import EngineError
from skipserve.model.llava import Llava
from skipserve_kernels.plain.linear import int8
from skipserve_policies.plan import Plan, TokenClass

pytestmark = pytest.mark.skipif(not int8.is_exact(), reason="this CPU has no VNNI")

CPU = torch.device("cpu")
IMAGE = 4
_ROUNDED = ("language_model.layers.", "vision_model.encoder.layers.", "vision_tower.")


class _Rounding(nn.Module):
    """A linear layer by the scheme's formula, in float64."""

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__()
        self._bias = plain.bias
        unit = plain.weight.double().abs().amax(1, keepdim=True) / 127
        self._weight = (plain.weight.double() / unit).round() * unit

    def forward(self, x: Tensor) -> Tensor:
        unit = x.double().abs().amax(-1, keepdim=True) / 127
        product = ((x.double() / unit).round() * unit) @ self._weight.T
        return (product if self._bias is None else product + self._bias.double()).to(x.dtype)


def _round_layers(model: nn.Module, path: str = "") -> None:
    for name, child in model.named_children():
        where = f"{path}.{name}"
        if isinstance(child, nn.Linear) and any(part in where for part in _ROUNDED):
            setattr(model, name, _Rounding(child))
        else:
            _round_layers(child, where)


def _rows(model: Llava, ids: Tensor, pixels: Tensor) -> Rows:
    is_visual = ids == IMAGE
    classes = [TokenClass.VISUAL if it else TokenClass.TEXT for it in is_visual]
    classes[-1] = TokenClass.LAST
    return Rows(ids, tuple(classes), model.encode_images(pixels).flatten(0, 1), is_visual)


@pytest.mark.parametrize("shape", [{}, {"num_layers": 3}], ids=str)
def test_logits_are_those_of_a_model_that_rounds_alike(
    tmp_path: Path, shape: dict[str, Any]
) -> None:
    make_checkpoint(tmp_path, **shape)
    model = Llava.load(tmp_path, CPU, torch.float32, in_8_bits=True)
    exact = LlavaForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32).eval()
    rounded = LlavaForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32).eval()
    _round_layers(rounded)
    generator = torch.Generator().manual_seed(0)
    size, num_visual = model.config.sizes.vision.image_size, model.config.sizes.rows_per_image
    pixels = torch.randint(0, 256, (1, size, size, 3), dtype=torch.uint8, generator=generator)
    ids = torch.tensor([5, 6, *[IMAGE] * num_visual, 7, 9, 11])
    steps = model.config.image_processor
    mean, std = torch.tensor(steps.mean), torch.tensor(steps.std)
    given = ((pixels / 255 - mean) / std).permute(0, 3, 1, 2)

    rows = _rows(model, ids, pixels)
    found = run_whole(
        model, rows, Plan.full(model.config.sizes.decoder.num_layers), range(len(ids))
    )

    asked = {
        "input_ids": ids[None],
        "attention_mask": torch.ones(1, len(ids)),
        "pixel_values": given,
    }
    with torch.inference_mode():
        plain, expected = (it(**asked).logits[0] for it in (exact, rounded))
    # A value next to a half may round to either side, and moves what follows by a unit.
    error = (expected - plain).norm()
    assert error > 1e-3 * plain.norm()
    assert (found - expected).norm() < 0.3 * error


def test_answers_are_the_same_bit_by_bit_alone_and_together(tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    model = Llava.load(tmp_path, CPU, torch.float32, in_8_bits=True)
    block = model._decoder.layers.blocks[0].ffn  # type: ignore[attr-defined]
    x = torch.randn(9, 64)

    together = block.add(x, x)

    assert all(
        torch.equal(block.add(x[i : i + 1], x[i : i + 1]), together[i : i + 1]) for i in range(9)
    )


def test_what_runs_is_told(tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    limits = EngineLimits(page_size=8, kv_cache_bytes=10**6)
    spec = EngineSpec(tmp_path, "cpu", "bfloat16", quantization="int8", limits=limits)

    engine, ready = load(spec)

    assert isinstance(engine, Engine)
    assert ready.dtype == "bfloat16+int8"


def test_a_cpu_that_cannot_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_checkpoint(tmp_path)
    monkeypatch.setattr(int8, "is_exact", lambda: False)

    with pytest.raises(EngineError, match=r"quantization int8 .*VNNI"):
        load(EngineSpec(tmp_path, "cpu", quantization="int8"))
