"""The tensors of a checkpoint by one set of names, read one at a time. Knows no layer's meaning."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from skipserve.model.config import WHERE_TO_GET_ONE, ModelFilesError, read_json
from skipserve.model.quantisation import WHAT_TO_DO
from skipserve_kernels.plain.linear.op import Linear, pack

# Published checkpoints, those that transformers 5 writes, and older ones between: what each calls
# a part, and what it is called here. The first that matches counts.
_NAMES = (
    (re.compile(r"^(model\.)?language_model\.lm_head\."), "head."),
    (re.compile(r"^lm_head\."), "head."),
    # OPT's decoder stands inside a model that is nothing else.
    (re.compile(r"^(model\.)?language_model\.(model\.)?(decoder\.)?"), "decoder."),
    (re.compile(r"^(model\.)?vision_tower\.(vision_model\.)?"), "vision."),
    (re.compile(r"^(model\.)?multi_modal_projector\."), "projector."),
)

# Tables that older transformers stored beside the weights; they follow from the configuration.
_DERIVED = re.compile(r"(rotary_emb\.inv_freq|embeddings\.position_ids)$")

# The types of plain numbers, as safetensors and as torch call them.
_FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class Weights:
    """The safetensors files of a folder; a context manager.

    Names are `decoder.layers.0.mlp.up_proj.weight`, `head.weight`, `vision.encoder. ...`,
    `projector.linear_1.weight`, whatever the checkpoint calls them.

    Attributes:
        device: where tensors are.
        dtype: what they come in.
        in_8_bits: whether whoever packs the large layers rounds their weights to 8 bits.

    Args:
        folder: the checkpoint.
        device: where tensors go.
        dtype: what they are rounded to, one by one.
        arithmetic: the type that they then come in.
        in_8_bits: whether the large layers' weights are then rounded to 8 bits.

    Raises:
        ModelFilesError: there is no readable safetensors file, a name is not known, or a tensor is
            not stored as plain numbers.
    """

    in_8_bits = False

    def __init__(
        self,
        folder: Path,
        device: torch.device,
        dtype: torch.dtype,
        arithmetic: torch.dtype,
        *,
        in_8_bits: bool = False,
    ) -> None:
        self.in_8_bits = in_8_bits
        self.device = device
        self.dtype = arithmetic
        self._rounding = dtype
        self._files = {file: _open(file) for file in weight_files(folder)}
        self._places = self._find()
        self._unread = set(self._places)

    def __enter__(self) -> Self:
        """Return the weights themselves."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let the files go."""
        self._files.clear()

    def __contains__(self, name: str) -> bool:
        """Return whether the checkpoint has a tensor."""
        return name in self._places

    def are_equal(self, name: str, other: str) -> bool:
        """Return whether two tensors of the checkpoint come to the same."""
        return torch.equal(self._read(name), self._read(other))

    def take(self, name: str, *shape: int) -> Tensor:
        """Read one tensor.

        Raises:
            ModelFilesError: it is missing or has another shape.
        """
        if name not in self._places:
            raise ModelFilesError(f"the checkpoint has no tensor {name} of shape {list(shape)}")
        file, key = self._places[name]
        stored = tuple(self._files[file].get_slice(key).get_shape())
        if stored != shape:
            raise ModelFilesError(
                f"the tensor {key} has the shape {list(stored)}; "
                f"the configuration asks for {list(shape)}"
            )
        self._unread.discard(name)
        return self._read(name).to(self.dtype)

    def leave(self, pattern: str) -> None:
        """Give up tensors that need not be read: those whose whole name matches a pattern."""
        self._unread -= {name for name in self._unread if re.fullmatch(pattern, name)}

    def check_all_read(self) -> None:
        """Make sure that the checkpoint holds nothing that was neither read nor left.

        Raises:
            ModelFilesError: it does, so it is another model than its configuration says.
        """
        if self._unread:
            keys = sorted(self._places[name][1] for name in self._unread)
            shown = ", ".join(keys[:5]) + (", ..." if len(keys) > 5 else "")
            raise ModelFilesError(
                f"the checkpoint has {len(keys)} tensors that the configuration has no use for: "
                f"{shown}"
            )

    def _read(self, name: str) -> Tensor:
        file, key = self._places[name]
        return cast(Tensor, self._files[file].get_tensor(key).to(self.device, self._rounding))

    def _find(self) -> dict[str, tuple[Path, str]]:
        places: dict[str, tuple[Path, str]] = {}
        packed: dict[str, str] = {}
        for file, opened in self._files.items():
            for key in opened.keys():  # noqa: SIM118  (the file is no mapping)
                if _DERIVED.search(key):
                    continue
                name = canonical_name(key)
                if name in places:
                    raise ModelFilesError(f"the tensors {places[name][1]} and {key} are the same")
                places[name] = (file, key)
                dtype = opened.get_slice(key).get_dtype()
                if dtype not in _FLOATS:
                    packed[key] = dtype
        if packed:
            raise ModelFilesError(_describe_packed(packed))
        return places


