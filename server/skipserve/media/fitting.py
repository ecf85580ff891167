"""Fits a picture to the vision tower: pad, resize and centre crop. Knows no model and no file.

The pixels equal those of transformers' image processors for CLIP and LLaVA (their Pillow variants)
before they rescale and normalise, which here happens on the device.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from PIL import Image

from skipserve.errors import UnusableImageError


@dataclass(frozen=True)
class Fitting:
    """Pad to a square, resize, then centre crop.

    Attributes:
        image_size: side of the square that the vision tower takes.
        background: the colour with which to pad to a square, or None for no padding.
        size: what to resize to in one of transformers' forms, or None for no resizing.
        resample: Pillow's number of the filter.
        crops: whether to crop to the tower's square.
        max_resized_pixels: refuses pictures so thin that padding or resizing would blow them up.
    """

    image_size: int
    background: tuple[int, int, int] | None
    size: dict[str, int] | None
    resample: int
    crops: bool
    max_resized_pixels: int

    def fit(self, picture: Image.Image, param: str) -> bytes:
        """Return the pixels of an RGB picture as the tower takes it: uint8, [S, S, 3].

        Raises:
            UnusableImageError: the picture is too thin.
        """
        self._check(*picture.size, param)
        picture = self._padded(picture)
        if self.size is not None:
            size = resized(self.size, picture.width, picture.height)
            picture = picture.resize(size, resample=self.resample)
        if self.crops:
            left = (picture.width - self.image_size) // 2
            top = (picture.height - self.image_size) // 2
            picture = picture.crop((left, top, left + self.image_size, top + self.image_size))
        return picture.tobytes()

    def num_pixels(self, width: int, height: int, param: str) -> int:
        """Return the most pixels that a picture has on its way; it may still be turned.

        Raises:
            UnusableImageError: it is so thin that it has too many.
        """
        sizes = (*self._stages(width, height), *self._stages(height, width))
        widest = max(sizes, key=lambda size: size[0] * size[1])
        self._check_stage(width, height, widest, param)
        return widest[0] * widest[1]

    def _check(self, width: int, height: int, param: str) -> None:
        for stage in self._stages(width, height):
            self._check_stage(width, height, stage, param)
            if not all(stage):
                raise self._too_thin(width, height, stage, param)

    def _check_stage(self, width: int, height: int, stage: tuple[int, int], param: str) -> None:
        most = max(self.max_resized_pixels, self.image_size**2, width * height)
        if stage[0] * stage[1] > most:
            raise self._too_thin(width, height, stage, param)

    def _too_thin(
        self, width: int, height: int, stage: tuple[int, int], param: str
    ) -> UnusableImageError:
        return UnusableImageError(
            f"the image is {width} x {height} pixels, which is too thin: padded or resized as the "
            f"model wants it, it would be {stage[0]} x {stage[1]}",
            param,
        )

    def _stages(self, width: int, height: int) -> Iterator[tuple[int, int]]:
        """Yield the sizes that a picture takes on, one after the other."""
        yield width, height
        if self.background is not None:
            width = height = max(width, height)
            yield width, height
        if self.size is not None:
            new_width, new_height = resized(self.size, width, height)
            # Pillow makes it wide or narrow first, then high or low.
            if new_width * new_height:
                yield new_width, height
            yield new_width, new_height

    def _padded(self, picture: Image.Image) -> Image.Image:
        """Return a picture in the middle of a square, where the checkpoint asks for one."""
        width, height = picture.size
        if self.background is None or width == height:
            return picture
        side = max(width, height)
        square = Image.new("RGB", (side, side), self.background)
        square.paste(picture, ((side - width) // 2, (side - height) // 2))
        return square


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
