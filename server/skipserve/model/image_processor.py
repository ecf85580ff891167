"""What the image processor of a checkpoint does, field by field of its file, as in transformers 5.

Knows no picture and no file: `media` follows what is read here, the vision tower the numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from skipserve.model.fields import read_as

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# The one of LLaVA pads before it resizes, and those of SigLIP and ViT have other defaults;
# otherwise they are alike.
_CLIP, _LLAVA, _SIGLIP = "CLIPImageProcessor", "LlavaImageProcessor", "SiglipImageProcessor"
_VIT = "ViTImageProcessor"
_KINDS = (_CLIP, _LLAVA, _SIGLIP, _VIT)
_SIGLIP_DEFAULTS: Mapping[str, Any] = {
    "size": {"height": 224, "width": 224},
    "do_center_crop": False,
    "crop_size": None,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    _SIGLIP: _SIGLIP_DEFAULTS,
    _VIT: {**_SIGLIP_DEFAULTS, "resample": 2, "default_to_square": True},
}

# The sets of keys by which transformers' Pillow processors resize.
_SIZE_FORMS = (
    {"height", "width"},
    {"shortest_edge"},
    {"shortest_edge", "longest_edge"},
    {"max_height", "max_width"},
)

_Flag = Annotated[bool | None, Field(description="true or false")]
_Pair = Annotated[list[PositiveInt], Field(min_length=2, max_length=2)]
_SizeField = Annotated[
    PositiveInt | _Pair | dict[str, PositiveInt | None] | None,
    Field(description="a number of pixels, a list of height and width, or an object of numbers"),
]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_ChannelsField = Annotated[
    _Number | list[_Number] | None, Field(description="a number, or a list of three numbers")
]
_Filter = Annotated[
    Annotated[int, Field(ge=0, le=5)] | None,
    Field(description="the number of one of Pillow's filters, 0 to 5"),
]
_Factor = Annotated[
    Annotated[float, Field(gt=0, allow_inf_nan=False)] | None,
    Field(description="a number larger than 0"),
]
_Text = Annotated[str | None, Field(description="a text")]


_Size = int | list[int] | dict[str, int | None]


class _Fields(BaseModel):
    """A preprocessor file; null is what it is, and what is left out is transformers' default."""

    model_config = ConfigDict(extra="ignore", strict=True)

    image_processor_type: _Text = None
    feature_extractor_type: _Text = None
    do_resize: _Flag = True
    size: _SizeField = 224
    default_to_square: _Flag = False
    use_square_size: _Flag = False
    resample: _Filter = 3
    do_center_crop: _Flag = True
    crop_size: _SizeField = 224
    do_rescale: _Flag = True
    rescale_factor: _Factor = 1 / 255
    do_normalize: _Flag = True
    image_mean: _ChannelsField = list(_CLIP_MEAN)
    image_std: _ChannelsField = list(_CLIP_STD)
    do_pad: _Flag = False
    pad_size: _SizeField = None


# What must not be null where a flag is set.
_NEEDED = {
    "do_resize": ("size", "resample"),
    "do_center_crop": ("crop_size",),
    "do_rescale": ("rescale_factor",),
    "do_normalize": ("image_mean", "image_std"),
}

# What changes no pixel here: pictures are RGB before they come to the image processor, and the rest
# says how transformers hands them in and out.
_WITHOUT_EFFECT = {
    "do_convert_rgb", "data_format", "input_data_format", "return_tensors", "device",
    "disable_grouping", "image_seq_length", "processor_class", "auto_map", "use_fast",
    "_valid_processor_keys", "transformers_version",
}  # fmt: skip


@dataclass(frozen=True)
class ImageProcessor:
    """Pad to a square, resize, crop from the middle, rescale, normalise.

    Attributes:
        background: the colour with which to pad to a square, or None for no padding.
        size: what to resize to in one of transformers' forms, or None for no resizing.
        resample: Pillow's number of the filter.
        crop: (height, width), or None for no cropping.
        scale: what a pixel of 0 to 255 is multiplied by.
        mean: is then subtracted, by channel.
        std: what it is then divided by, by channel.
        unread: names of fields that no image processor of transformers' for these models has.
    """

    background: tuple[int, int, int] | None
    size: Mapping[str, int] | None
    resample: int
    crop: tuple[int, int] | None
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    unread: tuple[str, ...] = ()

    @classmethod
    def from_fields(cls, given: Mapping[str, Any]) -> Self:
        """Read the fields of an image processor's file.

        Raises:
            ValueError: one cannot be followed; names it.
        """
        fields = _checked(given)
        crop = _crop(fields)
        return cls(
            background=_background(fields, crop),
            size=_size(fields),
            resample=fields.resample or 0,
            crop=crop,
            scale=fields.rescale_factor if fields.do_rescale and fields.rescale_factor else 1.0,
            mean=_channels(fields, "image_mean", default=0.0),
            std=_divisors(fields),
            unread=tuple(sorted(given.keys() - _Fields.model_fields.keys() - _WITHOUT_EFFECT)),
        )

    @classmethod
    def of_square(cls, side: int) -> Self:
        """Return the one that published LLaVA checkpoints have, for a tower of some size."""
        return cls.from_fields({"size": {"shortest_edge": side}, "crop_size": side})

    @classmethod
    def of_siglip(cls, side: int) -> Self:
        """Return the one that published SigLIP towers have: a picture of any shape is stretched."""
        return cls._stretching(_SIGLIP, side)

    @classmethod
    def of_vit(cls, side: int) -> Self:
        """Return the one that published ViTs have: it stretches too, by another filter."""
        return cls._stretching(_VIT, side)

    @classmethod
    def _stretching(cls, kind: str, side: int) -> Self:
        size = {"height": side, "width": side}
        return cls.from_fields({"image_processor_type": kind, "size": size})


