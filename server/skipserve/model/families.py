"""The families of models that can be loaded: a folder of this room and a line here for each."""

from pathlib import Path
from typing import Protocol

import torch

from skipserve.model.config import ModelFilesError, read_json
from skipserve.model.llava import Llava
from skipserve.model.model import Model
from skipserve_policies.sizes import OWN_MODEL_TYPE


class _Loader(Protocol):
    def __call__(
        self, folder: Path, device: torch.device, dtype: torch.dtype, *, in_8_bits: bool
    ) -> Model: ...


# By `model_type` in config.json.
_FAMILIES: dict[str, _Loader] = {"llava": Llava.load, OWN_MODEL_TYPE: Llava.load}


def load_model(
    folder: Path, device: torch.device, dtype: torch.dtype, *, in_8_bits: bool = False
) -> Model:
    """Load a checkpoint of any family, its weights cast to a dtype, onto a device.

    Args:
        folder: the checkpoint.
        device: where the model is to run.
        dtype: what its weights are cast to.
        in_8_bits: whether its large products are made in 8 bits: on a CPU.

    Raises:
        ModelFilesError: a file is missing, damaged, or of a model that is not supported.
    """
    kind = read_json(folder / "config.json").get("model_type")
    load = _FAMILIES.get(str(kind))
    if load is None:
        raise ModelFilesError(f"model_type is {kind!r}; supported: {', '.join(_FAMILIES)}")
    return load(folder, device, dtype, in_8_bits=in_8_bits)
