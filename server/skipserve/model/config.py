"""What a checkpoint folder says of its model, from its JSON files alone: no torch, no weights."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from skipserve.model import fields
from skipserve.model.decoder_types import DECODER_TYPES, DecoderType
from skipserve.model.image_processor import ImageProcessor
from skipserve.model.opt import OptForm
from skipserve.model.quantisation import find_quantisation
from skipserve.model.sound_processor import SoundProcessor
from skipserve_policies.sizes import (
    CLIP_L_14_336,
    OPT_MODEL_TYPE,
    OWN_MODEL_TYPE,
    Modality,
    ModelSizes,
    VisionSizes,
)

_MODEL_TYPES = ("llava", OWN_MODEL_TYPE)

# Rotary factors that depend on the position alone; others change with the sequence's length.
_ROPE_TYPES = ("default", "linear", "dynamic", "llama3", "yarn")

# LLaVA-1.5's, where no file says otherwise.
_IMAGE_TOKEN_ID = 32000

# What to do with whatever is no checkpoint.
WHERE_TO_GET_ONE = (
    "LLaVA-1.5 in Hugging Face's format is served, for example: "
    "hf download llava-hf/llava-1.5-7b-hf --local-dir llava-1.5-7b-hf"
)


class ModelFilesError(Exception):
    """A checkpoint folder is incomplete, damaged or of a kind that is not supported."""


@dataclass(frozen=True)
class ModelConfig:
    """A LLaVA-1.5 style checkpoint: what it says of pictures may be said of videos or sounds.

    Attributes:
        sizes: what decides the cost of a request.
        max_positions: the longest context.
        declared_positions: the context that the configuration declares, which may be longer: beyond
            a sliding window, attention would no longer be that of the model.
        image_token_id: the token that stands for a visual row.
        eos_token_ids: tokens that end an answer.
        rms_norm_epsilon: of the decoder's normalisations.
        dtype: the type that the checkpoint declares, as torch names it; None if it does not.
        feature_layers: indexes into the vision tower's hidden states, 0 the embeddings; their
            features are concatenated.
        reads_output: whether the features are the tower's output instead, behind its last norm:
            that of ViT and its kind where `vision_feature_layer` is -1.
        projector_activation: as transformers names it.
        projector_bias: whether the two layers of LLaVA's projector have one.
        ties_head: whether the head is the embedding.
        biased_layers: the linear layers of a block that have a bias, such as `q_proj`.
        processor: what is done to a picture, to each frame of a video, or to a sound before the
            vision tower.
        opt: the form of a decoder of OPT's type; None for LLaMA's.
        text: the `text_config` as it stands in the file, but for its dtype.
        vision: the `vision_config`, likewise, or the default of a silent one.
    """

    sizes: ModelSizes
    max_positions: int
    declared_positions: int
    image_token_id: int
    eos_token_ids: tuple[int, ...]
    rms_norm_epsilon: float
    dtype: str | None
    feature_layers: tuple[int, ...]
    reads_output: bool
    projector_activation: str
    projector_bias: bool
    ties_head: bool
    biased_layers: frozenset[str]
    processor: ImageProcessor | SoundProcessor
    opt: OptForm | None
    text: Mapping[str, Any]
    vision: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Refuse what no model can be."""
        decoder = self.sizes.decoder
        if decoder.num_heads % decoder.num_kv_heads:
            raise ValueError(
                f"{decoder.num_heads} query heads cannot share {decoder.num_kv_heads} key heads"
            )
        if self.sizes.vision.num_layers_used == 0:
            raise ValueError("vision_feature_layer asks for no layer of the vision tower at all")

    @property
    def image_processor(self) -> ImageProcessor:
        """What is done to pictures; a model of sounds is not asked."""
        assert isinstance(self.processor, ImageProcessor)
        return self.processor

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Read `config.json` and what stands beside it.

        Raises:
            ModelFilesError: a file is missing or unreadable, or the model is not supported.
        """
        if not (folder / "config.json").is_file():
            raise ModelFilesError(f"there is no config.json in {folder}")
        config = read_json(folder / "config.json")
        try:
            text = fields.inner_object(config, "text_config")
            vision = fields.inner_object(config, "vision_config") or CLIP_L_14_336
            is_opt = text.get("model_type") == OPT_MODEL_TYPE
            _check_is_llava(folder, config)
            sizes = ModelSizes.from_config({**config, "vision_config": vision})
            _check_parts(config, text, vision)
            kind = DECODER_TYPES[text.get("model_type", "llama")]
            declared_positions = kind.declared_positions(text)
            window = kind.window(text, sizes.decoder.num_layers) or declared_positions
            _check_processor_agrees(read_json(folder / "processor_config.json"), sizes.vision)
            return cls(
                sizes=sizes,
                max_positions=min(declared_positions, window),
                declared_positions=declared_positions,
                image_token_id=_image_token_id(config),
                eos_token_ids=_eos_token_ids(folder, config, text, kind),
                rms_norm_epsilon=fields.number(text, "rms_norm_eps", 1e-6),
                dtype=fields.declared_dtype(config) or fields.declared_dtype(text),
                feature_layers=_feature_layers(config, sizes.vision),
                reads_output=not sizes.vision.has_picture_tower
                and config.get("vision_feature_layer") == -1,
                projector_activation=config.get("projector_hidden_act", "gelu"),
                projector_bias=fields.flag(config, "multimodal_projector_bias", default=True),
                # OPT's are tied unless they say that they are not.
                ties_head=fields.flag(text, "tie_word_embeddings", default=is_opt)
                or fields.flag(config, "tie_word_embeddings", default=False),
                biased_layers=kind.biased_layers(text),
                processor=_processor(folder, sizes.vision),
                opt=OptForm.from_config(text) if is_opt else None,
                text=_structure(text),
                vision=_structure(vision),
            )
        except (TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
            raise ModelFilesError(f"the configuration in {folder} is not valid: {error}") from error


def _check_is_llava(folder: Path, config: Mapping[str, Any]) -> None:
    if config.get("model_type") not in _MODEL_TYPES:
        raise ModelFilesError(
            f"{folder} holds a model of another kind: its model_type is "
            f"{config.get('model_type')!r}; supported: {', '.join(_MODEL_TYPES)}. "
            f"{WHERE_TO_GET_ONE}"
        )
    if "mm_vision_tower" in config:
        raise ModelFilesError(
            f"{folder} holds LLaVA in the form of its authors' own program (mm_vision_tower in "
            f"config.json), not in that of transformers. {WHERE_TO_GET_ONE}"
        )
    quantisation = find_quantisation(folder, config)
    if quantisation is not None:
        raise ModelFilesError(f"the weights in {folder} are quantised: {quantisation}")


def _check_parts(
    config: Mapping[str, Any], text: Mapping[str, Any], vision: Mapping[str, Any]
) -> None:
    if text.get("model_type") != OPT_MODEL_TYPE:
        _check_is_llama(text)
    fields.whole_number(vision, "num_attention_heads", 12)
    _check_value("vision_config.num_channels", vision.get("num_channels", 3), (3,))
    strategy = config.get("vision_feature_select_strategy", "default")
    _check_value("vision_feature_select_strategy", strategy, ("default", "full"))


def _check_is_llama(text: Mapping[str, Any]) -> None:
    _check_value("text_config.hidden_act", text.get("hidden_act", "silu"), ("silu",))
    rope = fields.inner_object(text, "rope_parameters") or fields.inner_object(text, "rope_scaling")
    for values in (rope, text):
        if values.get("rope_theta") is not None:
            fields.number(values, "rope_theta", 10000.0)
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    _check_value("the type of rotary embedding", rope_type, _ROPE_TYPES)


def _structure(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what transformers' classes are to have of a part: they know few names of dtypes."""
    dtypes = {"dtype", "torch_dtype"}
    return MappingProxyType({name: value for name, value in values.items() if name not in dtypes})