def _checked(given: Mapping[str, Any]) -> _Fields:
    fields = read_as(_Fields, given)
    defaults = _DEFAULTS.get(_kind(fields), {})
    silent = defaults.keys() - given.keys()
    fields = fields.model_copy(update={name: defaults[name] for name in silent})
    _check_needed(fields)
    if fields.use_square_size:
        raise ValueError("use_square_size is not supported; write the sides into size")
    return fields


def _check_needed(fields: _Fields) -> None:
    for flag, names in _NEEDED.items():
        for name in names:
            if getattr(fields, flag) and getattr(fields, name) is None:
                raise ValueError(f"{name} is null, and {flag} needs it")


def _kind(fields: _Fields) -> str:
    """Return which of transformers' image processors it is, without the name of a backend."""
    name = fields.image_processor_type
    if name is None:
        older = fields.feature_extractor_type or _LLAVA
        name = older.replace("FeatureExtractor", "ImageProcessor")
    kind = name.removesuffix("Fast").removesuffix("Pil")
    if kind not in _KINDS:
        raise ValueError(f"image_processor_type is {name!r}; supported: {', '.join(_KINDS)}")
    return kind


def _size(fields: _Fields) -> Mapping[str, int] | None:
    size: _Size | None = fields.size
    if not fields.do_resize or size is None:
        return None
    if isinstance(size, int) and not fields.default_to_square:
        size = {"shortest_edge": size}
    form = _by_side(size)
    if form.keys() not in _SIZE_FORMS:
        forms = "; ".join(", ".join(sorted(keys)) for keys in _SIZE_FORMS)
        raise ValueError(f"size has the keys {', '.join(form) or 'none'}; supported: {forms}")
    return MappingProxyType(form)


def _by_side(size: _Size) -> dict[str, int]:
    """Return any form of a size as an object; a number alone is the side of a square."""
    if isinstance(size, int):
        size = [size, size]
    if isinstance(size, list):
        return {"height": size[0], "width": size[1]}
    return {key: value for key, value in size.items() if value is not None}


def _sides(name: str, size: _Size) -> tuple[int, int]:
    form = _by_side(size)
    if form.keys() != {"height", "width"}:
        raise ValueError(f"{name} is {size!r}; it must have height and width")
    return form["height"], form["width"]


def _crop(fields: _Fields) -> tuple[int, int] | None:
    if not fields.do_center_crop or fields.crop_size is None:
        return None
    return _sides("crop_size", fields.crop_size)


def _channels(fields: _Fields, name: str, default: float) -> tuple[float, ...]:
    given: float | list[float] = getattr(fields, name) if fields.do_normalize else default
    values = tuple(given) if isinstance(given, list) else (given,) * 3
    if len(values) != 3:
        raise ValueError(f"{name} has {len(values)} numbers; it must have three")
    return values


def _divisors(fields: _Fields) -> tuple[float, ...]:
    values = _channels(fields, "image_std", default=1.0)
    if 0 in values:
        raise ValueError("image_std holds 0, and pixels are divided by it")
    return values


def _background(fields: _Fields, crop: tuple[int, int] | None) -> tuple[int, int, int] | None:
    """Return the colour to pad with: that of the mean, on which the normalised picture is 0."""
    kind = _kind(fields)
    if not fields.do_pad:
        return None
    if kind != _LLAVA:
        _check_padding_is_idle(fields, crop, kind)
        return None
    mean = fields.image_mean
    if mean is None:
        return (0, 0, 0)
    if not isinstance(mean, list) or len(mean) != 3 or not all(0 <= x <= 1 for x in mean):
        raise ValueError(
            f"image_mean is {mean!r}; it must be three numbers from 0 to 1, for do_pad makes a "
            "colour of it"
        )
    red, green, blue = (int(value * 255) for value in mean)
    return red, green, blue


def _check_padding_is_idle(fields: _Fields, crop: tuple[int, int] | None, kind: str) -> None:
    """Refuse padding that would change the picture: the backend's comes last, after the crop."""
    if fields.pad_size is None:
        return
    size = _size(fields) or {}
    sides = crop or (size.get("height"), size.get("width"))
    if _sides("pad_size", fields.pad_size) != sides:
        raise ValueError(f"pad_size is {fields.pad_size!r}, which is not supported with {kind}")
