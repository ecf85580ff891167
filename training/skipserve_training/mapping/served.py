"""Takes a checkpoint apart, into what a training stands on: one that the server loads, or ours."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.initialization import no_init_weights

from skipserve.model.config import ModelFilesError
from skipserve.model.weights import canonical_name, weight_files
from skipserve_policies.sizes import MappingSizes
from skipserve_training.mapping.description import Description
from skipserve_training.mapping.encoders import TransformersEncoder, empty_encoder
from skipserve_training.mapping.language import (
    LANGUAGE_MODEL_TYPES,
    FrozenLanguageModel,
)
from skipserve_training.mapping.parts import Parts
from skipserve_training.mapping.projectors import Projector, ProjectorType, make_projector

# What a run leaves in its folder: the whole model, and what it trained by itself.
CHECKPOINT_FOLDER = "checkpoint"
PROJECTOR_WEIGHTS = "projector.safetensors"

# What published checkpoints put before the names of each part.
_LANGUAGE, _TOWER, _PROJECTOR = "language_model.", "vision_tower.", "multi_modal_projector."


@dataclass(frozen=True)
class ServedModel(Parts):
    """The parts of a checkpoint.

    Attributes:
        folder: where it is.
    """

    folder: Path

    @property
    def depth(self) -> int:
        """Return the number of the language model's blocks: what policies are resolved for."""
        return len(self.language.blocks)

    @property
    def name(self) -> str:
        """Return what it is called: its folder, or the run that left it in its `checkpoint`."""
        folder = self.folder.absolute()
        return folder.parent.name if folder.name == CHECKPOINT_FOLDER else folder.name


def open_model(folder: Path, dtype: torch.dtype, device: torch.device) -> ServedModel:
    """Load a checkpoint of LLaVA's form, with LLaVA's projector or a mapping module.

    Args:
        folder: as `skipserve serve --model` takes it, or as `skipserve train mapping` leaves it.
        dtype: of the language model.
        device: where all parts go.

    Raises:
        ValueError: It is no such checkpoint, or has parts of other types than those of
            `skipserve train mapping`.
    """
    try:
        described = Description.from_folder(folder)
        tensors = {
            canonical_name(name): value
            for file in weight_files(folder)
            for name, value in load_file(file).items()
        }
    except ModelFilesError as error:
        raise ValueError(f"The model {folder} cannot be loaded: {error}.") from error
    language = _load_language(folder, described, tensors, dtype)
    return ServedModel(
        folder=folder,
        language=FrozenLanguageModel(language.to(device)),
        encoder=_load_encoder(folder, described, tensors, device),
        projector=_load_projector(folder, described, tensors).to(device),
        tokenizer=_load_tokenizer(folder),
    )


def load_module(projector: Projector, folder: Path) -> None:
    """Load another training's result into a projector, in place.

    Args:
        projector: of the same form.
        folder: a training's, which holds `projector.safetensors`, or a checkpoint.

    Raises:
        ValueError: There is no projector in it, or one of other sizes.
    """
    trained = folder / PROJECTOR_WEIGHTS
    try:
        files = (trained,) if trained.is_file() else weight_files(folder)
    except ModelFilesError as error:
        raise ValueError(f"{folder} holds no trained module: {error}.") from error
    tensors = {
        canonical_name(name): value for file in files for name, value in load_file(file).items()
    }
    _fill(projector, _PROJECTOR, tensors, folder)


def _load_language(
    folder: Path, described: Description, tensors: dict[str, Tensor], dtype: torch.dtype
) -> Any:
    kind = described.text.get("model_type", "llama")
    if kind not in LANGUAGE_MODEL_TYPES:
        raise ValueError(
            f"{folder} has a language model of type {kind!r}: expected one of "
            f"{', '.join(LANGUAGE_MODEL_TYPES)}."
        )
    fields = dict(described.text) | {"tie_word_embeddings": described.ties_head}
    make: Any = AutoModelForCausalLM.from_config  # untyped
    with no_init_weights():
        model = make(CONFIG_MAPPING[kind](**fields), dtype=dtype)
    model.tie_weights()
    _fill(model, _LANGUAGE, tensors, folder)
    return model


def _load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    # By its own class: the automatic one asks what type the whole model has, which it may not know.
    load: Any = PreTrainedTokenizerFast.from_pretrained
    tokenizer: PreTrainedTokenizerBase = load(folder)
    return tokenizer


def _load_encoder(
    folder: Path, described: Description, tensors: dict[str, Tensor], device: torch.device
) -> TransformersEncoder:
    model = empty_encoder(described.vision)
    _fill(model, _TOWER, tensors, folder)
    return TransformersEncoder(folder, device, described.layer, described.keeps_class, model)


def _load_projector(folder: Path, described: Description, tensors: dict[str, Tensor]) -> Projector:
    sizes = described.projector if isinstance(described.projector, MappingSizes) else None
    kind = ProjectorType.MLP if sizes is None else ProjectorType.MAPPING
    width = described.vision_width
    projector = make_projector(kind, width, described.decoder.embedding_size, sizes)
    _fill(projector, _PROJECTOR, tensors, folder)
    return projector


def _fill(module: nn.Module, prefix: str, tensors: dict[str, Tensor], folder: Path) -> None:
    """Load a part's weights; what a tied head shares is loaded under the first of its names."""
    seen: set[int] = set()
    for name, weight in module.state_dict(keep_vars=True).items():
        if id(weight) in seen:
            continue
        seen.add(id(weight))
        value = tensors.get(canonical_name(prefix + name))
        if value is None or value.shape != weight.shape:
            found = "nothing" if value is None else f"{list(value.shape)}"
            raise ValueError(
                f"{folder}: expected {prefix}{name} of shape {list(weight.shape)}, found {found}."
            )
        weight.data.copy_(value)
