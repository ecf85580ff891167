"""Fits a picture to the vision tower: resize and centre crop as the checkpoint says.

The pixels equal those of transformers' CLIP image processor (its Pillow variant) before it rescales
and normalises, which here happens on the device.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from PIL import Image as PillowImage

from skipserve.engine.types import Image
from skipserve.errors import UnusableImageError
from skipserve.framing import digest_of
from skipserve.model.config import image_processor_config


class ImageFilesError(Exception):
    """An image processor configuration that is not supported."""


@dataclass(frozen=True)
class Preprocessor:
    """Resize, then centre crop.

    Attributes:
        image_size: side of the square that the vision tower takes.
        shortest_edge: what the shorter side is resized to, or None for a fixed size.
        fixed_size: (width, height) to resize to, or None for no resizing.
        resample: Pillow's filter.
        crops: whether to crop; else the resized picture must be the square itself.
        max_resized_pixels: refuses pictures so thin that resizing would blow them up.
    """

    image_size: int
    shortest_edge: int | None
    fixed_size: tuple[int, int] | None
    resample: PillowImage.Resampling
    crops: bool
    max_resized_pixels: int

    @classmethod
    def from_folder(cls, folder: Path, image_size: int, max_resized_pixels: int) -> Self:
        """Read the image processor's configuration of a checkpoint.

        Raises:
            ModelFilesError: its file is damaged.
            ImageFilesError: it asks for what is not supported, or does not give the tower's size.
        """
        config = image_processor_config(folder)
        size = _size_form(config.get("size", {"shortest_edge": image_size}))
        crop = config.get("crop_size", image_size)
        crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
        preprocessor = cls(
            image_size=image_size,
            shortest_edge=size.get("shortest_edge") if config.get("do_resize", True) else None,
            fixed_size=_fixed_size(size) if config.get("do_resize", True) else None,
            resample=PillowImage.Resampling(config.get("resample", 3)),
            crops=config.get("do_center_crop", True),
            max_resized_pixels=max_resized_pixels,
        )
        _check_supported(preprocessor, config, crop)
        return preprocessor

    def fit(self, picture: PillowImage.Image, param: str) -> Image:
        """Return an RGB picture as the tower takes it, with its digest.

        Raises:
            UnusableImageError: the picture is too thin.
        """
        width, height = self._resized(picture.width, picture.height)
        if width * height > max(self.max_resized_pixels, self.image_size**2):
            raise UnusableImageError(
                f"the image is {picture.width} x {picture.height} pixels, which is too thin", param
            )
        if (self.shortest_edge or self.fixed_size) is not None:
            picture = picture.resize((width, height), resample=self.resample)
        if self.crops:
            left, top = (width - self.image_size) // 2, (height - self.image_size) // 2
            picture = picture.crop((left, top, left + self.image_size, top + self.image_size))
        pixels = picture.tobytes()
        return Image(pixels, self.image_size, digest_pixels(pixels, self.image_size))

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        if self.fixed_size is not None:
            return self.fixed_size
        if self.shortest_edge is None:
            return width, height
        long = int(self.shortest_edge * max(width, height) / min(width, height))
        return (self.shortest_edge, long) if width <= height else (long, self.shortest_edge)


def digest_pixels(pixels: bytes, size: int, mode: str = "RGB") -> bytes:
    """Return the digest of a picture."""
    return digest_of(size.to_bytes(4, "big"), mode.encode(), pixels)


def _size_form(size: dict[str, int] | int) -> dict[str, int]:
    return {"shortest_edge": size} if isinstance(size, int) else size


def _fixed_size(size: dict[str, int]) -> tuple[int, int] | None:
    return (size["width"], size["height"]) if "height" in size else None


def _check_supported(
    preprocessor: Preprocessor, config: dict[str, Any], crop: dict[str, int]
) -> None:
    side = preprocessor.image_size
    given = (
        (crop.get("width"), crop.get("height")) if preprocessor.crops else preprocessor.fixed_size
    )
    if given != (side, side):
        raise ImageFilesError(
            f"the image processor gives {given} pixels and the vision tower takes ({side}, {side})"
        )
    if config.get("do_pad"):
        raise ImageFilesError("an image processor with do_pad is not supported")
