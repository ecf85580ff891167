"""What a checkpoint says of its parts, as the server reads it, where they can be trained here."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from skipserve.model.config import ModelConfig
from skipserve_policies.sizes import DecoderSizes, MlpSizes, ProjectorSizes
from skipserve_training.mapping.encoders import CLIP, ENCODER_TYPES


@dataclass(frozen=True)
class Description:
    """A whole model.

    Attributes:
        text, vision: the configurations of the language model and of the encoder.
        layer: which of the encoder's hidden states is read.
        keeps_class: whether its first row, that of the class, is read.
        vision_width: of an encoder's row.
        projector: which projector there is.
        ties_head: whether the head is the embedding.
    """

    text: Mapping[str, Any]
    vision: Mapping[str, Any]
    layer: int
    keeps_class: bool
    vision_width: int
    decoder: DecoderSizes
    projector: ProjectorSizes
    ties_head: bool

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Read a checkpoint's files.

        Raises:
            ModelFilesError: A file is missing or unreadable, or the server does not load it.
            ValueError: The model is not one that is trained here.
        """
        config = ModelConfig.from_folder(folder)
        kind = config.vision.get("model_type", CLIP)
        if kind not in ENCODER_TYPES or len(config.feature_layers) != 1:
            raise ValueError(
                f"{folder} has a vision tower of type {kind!r} that gives the features of "
                f"{len(config.feature_layers)} layers: expected one of "
                f"{', '.join(sorted(ENCODER_TYPES))}, and one."
            )
        is_mapping = not isinstance(config.sizes.projector, MlpSizes)
        if not is_mapping and not (config.projector_activation == "gelu" and config.projector_bias):
            raise ValueError(
                f"{folder} has a projector with the activation {config.projector_activation!r} and "
                f"{'a' if config.projector_bias else 'no'} bias: expected 'gelu', and a bias."
            )
        return cls(
            text=config.text,
            vision=config.vision,
            layer=-1 if config.reads_output else config.feature_layers[0],
            keeps_class=config.sizes.vision.keeps_cls,
            vision_width=config.sizes.vision.feature_size,
            decoder=config.sizes.decoder,
            projector=config.sizes.projector,
            ties_head=config.ties_head,
        )
