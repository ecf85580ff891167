"""Quantised checkpoints, told by what their JSON files say."""

from pathlib import Path
from typing import Any

import pytest

from skipserve.model.quantisation import find_quantisation

pytestmark = pytest.mark.fast

BY_FIELD: list[tuple[dict[str, Any], str]] = [
    (
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False},
        "bitsandbytes, load_in_4bit True",
    ),
    ({"load_in_8bit": True}, "method not named, load_in_8bit True"),
    ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "gptq, bits 4"),
    ({"quant_method": "awq", "w_bit": 4}, "awq, w_bit 4"),
    (
        {"quant_method": "compressed-tensors", "format": "pack-quantized"},
        "compressed-tensors, format pack-quantized",
    ),
    ({"quant_method": "fp8"}, "(fp8)"),
]


@pytest.mark.parametrize(("field", "said"), BY_FIELD)
@pytest.mark.parametrize("part", [None, "text_config", "vision_config"])
def test_a_field_of_any_part_says_it(
    tmp_path: Path, part: str | None, field: dict[str, Any], said: str
) -> None:
    holder = {"quantization_config": field}
    told = find_quantisation(tmp_path, holder if part is None else {part: holder})
    assert told is not None
    assert said in told
    assert "delete quantization_config" in told
    assert part is None or part in told


def test_an_older_field_and_a_field_of_another_type(tmp_path: Path) -> None:
    older = find_quantisation(tmp_path, {"compression_config": {"format": "int-quantized"}})
    assert older is not None
    assert "compression_config (method not named, format int-quantized)" in older
    assert "'awq'" in (find_quantisation(tmp_path, {"quantization_config": "awq"}) or "")


@pytest.mark.parametrize(
    "name", ["quantize_config.json", "quant_config.json", "hf_quant_config.json"]
)
def test_a_file_of_the_program_that_did_it_says_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    assert f"there is a {name}" in (find_quantisation(tmp_path, {}) or "")


@pytest.mark.parametrize("config", [{}, {"quantization_config": None}, {"text_config": "llama"}])
def test_whole_weights(tmp_path: Path, config: dict[str, Any]) -> None:
    assert find_quantisation(tmp_path, config) is None
