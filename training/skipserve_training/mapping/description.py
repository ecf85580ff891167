"""What a checkpoint says of its parts: as the server reads it, or of encoders that it lacks."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from transformers import CONFIG_MAPPING

from skipserve.model.config import ModelConfig, ModelFilesError, read_json
from skipserve_policies.sizes import (
    DecoderSizes,
    MlpSizes,
    ProjectorSizes,
    projector_sizes,
)
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
        """Read a checkpoint's files, as the server reads them where it knows the encoder.

        Raises:
            ModelFilesError: A file is missing or unreadable.
            ValueError: The model is not one that is trained here.
        """
        config = read_json(folder / "config.json")
        vision = config.get("vision_config") or {}
        if vision.get("model_type", CLIP) in ENCODER_TYPES - {CLIP}:
            return cls._of_other(folder, config, vision)
        return cls._of_served(folder, ModelConfig.from_folder(folder))

    @classmethod
    def _of_served(cls, folder: Path, config: ModelConfig) -> Self:
        kind = config.vision.get("model_type", CLIP)
        if kind != CLIP or len(config.feature_layers) != 1:
            raise ValueError(
                f"{folder} has a vision tower of type {kind!r} that gives the features of "
                f"{len(config.feature_layers)} layers: expected CLIP's type, and one."
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
            layer=config.feature_layers[0],
            keeps_class=config.sizes.vision.keeps_cls,
            vision_width=config.sizes.vision.feature_size,
            decoder=config.sizes.decoder,
            projector=config.sizes.projector,
            ties_head=config.ties_head,
        )

    @classmethod
    def _of_other(cls, folder: Path, config: Mapping[str, Any], vision: Mapping[str, Any]) -> Self:
        """Read what `export_trained` wrote of an encoder that the server does not know."""
        try:
            text = config["text_config"]
            return cls(
                text=text,
                vision=vision,
                layer=config["vision_feature_layer"],
                keeps_class=config["vision_feature_select_strategy"] == "full",
                vision_width=CONFIG_MAPPING[vision["model_type"]](**vision).hidden_size,
                decoder=DecoderSizes.from_config(text),
                projector=projector_sizes(config),
                ties_head=config["tie_word_embeddings"],
            )
        except (KeyError, TypeError, ValueError) as error:
            fault = f"the configuration in {folder} is not valid: {error!r}"
            raise ModelFilesError(fault) from error
