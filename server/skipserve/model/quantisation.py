"""Finds out from a checkpoint's JSON files that its weights are quantised, and how."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

# In which programs for quantising describe what they did, beside a config.json that may be silent.
_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")

_FIELDS = ("quantization_config", "compression_config")

WHAT_TO_DO = (
    "quantised weights are not supported; name the folder of the model as it was before, in "
    "float16 or bfloat16"
)


def find_quantisation(folder: Path, config: Mapping[str, Any]) -> str | None:
    """Return what says that the weights are quantised, and what to do; None if nothing does.

    Args:
        folder: the checkpoint.
        config: the content of its `config.json`.
    """
    parts = {"config.json": config} | {
        f"{name} of config.json": part
        for name in ("text_config", "vision_config")
        if isinstance(part := config.get(name), Mapping)
    }
    for place, part in parts.items():
        for field in _FIELDS:
            if part.get(field):
                return (
                    f"{place} has {field} ({_method(part[field])}). {WHAT_TO_DO.capitalize()}. "
                    f"If the weights have been restored, delete {field}"
                )
    for name in _FILES:
        if (folder / name).is_file():
            return f"there is a {name}. {WHAT_TO_DO.capitalize()}"
    return None


def _method(quantisation: object) -> str:
    """Return which method it is, and with how many bits, as far as it is said."""
    if not isinstance(quantisation, Mapping):
        return repr(quantisation)
    method = quantisation.get("quant_method", "method not named")
    said = [
        f"{name} {quantisation[name]}"
        for name in ("bits", "w_bit", "load_in_4bit", "load_in_8bit", "format")
        if quantisation.get(name)
    ]
    return ", ".join([str(method), *said])
