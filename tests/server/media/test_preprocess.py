"""Tests of resizing and cropping, against transformers' own."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import random_picture
from PIL import Image as PillowImage

from skipserve.errors import UnusableImageError
from skipserve.media.preprocess import ImageFilesError, Preprocessor, digest_pixels

SIDE = 28
MOST = 1_000_000
# Each is a width and a height.
SHAPES = [
    *((28, 28), (40, 30), (30, 40), (29, 28), (7, 5), (1, 1), (1, 3), (3, 1), (640, 480)),
    *((200, 1), (1, 200), (333, 111), (27, 29), (500, 499)),
]
CONFIGS: dict[str, dict[str, Any]] = {
    "as_llava": {},
    "size_as_number": {"size": SIDE, "crop_size": SIDE},
    "larger_then_crop": {"size": {"shortest_edge": 37}},
    "smaller_then_pad": {"size": {"shortest_edge": 19}},
    "fixed_size": {"size": {"height": SIDE, "width": SIDE}, "do_center_crop": False},
    "fixed_then_crop": {"size": {"height": 31, "width": 41}},
    "bilinear": {"resample": 2},
    "no_resize": {"do_resize": False},
}


def config_of(changes: dict[str, Any]) -> dict[str, Any]:
    return {
        "size": {"shortest_edge": SIDE},
        "crop_size": {"height": SIDE, "width": SIDE},
        "do_resize": True,
        "do_center_crop": True,
        "resample": 3,
    } | changes


@pytest.fixture
def preprocessor(tmp_path: Path) -> Callable[..., Preprocessor]:
    def make(**changes: Any) -> Preprocessor:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(config_of(changes)))
        return Preprocessor.from_folder(tmp_path, SIDE, MOST)

    return make


@pytest.mark.parametrize("name", CONFIGS)
def test_pixels_equal_those_of_transformers(
    preprocessor: Callable[..., Preprocessor], name: str
) -> None:
    from transformers.models.clip.image_processing_pil_clip import (  # noqa: PLC0415 (slow to import)
        CLIPImageProcessorPil,
    )

    changes = CONFIGS[name]
    ours = preprocessor(**changes)
    theirs = CLIPImageProcessorPil(**config_of(changes))
    mean, std = np.array(theirs.image_mean), np.array(theirs.image_std)
    for shape in SHAPES:
        picture = random_picture(*shape)
        image = ours.fit(picture, "p")
        pixels = np.frombuffer(image.pixels, np.uint8).reshape(SIDE, SIDE, 3)
        raw = theirs(picture, do_rescale=False, do_normalize=False, return_tensors="np")
        assert np.array_equal(pixels, raw["pixel_values"][0].transpose(1, 2, 0)), shape
        normal = theirs(picture, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
        np.testing.assert_allclose((pixels / 255 - mean) / std, normal, rtol=1e-5, atol=1e-5)


@pytest.mark.fast
def test_both_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": config_of({})}))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config_of({"resample": 0})))
    assert Preprocessor.from_folder(tmp_path, SIDE, MOST).resample == 3


@pytest.mark.fast
def test_without_a_file_it_is_clip_s_way(tmp_path: Path) -> None:
    preprocessor = Preprocessor.from_folder(tmp_path, SIDE, MOST)
    assert preprocessor.fit(random_picture(50, 40), "p").size == SIDE


@pytest.mark.fast
@pytest.mark.parametrize(
    "changes",
    [
        {"crop_size": {"height": 10, "width": 10}},
        {"do_center_crop": False},
        {"do_pad": True},
    ],
)
def test_what_is_not_supported(
    preprocessor: Callable[..., Preprocessor], changes: dict[str, Any]
) -> None:
    with pytest.raises(ImageFilesError):
        preprocessor(**changes)


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
