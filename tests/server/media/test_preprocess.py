"""Tests of padding, resizing and cropping, against transformers' own."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import random_picture
from PIL import Image as PillowImage

from skipserve.errors import UnusableImageError
from skipserve.media.fitting import Fitting
from skipserve.media.kinds import Pictures
from skipserve.media.preprocess import Preprocessor, digest_pixels
from skipserve.model.config import ModelConfig, ModelFilesError
from skipserve.model.image_processor import ImageProcessor

SIDE = 28
MOST = 1_000_000
# Each is a width and a height.
SHAPES = [
    *((28, 28), (40, 30), (30, 40), (29, 28), (7, 5), (1, 1), (1, 3), (3, 1), (640, 480)),
    *((200, 1), (1, 200), (333, 111), (27, 29), (500, 499)),
]
CLIP, LLAVA, SIGLIP = "CLIPImageProcessor", "LlavaImageProcessor", "SiglipImageProcessor"
VIT = "ViTImageProcessor"


def fitting_of(preprocessor: Preprocessor) -> Fitting:
    """What comes a picture's way."""
    assert isinstance(preprocessor.kind, Pictures)
    return preprocessor.kind.fitting


CONFIGS: dict[str, dict[str, Any]] = {
    "as_llava": {},
    "size_as_number": {"size": SIDE, "crop_size": SIDE},
    "larger_then_crop": {"size": {"shortest_edge": 37}},
    "smaller_then_pad": {"size": {"shortest_edge": 19}},
    "fixed_size": {"size": {"height": SIDE, "width": SIDE}, "do_center_crop": False},
    "fixed_then_crop": {"size": {"height": 31, "width": 41}},
    "bilinear": {"resample": 2},
    "lanczos": {"resample": 1},
    "box": {"resample": 4},
    "no_resize": {"do_resize": False},
    "null_is_false": {"do_resize": None, "size": None, "resample": None, "do_pad": None},
    "null_edges": {"size": {"shortest_edge": SIDE, "longest_edge": None}},
    "size_as_list": {"size": [31, 41], "crop_size": [SIDE, SIDE]},
    "number_to_square": {"size": SIDE, "default_to_square": True, "do_center_crop": False},
    "longest_edge": {"size": {"shortest_edge": SIDE, "longest_edge": 41}},
    "longest_edge_first": {"size": {"shortest_edge": 60, "longest_edge": 30}},
    "room": {"size": {"max_height": 31, "max_width": 41}},
    "padded": {"do_pad": True, "image_processor_type": LLAVA},
    "padded_not_cropped": {
        "do_pad": True,
        "do_center_crop": False,
        "image_processor_type": LLAVA,
    },
    "padded_black": {
        "do_pad": True,
        "image_mean": None,
        "do_normalize": False,
        "image_processor_type": LLAVA,
    },
    "padded_before_the_longest_edge": {
        "do_pad": True,
        "size": {"shortest_edge": 40, "longest_edge": 30},
        "image_processor_type": LLAVA + "Fast",
    },
    "padded_then_cropped": {"do_pad": True, "do_resize": False, "image_processor_type": LLAVA},
    "pad_size_of_llava_is_idle": {"pad_size": 3, "image_processor_type": LLAVA, "do_pad": True},
    "padded_after_cropping": {"do_pad": True, "image_processor_type": CLIP, "pad_size": SIDE},
    "padded_to_the_largest": {"do_pad": True, "image_processor_type": CLIP + "Fast"},
    "older_name": {"image_processor_type": None, "feature_extractor_type": "CLIPFeatureExtractor"},
    "no_name_is_llava": {"image_processor_type": None, "do_pad": True},
    "not_normalised": {"do_normalize": False},
    "not_rescaled": {"do_rescale": False},
    "neither": {"do_rescale": False, "do_normalize": False},
    "unused_numbers": {"do_normalize": False, "image_mean": [1], "do_rescale": False}
    | {"rescale_factor": None, "image_std": None},
    "signed": {"rescale_factor": 1 / 127.5, "image_mean": 1.0, "image_std": [1, 1, 1]},
    "one_number": {"image_mean": 0.5, "image_std": 0.25},
    "other_numbers": {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3]},
    "not_to_rgb": {"do_convert_rgb": False},
}
# As it is published for towers of other sizes; then what else its files may say.
OF_SIGLIP: dict[str, dict[str, Any]] = {
    "siglip": {"size": {"height": SIDE, "width": SIDE}, "resample": 3, "do_convert_rgb": None},
    "siglip_slow": {
        "image_processor_type": SIGLIP + "Pil",
        "size": {"height": SIDE, "width": SIDE},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "rescale_factor": 1 / 255,
        "resample": 2,
    },
    "siglip_cropped": {
        "size": {"shortest_edge": 40},
        "do_center_crop": True,
        "crop_size": SIDE,
        "image_mean": [0.1, 0.2, 0.3],
    },
    "vit": {"image_processor_type": VIT, "size": {"height": SIDE, "width": SIDE}},
    "vit_of_a_number": {"image_processor_type": VIT + "Pil", "size": SIDE, "image_std": [1, 2, 3]},
    "vit_cropped": {
        "image_processor_type": VIT,
        "size": {"height": 40, "width": 41},
        "do_center_crop": True,
        "crop_size": SIDE,
    },
    "siglip_padded_to_its_size": {
        "size": {"height": SIDE, "width": SIDE},
        "do_pad": True,
        "pad_size": SIDE,
    },
}


