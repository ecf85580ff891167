"""Fits a picture to the vision tower: pad, resize and centre crop as the checkpoint says.

The pixels equal those of transformers' image processors for CLIP and LLaVA (their Pillow variants)
before they rescale and normalise, which here happens on the device.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from PIL import Image as PillowImage

from skipserve.digests import digest_of
from skipserve.engine.request import Image
from skipserve.errors import UnusableImageError
from skipserve.model.config import ModelConfig, ModelFilesError
from skipserve.model.image_processor import ImageProcessor


@dataclass(frozen=True)
class Preprocessor:
    """Pad to a square, resize, then centre crop.

    Attributes:
        steps: what the checkpoint asks for.
        image_size: side of the square that the vision tower takes.
        num_rows: rows of the prompt that show a picture.
        max_resized_pixels: refuses pictures so thin that padding or resizing would blow them up.
    """

    steps: ImageProcessor
    image_size: int
    num_rows: int
    max_resized_pixels: int

    @classmethod
    def from_config(cls, config: ModelConfig, max_resized_pixels: int) -> Self:
        """Follow the image processor of a checkpoint.

        Raises:
            ModelFilesError: it does not give the pictures that the vision tower takes.
        """
        steps, vision = config.image_processor, config.sizes.vision
        _check_gives(steps, vision.image_size)
        return cls(steps, vision.image_size, config.sizes.rows_per_image, max_resized_pixels)

    def fit(self, picture: PillowImage.Image, param: str) -> Image:
        """Return an RGB picture as the tower takes it, with its digest.

        Raises:
            UnusableImageError: the picture is too thin.
        """
        picture = self._padded(picture, param)
        if self.steps.size is not None:
            size = resized(self.steps.size, picture.width, picture.height)
            self._check_size(picture, size, param)
            picture = picture.resize(size, resample=self.steps.resample)
        if self.steps.crop is not None:
            left = (picture.width - self.image_size) // 2
            top = (picture.height - self.image_size) // 2
            picture = picture.crop((left, top, left + self.image_size, top + self.image_size))
        pixels = picture.tobytes()
        digest = digest_pixels(pixels, self.image_size)
        return Image(pixels, self.image_size, digest, self.num_rows)

    def _padded(self, picture: PillowImage.Image, param: str) -> PillowImage.Image:
        """Return a picture in the middle of a square, where the checkpoint asks for one."""
        width, height = picture.size
        if self.steps.background is None or width == height:
            return picture
        side = max(width, height)
        self._check_size(picture, (side, side), param)
        square = PillowImage.new("RGB", (side, side), self.steps.background)
        square.paste(picture, ((side - width) // 2, (side - height) // 2))
        return square

    def _check_size(self, picture: PillowImage.Image, size: tuple[int, int], param: str) -> None:
        width, height = size
        if not 0 < width * height <= max(self.max_resized_pixels, self.image_size**2):
            raise UnusableImageError(
                f"the image is {picture.width} x {picture.height} pixels, which is too thin: "
                f"padded or resized as the model wants it, it would be {width} x {height}",
                param,
            )


def resized(size: Mapping[str, int], width: int, height: int) -> tuple[int, int]:
    """Return the width and height of a resized picture.

    Args:
        size: one of the forms in which transformers gives a size.
        width: of the picture.
        height: of the picture.
    """
    match size:
        case {"height": fixed_height, "width": fixed_width}:
            return fixed_width, fixed_height
        case {"max_height": max_height, "max_width": max_width}:
            scale = min(max_height / height, max_width / width)
            return int(width * scale), int(height * scale)
    short, long = min(width, height), max(width, height)
    new_short, new_long = _resized_edges(size, short, long)
    return (new_short, new_long) if width <= height else (new_long, new_short)


def _resized_edges(size: Mapping[str, int], short: int, long: int) -> tuple[int, int]:
    edge: float = size["shortest_edge"]
    longest = size.get("longest_edge")
    if longest is not None and long / short * edge > longest:
        edge = longest * short / long
    # Rounded up or down for the shorter side, and not rounded for the longer one.
    return round(edge), long if short == round(edge) else int(edge * long / short)


def digest_pixels(pixels: bytes, size: int, mode: str = "RGB") -> bytes:
    """Return the digest of a picture."""
    return digest_of(size.to_bytes(4, "big"), mode.encode(), pixels)


def _check_gives(steps: ImageProcessor, side: int) -> None:
    """Make sure that every picture leaves as the square that the tower takes."""
    if steps.crop is not None:
        name, given = "crop_size", steps.crop
    elif steps.size is None:
        raise ModelFilesError(
            "the image processor neither resizes nor crops (do_resize, do_center_crop), and the "
            f"vision tower takes pictures of {side} x {side}"
        )
    elif steps.background is not None and steps.size.keys() == {"shortest_edge"}:
        name, given = "size", (steps.size["shortest_edge"],) * 2
    elif "height" in steps.size:
        name, given = "size", (steps.size["height"], steps.size["width"])
    else:
        raise ModelFilesError(
            "the image processor gives pictures of any shape (do_center_crop is false), and the "
            f"vision tower takes {side} x {side}"
        )
    if given != (side, side):
        raise ModelFilesError(
            f"the image processor gives {given[0]} x {given[1]} pixels ({name}), and the vision "
            f"tower takes {side} x {side} (vision_config.image_size)"
        )
