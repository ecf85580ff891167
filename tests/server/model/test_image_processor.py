"""Fields of image processor files: each followed, known to be idle, named, or refused by name."""

from typing import Any

import pytest

from skipserve.model.image_processor import ImageProcessor

pytestmark = pytest.mark.fast

CLIP = {"image_processor_type": "CLIPImageProcessor"}
LLAVA = {"image_processor_type": "LlavaImageProcessor"}
SIGLIP = {"image_processor_type": "SiglipImageProcessor"}

# As older and newer versions of transformers write it for LLaVA-1.5.
PUBLISHED: dict[str, Any] = {
    "_valid_processor_keys": ["images", "do_resize", "size"],
    "auto_map": {"AutoImageProcessor": "more.Code"},
    "crop_size": {"height": 336, "width": 336},
    "data_format": "channels_first",
    "device": None,
    "disable_grouping": None,
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_pad": None,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "input_data_format": None,
    "processor_class": "LlavaProcessor",
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "return_tensors": None,
    "size": {"shortest_edge": 336},
}


def test_a_published_file_is_read() -> None:
    read = ImageProcessor.from_fields(PUBLISHED)
    assert read == ImageProcessor.of_square(336)
    assert read.unread == ()


def test_a_silent_file_means_what_it_means_to_transformers() -> None:
    assert ImageProcessor.from_fields({}) == ImageProcessor.of_square(224)


def test_a_silent_file_of_siglip_stretches_pictures() -> None:
    assert ImageProcessor.from_fields(SIGLIP) == ImageProcessor.of_siglip(224)


def test_a_silent_file_of_vit_stretches_pictures() -> None:
    fields = {"image_processor_type": "ViTImageProcessor"}
    assert ImageProcessor.from_fields(fields) == ImageProcessor.of_vit(224)


def test_unknown_fields_are_named() -> None:
    read = ImageProcessor.from_fields(PUBLISHED | {"image_maen": [1, 1, 1], "do_flip": True})
    assert read.unread == ("do_flip", "image_maen")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"image_processor_type": "Siglip2ImageProcessor"},
            "image_processor_type is 'Siglip2ImageProcessor'; supported: CLIPImageProcessor, "
            "LlavaImageProcessor, SiglipImageProcessor",
        ),
        (SIGLIP | {"do_center_crop": True}, "crop_size is null, and do_center_crop needs it"),
        (SIGLIP | {"do_pad": True, "pad_size": 400}, "pad_size is 400, which is not supported"),
        ({"feature_extractor_type": "DeiTFeatureExtractor"}, "'DeiTImageProcessor'"),
        ({"image_processor_type": 1}, "image_processor_type is 1; it must be a text"),
        ({"do_resize": "no"}, "do_resize is 'no'; it must be true or false"),
        ({"do_normalize": 0}, "do_normalize is 0; it must be true or false"),
        ({"size": None}, "size is null, and do_resize needs it"),
        ({"size": -1}, "size is -1; it must be a number of pixels"),
        ({"size": 336.5}, "size is 336.5; it must be"),
        ({"size": True}, "size is True; it must be"),
        ({"size": [1, 2, 3]}, "size is [1, 2, 3]; it must be"),
        ({"size": "336"}, "size is '336'; it must be"),
        ({"size": {"shortest_edge": 0}}, "size is {'shortest_edge': 0}"),
        ({"size": {}}, "size has the keys none; supported: height, width"),
        ({"size": {"longest_edge": 336}}, "size has the keys longest_edge; supported: height"),
        ({"size": {"min_pixels": 1, "max_pixels": 2}}, "keys min_pixels, max_pixels"),
        ({"size": {"height": 336}}, "size has the keys height;"),
        ({"use_square_size": True}, "use_square_size is not supported"),
        ({"resample": None}, "resample is null"),
        ({"resample": "bicubic"}, "resample is 'bicubic'; it must be the number of one of Pillow"),
        ({"resample": 6}, "resample is 6"),
        ({"resample": True}, "resample is True"),
        ({"crop_size": None}, "crop_size is null"),
        ({"crop_size": {"shortest_edge": 336}}, "crop_size is {'shortest_edge': 336}; it must"),
        ({"rescale_factor": None}, "rescale_factor is null, and do_rescale needs it"),
        ({"rescale_factor": 0}, "rescale_factor is 0; it must be a number larger than 0"),
        ({"rescale_factor": float("inf")}, "rescale_factor is inf"),
        ({"rescale_factor": "1/255"}, "rescale_factor is '1/255'"),
        ({"image_mean": None}, "image_mean is null, and do_normalize needs it"),
        ({"image_mean": [0.5]}, "image_mean has 1 numbers; it must have three"),
        ({"image_mean": []}, "image_mean has 0 numbers"),
        ({"image_mean": ["a", "b", "c"]}, "image_mean is ['a', 'b', 'c']; it must be a number, or"),
        ({"image_mean": [0.5, 0.5, float("nan")]}, "image_mean is [0.5, 0.5, nan]"),
        ({"image_std": [1, 1, 1, 1]}, "image_std has 4 numbers"),
        ({"image_std": [1, 0, 1]}, "image_std holds 0"),
        ({"image_std": 0}, "image_std holds 0"),
        (CLIP | {"do_pad": True, "pad_size": 400}, "pad_size is 400, which is not supported with"),
        (LLAVA | {"do_pad": True, "image_mean": 0.5}, "image_mean is 0.5; it must be three"),
        (LLAVA | {"do_pad": True, "image_mean": [-1, 0, 0]}, "three numbers from 0 to 1"),
        (LLAVA | {"do_pad": "square"}, "do_pad is 'square'"),
    ],
)  # fmt: skip
def test_what_cannot_be_followed_is_refused_by_name(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 (the message is compared below)
        ImageProcessor.from_fields(fields)
    assert message in str(refused.value)