def config_of(changes: dict[str, Any]) -> dict[str, Any]:
    if changes in OF_SIGLIP.values():
        return {"image_processor_type": SIGLIP} | changes
    return {
        "image_processor_type": CLIP,
        "size": {"shortest_edge": SIDE},
        "crop_size": {"height": SIDE, "width": SIDE},
        "do_resize": True,
        "do_center_crop": True,
        "resample": 3,
    } | changes


def write_folder(folder: Path, changes: dict[str, Any]) -> Path:
    vision = {"image_size": SIDE, "patch_size": 7}
    config = {"model_type": "llava", "vision_config": vision}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(config_of(changes)))
    return folder


def read(folder: Path, most: int = MOST) -> Preprocessor:
    return Preprocessor.from_config(ModelConfig.from_folder(folder), most)


@pytest.fixture
def preprocessor(tmp_path: Path) -> Callable[..., Preprocessor]:
    def make(**changes: Any) -> Preprocessor:
        return read(write_folder(tmp_path, changes))

    return make


def steps_of(folder: Path) -> ImageProcessor:
    return ModelConfig.from_folder(folder).image_processor


def normalised(folder: Path, picture: PillowImage.Image) -> Any:
    """Return what the vision tower sees of a picture, [C, S, S]."""
    preprocessor, steps = read(folder), steps_of(folder)
    content = preprocessor.fit(picture, "p").pixels
    pixels = np.frombuffer(content, np.uint8).reshape(SIDE, SIDE, 3)
    mean, std = np.array(steps.mean), np.array(steps.std)
    return ((pixels * steps.scale - mean) / std).transpose(2, 0, 1)


@pytest.mark.parametrize("name", [*CONFIGS, *OF_SIGLIP])
def test_pictures_equal_those_of_transformers(tmp_path: Path, name: str) -> None:
    from transformers import AutoImageProcessor  # noqa: PLC0415 (slow to import)

    write_folder(tmp_path, (CONFIGS | OF_SIGLIP)[name])
    ours, theirs = read(tmp_path), AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    for shape in SHAPES:
        picture = random_picture(*shape)
        try:
            expected = theirs(picture, return_tensors="np")["pixel_values"][0]
        except ValueError as error:
            # One side of the resized picture would be 0.
            assert "must be > 0" in str(error)  # noqa: PT017 (of the oracle)
            with pytest.raises(UnusableImageError):
                ours.fit(picture, "p")
            continue
        np.testing.assert_allclose(
            normalised(tmp_path, picture), expected, rtol=1e-5, atol=1e-5, err_msg=str(shape)
        )