def take_linear(
    weights: Weights,
    parts: Mapping[str, int],
    num_inputs: int,
    *,
    has_bias: bool,
    in_8_bits: bool = False,
) -> Linear:
    """Read linear layers of one input and pack them as one.

    Args:
        weights: what to read from.
        parts: the layers by name, with the number of outputs of each; their outputs follow each
            other in this order.
        num_inputs: of each.
        has_bias: whether each has a bias.
        in_8_bits: whether their weights are rounded to 8 bits.
    """
    weight = torch.cat([weights.take(f"{n}.weight", size, num_inputs) for n, size in parts.items()])
    biases = [weights.take(f"{n}.bias", size) for n, size in parts.items()] if has_bias else []
    return pack(weight, torch.cat(biases) if biases else None, in_8_bits=in_8_bits)


def stored_dtype(folder: Path) -> str | None:
    """Return the type of the first tensor of plain numbers, as torch calls it; None without one.

    Raises:
        ModelFilesError: there is no readable safetensors file.
    """
    opened = _open(weight_files(folder)[0])
    dtypes = (opened.get_slice(key).get_dtype() for key in opened.keys())  # noqa: SIM118
    return next((_FLOATS[dtype] for dtype in dtypes if dtype in _FLOATS), None)


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the weight files of a checkpoint: the only one, or those of its index.

    Raises:
        ModelFilesError: there is none, or one is missing.
    """
    index = folder / "model.safetensors.index.json"
    is_single = (folder / "model.safetensors").is_file() or not index.is_file()
    names = ["model.safetensors"] if is_single else _indexed_names(index)
    files = tuple(folder / name for name in names)
    missing = [file.name for file in files if not file.is_file()]
    if not missing:
        return files
    raise ModelFilesError(_describe_missing(folder, missing, len(files)))


def _describe_missing(folder: Path, missing: list[str], num_files: int) -> str:
    if num_files > 1:
        return (
            f"there is no {missing[0]} in {folder}: {len(missing)} of the {num_files} files are "
            "missing that its index names. Download it again"
        )
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt*")):
        return (
            f"{folder} has weights in PyTorch's pickle format, which can run code when it is "
            "read; convert them to safetensors, with from_pretrained and save_pretrained of "
            "transformers' LlavaForConditionalGeneration"
        )
    others = ", ".join(sorted(file.name for file in folder.glob("*.safetensors"))[:3])
    found = f"; {others} is not read" if others else ""
    return f"there is no {missing[0]} in {folder}{found}. {WHERE_TO_GET_ONE}"


def _describe_packed(packed: Mapping[str, str]) -> str:
    types = ", ".join(sorted(set(packed.values())))
    return (
        f"the checkpoint has {len(packed)} tensors of the type {types}, such as {min(packed)}: "
        f"{WHAT_TO_DO}"
    )


def weights_digest(folder: Path) -> str:
    """Return the sha256 of the weight files' bytes in the order of their names, hexadecimal."""
    digest = hashlib.sha256()
    for file in weight_files(folder):
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _indexed_names(index: Path) -> list[str]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ModelFilesError(f"weight_map in {index} must say in which file each tensor is")
    names = set(places.values())
    if not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise ModelFilesError(f"{index} names files outside its folder")
    return sorted(names)


def _open(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (OSError, SafetensorError) as error:
        raise ModelFilesError(f"{file} cannot be read as safetensors: {error}") from error


def canonical_name(key: str) -> str:
    """Return the name here of a tensor of a checkpoint.

    Raises:
        ModelFilesError: no LLaVA model has a tensor of that name.
    """
    for pattern, name in _NAMES:
        canonical, count = pattern.subn(name, key)
        if count:
            return canonical
    raise ModelFilesError(f"the tensor {key} is of no part of a LLaVA model")