def _check_value(name: str, value: object, supported: tuple[object, ...]) -> None:
    if value not in supported:
        raise ModelFilesError(f"{name} is {value!r}; supported: {', '.join(map(str, supported))}")


def _feature_layers(config: Mapping[str, Any], vision: VisionSizes) -> tuple[int, ...]:
    """Return the feature layers counted from the front: -2 of 24 layers is 23."""
    layer = config.get("vision_feature_layer", -2)
    num_states = vision.num_layers + 1
    chosen = layer if isinstance(layer, list) else [layer]
    return tuple(index if index >= 0 else index + num_states for index in chosen)


def _image_token_id(config: Mapping[str, Any]) -> int:
    """Return the id that stands for a visual row, by its older or its newer name."""
    values = (config.get("image_token_index"), config.get("image_token_id"))
    found = [value for value in values if value is not None]
    if not all(type(value) is int and value == found[0] for value in found):
        raise ValueError(f"image_token_index and image_token_id are {found}, not one token id")
    return int(found[0]) if found else _IMAGE_TOKEN_ID


def _eos_token_ids(
    folder: Path, config: Mapping[str, Any], text: Mapping[str, Any], kind: DecoderType
) -> tuple[int, ...]:
    """Return every token that a file says ends an answer; its type's if none says anything.

    The tokenizer may name one more, which only it can tell the id of.
    """
    named: set[int] = set()
    for source in (read_json(folder / "generation_config.json"), config, text):
        value = source.get("eos_token_id")
        values = value if isinstance(value, list) else [value]
        if not all(it is None or type(it) is int for it in values):
            raise ValueError(f"eos_token_id is {value!r}; it must be a token id or several")
        named |= {it for it in values if it is not None and it >= 0}
    return tuple(sorted(named)) or kind.eos_token_ids


