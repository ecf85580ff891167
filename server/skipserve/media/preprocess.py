"""What a checkpoint asks of pictures, and the picture as the engine takes it."""

from dataclasses import dataclass
from typing import Self

from PIL import Image as PillowImage

from skipserve.digests import digest_of
from skipserve.engine.request import Image
from skipserve.media.fitting import Fitting
from skipserve.model.config import ModelConfig, ModelFilesError
from skipserve.model.image_processor import ImageProcessor


@dataclass(frozen=True)
class Preprocessor:
    """Makes pictures what one model takes.

    Attributes:
        fitting: how they come to the size of the vision tower.
        num_rows: rows of the prompt that show a picture.
    """

    fitting: Fitting
    num_rows: int

    @classmethod
    def from_config(cls, config: ModelConfig, max_resized_pixels: int) -> Self:
        """Follow the image processor of a checkpoint.

        Raises:
            ModelFilesError: it does not give the pictures that the vision tower takes.
        """
        steps, side = config.image_processor, config.sizes.vision.image_size
        _check_gives(steps, side)
        fitting = Fitting(
            image_size=side,
            background=steps.background,
            size=None if steps.size is None else dict(steps.size),
            resample=steps.resample,
            crops=steps.crop is not None,
            max_resized_pixels=max_resized_pixels,
        )
        return cls(fitting, config.sizes.rows_per_image)

    def fit(self, picture: PillowImage.Image, param: str) -> Image:
        """Return an RGB picture as the tower takes it, with its digest.

        Raises:
            UnusableImageError: the picture is too thin.
        """
        return self.image(self.fitting.fit(picture, param))

    def image(self, pixels: bytes) -> Image:
        """Return a picture that was fitted before, with its digest."""
        size = self.fitting.image_size
        return Image(pixels, size, digest_pixels(pixels, size), self.num_rows)


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
