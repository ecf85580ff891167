"""The sizes of a model that decide what a request costs, from a Hugging Face configuration."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

# What a decoder of OPT's type calls itself.
OPT_MODEL_TYPE = "opt"

# What transformers fills in where the configuration of a decoder is silent, by its type.
_LLAMA_DEFAULTS = {
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "intermediate_size": 11008,
    "vocab_size": 32000,
}
_OPT_DEFAULTS = {
    "num_hidden_layers": 12,
    "hidden_size": 768,
    "num_attention_heads": 12,
    "ffn_dim": 3072,
    "vocab_size": 50272,
}
_DECODER_DEFAULTS = {
    "llama": _LLAMA_DEFAULTS,
    "mistral": {**_LLAMA_DEFAULTS, "intermediate_size": 14336, "num_key_value_heads": 8},
    "qwen2": {
        **_LLAMA_DEFAULTS,
        "intermediate_size": 22016,
        "num_key_value_heads": 32,
        "vocab_size": 151936,
    },
    OPT_MODEL_TYPE: _OPT_DEFAULTS,
}

# The same of a tower.
_CLIP, _SIGLIP = "clip_vision_model", "siglip_vision_model"
_CLIP_DEFAULTS = {
    "num_hidden_layers": 12,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "num_channels": 3,
}
_VIT, _TIMESFORMER, _AST = "vit", "timesformer", "audio-spectrogram-transformer"
_VIT_DEFAULTS = {**_CLIP_DEFAULTS, "patch_size": 16}
_AST_DEFAULTS = {
    **_VIT_DEFAULTS,
    "max_length": 1024,
    "num_mel_bins": 128,
    "time_stride": 10,
    "frequency_stride": 10,
}
_TOWER_DEFAULTS = {
    _CLIP: _CLIP_DEFAULTS,
    _SIGLIP: _VIT_DEFAULTS,
    _VIT: _VIT_DEFAULTS,
    _TIMESFORMER: {**_VIT_DEFAULTS, "num_frames": 8},
    _AST: _AST_DEFAULTS,
}
# Towers of patches of pictures alone, whose attention and features reducers know.
_PICTURE_TOWERS = (_CLIP, _SIGLIP)

# Frames of a video that are shown, as in the paper.
FRAMES_SHOWN = 8

# The tower that a LLaVA configuration means which says nothing of one: CLIP-L/14 at 336 pixels.
CLIP_L_14_336 = {
    "num_hidden_layers": 24,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "image_size": 336,
    "patch_size": 14,
    "num_attention_heads": 16,
}


def _type_of(part: str, config: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """Return the type of a part of a model, the first of those that are known where none is named.

    Raises:
        ValueError: it is none of them.
    """
    kind = config.get("model_type", next(iter(known)))
    if kind not in tuple(known):
        raise ValueError(f"{part}.model_type is {kind!r}; supported: {', '.join(known)}")
    return str(kind)


def _fill_in(config: Mapping[str, Any], defaults: Mapping[str, int]) -> dict[str, Any]:
    return {**defaults, **{key: value for key, value in config.items() if value is not None}}


def _size(values: Mapping[str, Any], name: str) -> int:
    """Return a size of a configuration.

    Raises:
        ValueError: it is not a positive whole number.
    """
    value = values[name]
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} must be a positive whole number, not {value!r}")
    return value


@dataclass(frozen=True)
class DecoderSizes:
    """A decoder of LLaMA's type, as Mistral's and Qwen2's are, or of OPT's.

    Attributes:
        is_gated: whether the FFN has a gate beside its up projection, as LLaMA's and not OPT's.
        word_size: the width of embedding and head where it is not `hidden_size`: two matrices then
            lead from it and back, as in OPT-350M.
        learns_positions: whether positions are learned and added to the rows, as OPT's, and not
            turned into queries and keys.
    """

    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    ffn_size: int
    vocab_size: int
    is_gated: bool = True
    word_size: int | None = None
    learns_positions: bool = False

    @property
    def embedding_size(self) -> int:
        """The width of the embedding's rows, of a picture's, and of what the head reads."""
        return self.hidden_size if self.word_size is None else self.word_size

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Read the `text_config` of a LLaVA configuration.

        Raises:
            ValueError: a size is not a positive whole number, one does not go with another, or the
                type is not supported.
        """
        kind = _type_of("text_config", config, _DECODER_DEFAULTS)
        if kind == OPT_MODEL_TYPE:
            return cls._from_opt(config)
        defaults = _DECODER_DEFAULTS[kind]
        values = _fill_in(config, defaults)
        num_heads, hidden_size = _size(values, "num_attention_heads"), _size(values, "hidden_size")
        # Left out, they are the type's; null, as many as there are query heads.
        num_kv_heads = config.get("num_key_value_heads", defaults.get("num_key_value_heads"))
        values["num_key_value_heads"] = num_heads if num_kv_heads is None else num_kv_heads
        values.setdefault("head_dim", hidden_size // num_heads)
        return cls(
            num_layers=_size(values, "num_hidden_layers"),
            hidden_size=hidden_size,
            num_heads=num_heads,
            num_kv_heads=_size(values, "num_key_value_heads"),
            head_dim=_size(values, "head_dim"),
            ffn_size=_size(values, "intermediate_size"),
            vocab_size=_size(values, "vocab_size"),
        )

    @classmethod
    def _from_opt(cls, config: Mapping[str, Any]) -> Self:
        values = _fill_in(config, _OPT_DEFAULTS)
        num_heads, hidden_size = _size(values, "num_attention_heads"), _size(values, "hidden_size")
        if hidden_size % num_heads:
            raise ValueError(
                f"num_attention_heads is {num_heads}, which does not divide hidden_size, "
                f"{hidden_size}"
            )
        word_size = _size({"word_embed_proj_dim": hidden_size, **values}, "word_embed_proj_dim")
        return cls(
            num_layers=_size(values, "num_hidden_layers"),
            hidden_size=hidden_size,
            num_heads=num_heads,
            num_kv_heads=num_heads,
            head_dim=hidden_size // num_heads,
            ffn_size=_size(values, "ffn_dim"),
            vocab_size=_size(values, "vocab_size"),
            is_gated=False,
            word_size=None if word_size == hidden_size else word_size,
            learns_positions=True,
        )


class Modality(StrEnum):
    """What a model is shown beside text."""

    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"


_MODALITIES = {_TIMESFORMER: Modality.VIDEO, _AST: Modality.AUDIO}


@dataclass(frozen=True)
class SpectrogramSizes:
    """What a sound is to its encoder, and how that is cut into patches, which may overlap.

    Attributes:
        num_frames: moments of it, silence behind a short sound's among them.
        num_bands: mel bands of each.
        time_stride, frequency_stride: from one patch to the next.
    """

    num_frames: int
    num_bands: int
    time_stride: int
    frequency_stride: int

    def num_patches(self, patch_size: int) -> int:
        """Return how many patches there are."""
        along = (self.num_frames - patch_size) // self.time_stride + 1
        return along * ((self.num_bands - patch_size) // self.frequency_stride + 1)


@dataclass(frozen=True)
class VisionSizes:
    """An encoder: CLIP's, SigLIP's or ViT's of pictures, TimeSformer's of videos, AST's of sounds.

    Attributes:
        num_layers: the depth of the tower as published.
        num_layers_used: the depth at which the features are taken; the rest need not run.
        keeps_cls: whether the class token is among the features.
        num_feature_layers: how many layers' outputs are concatenated for the projector.
        has_cls: whether the tower has a class token beside the patches.
        num_heads: heads of its attention.
        image_size: side of a picture or of a frame; 0 where there are none.
        kind: its type, as transformers names it.
        num_frames: frames of a video; 1 of a picture.
        spectrogram: of a sound; None of what is seen.
    """

    num_layers: int
    num_layers_used: int
    hidden_size: int
    ffn_size: int
    image_size: int
    patch_size: int
    num_channels: int
    keeps_cls: bool
    num_feature_layers: int = 1
    has_cls: bool = True
    num_heads: int = 12
    kind: str = _CLIP
    num_frames: int = 1
    spectrogram: SpectrogramSizes | None = None

    @property
    def modality(self) -> Modality:
        """What it takes."""
        return _MODALITIES.get(self.kind, Modality.IMAGE)

    @property
    def has_picture_tower(self) -> bool:
        """Whether it is CLIP's or SigLIP's, whose patches reducers choose among."""
        return self.kind in _PICTURE_TOWERS

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one medium: a picture's [S, S, 3], a video's [F, S, S, 3], a sound's [T, M].

        Pixels are whole numbers of 8 bits; of a sound it is float32.
        """
        if self.spectrogram is not None:
            return self.spectrogram.num_frames, self.spectrogram.num_bands
        picture = (self.image_size, self.image_size, self.num_channels)
        return picture if self.modality is Modality.IMAGE else (self.num_frames, *picture)

    @property
    def input_bytes(self) -> int:
        """The bytes of that."""
        return math.prod(self.input_shape) * (1 if self.spectrogram is None else 4)

    @property
    def num_frame_patches(self) -> int:
        """Patches of one picture, or of one frame."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def num_patches(self) -> int:
        """Patches of one medium."""
        if self.spectrogram is not None:
            return self.spectrogram.num_patches(self.patch_size)
        return self.num_frames * self.num_frame_patches

    @property
    def num_rows(self) -> int:
        """Rows of one medium inside the tower; AST's has a second token beside the class's."""
        return self.num_patches + self.has_cls + (self.spectrogram is not None)

    @property
    def num_features(self) -> int:
        """Features that one medium gives to the projector."""
        return self.num_rows - (self.has_cls and not self.keeps_cls)

    @property
    def feature_size(self) -> int:
        """The width of a feature."""
        return self.hidden_size * self.num_feature_layers

    @classmethod
    def of_tower(cls, tower: Mapping[str, Any]) -> Self:
        """Read the configuration of a tower by itself, whose output is taken with all its rows.

        Raises:
            ValueError: as `from_config`.
        """
        whole = {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"}
        return cls.from_config({"vision_config": tower, **whole})

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Read a LLaVA configuration (the whole of it: the feature layer stands outside).

        Raises:
            ValueError: a size is not a positive whole number, the type is not supported, there is
                no such feature layer, or the class token is to be dropped of a tower without one.
        """
        tower = config.get("vision_config")
        tower = CLIP_L_14_336 if tower is None else tower
        kind = _type_of("vision_config", tower, _TOWER_DEFAULTS)
        values = _fill_in(tower, _TOWER_DEFAULTS[kind])
        num_layers = _size(values, "num_hidden_layers")
        feature_layer = config.get("vision_feature_layer", -2)
        has_cls = kind != _SIGLIP
        is_sound = kind == _AST
        return cls(
            num_layers=num_layers,
            num_layers_used=num_layers_used(feature_layer, num_layers),
            hidden_size=_size(values, "hidden_size"),
            ffn_size=_size(values, "intermediate_size"),
            image_size=0 if is_sound else _size(values, "image_size"),
            patch_size=_size(values, "patch_size"),
            num_channels=1 if is_sound else _size(values, "num_channels"),
            keeps_cls=_takes_all(config, has_cls=has_cls) and has_cls,
            num_feature_layers=len(feature_layer) if isinstance(feature_layer, list) else 1,
            has_cls=has_cls,
            num_heads=_size(values, "num_attention_heads"),
            kind=kind,
            num_frames=_video_frames(values) if kind == _TIMESFORMER else 1,
            spectrogram=_spectrogram(values) if is_sound else None,
        )


def _video_frames(values: Mapping[str, Any]) -> int:
    """Return how many frames of a video are shown.

    Raises:
        ValueError: the encoder has places for another number, or does not look at time and space in
            turn.
    """
    if (num_frames := _size(values, "num_frames")) != FRAMES_SHOWN:
        raise ValueError(
            f"vision_config.num_frames is {num_frames}; a video is shown as {FRAMES_SHOWN} frames"
        )
    attention = values.get("attention_type", "divided_space_time")
    if attention != "divided_space_time":
        raise ValueError(
            f"vision_config.attention_type is {attention!r}; supported: divided_space_time"
        )
    return num_frames


def _spectrogram(values: Mapping[str, Any]) -> SpectrogramSizes:
    sizes = SpectrogramSizes(
        num_frames=_size(values, "max_length"),
        num_bands=_size(values, "num_mel_bins"),
        time_stride=_size(values, "time_stride"),
        frequency_stride=_size(values, "frequency_stride"),
    )
    if (patch := _size(values, "patch_size")) > min(sizes.num_frames, sizes.num_bands):
        raise ValueError(
            f"patch_size is {patch}, more than max_length, {sizes.num_frames}, or num_mel_bins, "
            f"{sizes.num_bands}"
        )
    return sizes


def _takes_all(config: Mapping[str, Any], *, has_cls: bool) -> bool:
    """Return whether all rows of the tower are features; else its first, the class token, is none.

    Raises:
        ValueError: the tower has no class token, so that the first would be a patch.
    """
    strategy = config.get("vision_feature_select_strategy", "default")
    if strategy == "default" and not has_cls:
        raise ValueError(
            "vision_feature_select_strategy is 'default' (as where it is left out), which takes "
            "away the class token; a SigLIP tower has none and would lose the first patch of each "
            "picture; supported with it: 'full'"
        )
    return bool(strategy == "full")


def num_layers_used(feature_layer: int | list[int], num_layers: int) -> int:
    """Return how many layers must run for `hidden_states[feature_layer]` to be there.

    hidden_states[0] are the embeddings, so -1 needs all layers and -2 all but one. A list takes
    the deepest.

    Raises:
        ValueError: the tower has no such layer.
    """
    layers = feature_layer if isinstance(feature_layer, list) else [feature_layer]
    known = range(-num_layers - 1, num_layers + 1)
    if not layers or not all(type(layer) is int and layer in known for layer in layers):
        raise ValueError(
            f"vision_feature_layer {feature_layer!r} is not in a tower of {num_layers} layers"
        )
    return max(layer if layer >= 0 else num_layers + 1 + layer for layer in layers)


@dataclass(frozen=True)
class MlpSizes:
    """LLaVA's projector: two linear layers, the second square, which make a row of each feature."""


@dataclass(frozen=True)
class MappingSizes:
    """A mapping module: a transformer encoder over the features and learned queries.

    What it makes of the queries are an image's rows. Source: "Skipping Computations in Multimodal
    LLMs", arXiv 2410.09454.
    """

    num_queries: int = 10
    hidden_size: int = 256
    num_layers: int = 5
    num_heads: int = 8
    ffn_size: int = 512

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Read the configuration of a model that has one; what it leaves out is as in the paper.

        Raises:
            ValueError: a size is not a positive whole number, the heads do not share out the
                width, or `image_seq_length` is not the number of queries.
        """
        paper = cls()
        values = _fill_in(
            config,
            {
                "num_query_tokens": paper.num_queries,
                "projector_hidden_size": paper.hidden_size,
                "projector_layers": paper.num_layers,
                "projector_heads": paper.num_heads,
                "projector_ffn_size": paper.ffn_size,
            },
        )
        sizes = cls(
            num_queries=_size(values, "num_query_tokens"),
            hidden_size=_size(values, "projector_hidden_size"),
            num_layers=_size(values, "projector_layers"),
            num_heads=_size(values, "projector_heads"),
            ffn_size=_size(values, "projector_ffn_size"),
        )
        if sizes.hidden_size % sizes.num_heads:
            raise ValueError(
                f"projector_heads is {sizes.num_heads}, which does not divide "
                f"projector_hidden_size, {sizes.hidden_size}"
            )
        length = values.get("image_seq_length", sizes.num_queries)
        if length != sizes.num_queries:
            raise ValueError(
                f"image_seq_length is {length!r}, and num_query_tokens {sizes.num_queries}: an "
                "image takes as many rows as there are queries"
            )
        return sizes


ProjectorSizes = MlpSizes | MappingSizes

# The `model_type` of checkpoints that are LLaVA but for their projector.
OWN_MODEL_TYPE = "skipserve_llava"


def projector_sizes(config: Mapping[str, Any]) -> ProjectorSizes:
    """Read which projector a model has.

    Raises:
        ValueError: it is none that is known here, or a LLaVA configuration names another than
            LLaVA's, which transformers would not heed.
    """
    kind = config.get("projector_type")
    if config.get("model_type") != OWN_MODEL_TYPE:
        if kind is not None and kind != "mlp":
            raise ValueError(
                f"projector_type is {kind!r}, and a model of type llava has none but mlp; the "
                f"model_type of others is {OWN_MODEL_TYPE}"
            )
        return MlpSizes()
    if kind != "mapping":
        raise ValueError(f"projector_type is {kind!r}; supported: mapping")
    return MappingSizes.from_config(config)


@dataclass(frozen=True)
class ModelSizes:
    """A LLaVA-1.5 style model: vision tower, projector, decoder."""

    decoder: DecoderSizes
    vision: VisionSizes
    projector: ProjectorSizes = MlpSizes()

    @property
    def rows_per_image(self) -> int:
        """Rows of the decoder that one image takes."""
        if isinstance(self.projector, MappingSizes):
            return self.projector.num_queries
        return self.vision.num_features

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Read a LLaVA `config.json`, or that of a model that differs in its projector.

        Raises:
            ValueError: a size is not a positive whole number, or a part is not known.
        """
        return cls(
            decoder=DecoderSizes.from_config(config.get("text_config") or {}),
            vision=VisionSizes.from_config(config),
            projector=projector_sizes(config),
        )


_PUBLISHED_TOWER = VisionSizes.from_config({})

# The published models whose costs can be asked for without their files. The vocabulary is the
# published one of 32000; the Hugging Face ports pad it to 32064.
KNOWN_MODELS: dict[str, ModelSizes] = {
    "llava-1.5-7b": ModelSizes(
        decoder=DecoderSizes(32, 4096, 32, 32, 128, 11008, 32000), vision=_PUBLISHED_TOWER
    ),
    "llava-1.5-13b": ModelSizes(
        decoder=DecoderSizes(40, 5120, 40, 40, 128, 13824, 32000), vision=_PUBLISHED_TOWER
    ),
}