def _check_processor_agrees(processor: Mapping[str, Any], vision: VisionSizes) -> None:
    """Make sure that the processor, where it counts an image's tokens, counts as the model does.

    `num_additional_image_tokens` is younger than the others: without it, it is the class token, if
    the tower has one.
    """
    strategy = processor.get("vision_feature_select_strategy")
    num_additional = processor.get("num_additional_image_tokens")
    num_additional = int(vision.has_cls) if num_additional is None else num_additional
    if processor.get("patch_size") is None or strategy is None:
        return
    patch_size = fields.whole_number(processor, "patch_size", vision.patch_size)
    if type(num_additional) is not int:
        raise ValueError(
            f"num_additional_image_tokens is {num_additional!r}; it must be a whole number"
        )
    count = (vision.image_size // patch_size) ** 2 + num_additional - (strategy == "default")
    if count != vision.num_features:
        raise ModelFilesError(
            f"processor_config.json makes {count} tokens of an image (patch_size {patch_size}, "
            f"num_additional_image_tokens {num_additional}, vision_feature_select_strategy "
            f"{strategy!r}), and the model of config.json {vision.num_features}"
        )


def _processor(folder: Path, vision: VisionSizes) -> ImageProcessor | SoundProcessor:
    hears = vision.modality is Modality.AUDIO
    found = processor_fields(folder, vision.modality)
    if found is None:
        return _standing_in(vision)
    file, given = found
    try:
        return (SoundProcessor if hears else ImageProcessor).from_fields(given)
    except ValueError as error:
        name = "feature extractor" if hears else "image processor"
        raise ModelFilesError(f"the {name} in {file} is not supported: {error}") from error


def _standing_in(vision: VisionSizes) -> ImageProcessor | SoundProcessor:
    """Return the processor that published models with a tower of its kind have."""
    if (spectrogram := vision.spectrogram) is not None:
        sizes = {"max_length": spectrogram.num_frames, "num_mel_bins": spectrogram.num_bands}
        return SoundProcessor.from_fields(sizes)
    if not vision.has_picture_tower:
        return ImageProcessor.of_vit(vision.image_size)
    make = ImageProcessor.of_square if vision.has_cls else ImageProcessor.of_siglip
    return make(vision.image_size)


def processor_fields(folder: Path, modality: Modality) -> tuple[Path, dict[str, Any]] | None:
    """Return the file that describes what is done to media, and what it says; None without one.

    Raises:
        ModelFilesError: a file is not what it should be.
    """
    newer, older = folder / "processor_config.json", folder / "preprocessor_config.json"
    name = "feature_extractor" if modality is Modality.AUDIO else "image_processor"
    nested = read_json(newer).get(name)
    if nested is None:
        return (older, read_json(older)) if older.is_file() else None
    if not isinstance(nested, dict):
        raise ModelFilesError(f"{name} in {newer} is not a JSON object")
    return newer, nested


def read_json(file: Path) -> dict[str, Any]:
    """Return the object in a file of a checkpoint; nothing if there is no such file.

    Raises:
        ModelFilesError: the file is not what it should be.
    """
    if not file.is_file():
        return {}
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFilesError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelFilesError(f"{file} does not hold a JSON object")
    return value