@pytest.mark.fast
def test_the_newer_file_wins(tmp_path: Path) -> None:
    write_folder(tmp_path, {"resample": 0})
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": config_of({})}))
    assert fitting_of(read(tmp_path)).resample == 3


@pytest.mark.fast
def test_a_newer_file_without_an_image_processor_leaves_it_to_the_older(tmp_path: Path) -> None:
    write_folder(tmp_path, {"resample": 0})
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": None}))
    assert fitting_of(read(tmp_path)).resample == 0


@pytest.mark.fast
def test_without_a_file_it_is_clip_s_way(tmp_path: Path) -> None:
    (write_folder(tmp_path, {}) / "preprocessor_config.json").unlink()
    assert len(read(tmp_path).fit(random_picture(50, 40), "p").pixels) == 3 * SIDE**2


@pytest.mark.fast
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"crop_size": {"height": 10, "width": 10}}, "crop_size"),
        ({"crop_size": {"height": SIDE, "width": 20}}, "crop_size"),
        ({"size": {"height": 10, "width": SIDE}, "do_center_crop": False}, "(size)"),
        ({"do_center_crop": False}, "do_center_crop"),
        ({"do_center_crop": False, "do_resize": False}, "do_center_crop"),
        (
            {"do_center_crop": False, "do_pad": True, "image_processor_type": LLAVA, "size": 20},
            "(size)",
        ),
    ],
)
def test_pictures_that_the_tower_does_not_take(
    preprocessor: Callable[..., Preprocessor], changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(ModelFilesError, match=re.escape(field)):
        preprocessor(**changes)


@pytest.mark.fast
@pytest.mark.parametrize("shape", [(900, 2), (2, 900)])
def test_s15_pictures_too_thin_to_pad(
    preprocessor: Callable[..., Preprocessor], shape: tuple[int, int]
) -> None:
    ours = preprocessor(do_pad=True, image_processor_type=LLAVA)
    fitting = replace(fitting_of(ours), max_resized_pixels=800_000)
    with pytest.raises(UnusableImageError, match=r"too thin.* 900 x 900"):
        fitting.fit(PillowImage.new("RGB", shape), "p")


@pytest.mark.fast
@pytest.mark.parametrize(
    "size", [{"max_height": 28, "max_width": 28}, {"shortest_edge": 28, "longest_edge": 40}]
)
def test_s15_pictures_of_which_nothing_would_be_left(
    preprocessor: Callable[..., Preprocessor], size: dict[str, int]
) -> None:
    with pytest.raises(UnusableImageError, match="too thin"):
        preprocessor(size=size).fit(PillowImage.new("RGB", (1, 200)), "p")


@pytest.mark.fast
@pytest.mark.parametrize("shape", [(65535, 1), (1, 65535)])
def test_s15_pictures_too_thin_to_resize(
    preprocessor: Callable[..., Preprocessor], shape: tuple[int, int]
) -> None:
    with pytest.raises(UnusableImageError, match="too thin"):
        preprocessor().fit(PillowImage.new("RGB", shape), "p")


@pytest.mark.fast
def test_s11_other_shapes_have_other_digests() -> None:
    pixels = bytes(9000)
    digests = {
        digest_pixels(pixels, 100),
        digest_pixels(pixels, 30),
        digest_pixels(pixels, 100, "L"),
    }
    assert len(digests) == 3


@pytest.mark.fast
@given(
    first=st.tuples(st.binary(max_size=9), st.integers(0, 999), st.text(max_size=3)),
    second=st.tuples(st.binary(max_size=9), st.integers(0, 999), st.text(max_size=3)),
)
def test_s12_digests_are_framed(
    first: tuple[bytes, int, str], second: tuple[bytes, int, str]
) -> None:
    assert (digest_pixels(*first) == digest_pixels(*second)) == (first == second)


@pytest.mark.fast
def test_equal_pictures_have_equal_digests(preprocessor: Callable[..., Preprocessor]) -> None:
    fit = preprocessor().fit
    assert fit(random_picture(40, 30), "p") == fit(random_picture(40, 30), "q")
    assert (
        fit(random_picture(40, 30), "p").digest != fit(random_picture(40, 30, seed=1), "p").digest
    )
