"""What a checkpoint asks of pictures, videos or sounds, and each as the engine takes it."""

from dataclasses import dataclass
from typing import Self

from PIL import Image as PillowImage

from skipserve.digests import digest_of
from skipserve.engine.request import Image
from skipserve.errors import UnusableImageError
from skipserve.media.data_uri import NOUNS, EncodedImage
from skipserve.media.fitting import Fitting
from skipserve.media.kinds import MediaKind, Pictures, Sounds, Videos
from skipserve.model.config import ModelConfig, ModelFilesError
from skipserve.model.image_processor import ImageProcessor
from skipserve.model.sound_processor import SAMPLE_RATE, SoundProcessor
from skipserve_policies.sizes import Modality, VisionSizes


@dataclass(frozen=True)
class Preprocessor:
    """Makes media what one model takes.

    Attributes:
        kind: what is made of a file.
        num_rows: rows of the prompt that show a medium.
    """

    kind: MediaKind
    num_rows: int

    @classmethod
    def from_config(cls, config: ModelConfig, max_resized_pixels: int) -> Self:
        """Follow the processor of a checkpoint.

        Raises:
            ModelFilesError: it does not give what the vision tower takes.
        """
        steps, vision = config.processor, config.sizes.vision
        kind = (
            _sounds(steps, vision)
            if isinstance(steps, SoundProcessor)
            else _seen(steps, vision, max_resized_pixels)
        )
        return cls(kind, config.sizes.rows_per_image)

    @property
    def modality(self) -> Modality:
        """What the model takes."""
        return self.kind.modality

    def fit(self, picture: PillowImage.Image, param: str) -> Image:
        """Return an RGB picture as the tower takes it, with its digest.

        Raises:
            UnusableImageError: the picture is too thin, or the model takes none.
        """
        if not isinstance(self.kind, Pictures):
            raise UnusableImageError(
                f"the model takes {NOUNS[self.modality]}s, and this is a picture", param
            )
        return self.image(self.kind.fitting.fit(picture, param))

    def read(self, file: EncodedImage, max_pixels: int) -> Image:
        """Return what a file becomes, with its digest: of an operator's own, without a limit.

        Raises:
            UnusableImageError: it is broken, of another format, or has more pixels.
        """
        return self.image(self.kind.make(file, max_pixels, lambda *_: None).content)

    def image(self, content: bytes) -> Image:
        """Return what was made of a file before, with its digest."""
        match self.kind:
            case Pictures(fitting):
                digest = digest_pixels(content, fitting.image_size)
            case Videos(fitting):
                digest = digest_pixels(content, fitting.image_size, "RGB frames")
            case Sounds():
                digest = digest_pixels(content, self.kind.num_bands, "mel")
        return Image(content, digest, self.num_rows)


def digest_pixels(content: bytes, size: int, mode: str = "RGB") -> bytes:
    """Return the digest of a medium: of its size, what its numbers mean, and the numbers."""
    return digest_of(size.to_bytes(4, "big"), mode.encode(), content)


def _sounds(steps: SoundProcessor, vision: VisionSizes) -> Sounds:
    """Make sure that every sound leaves as the moments and bands that the encoder takes."""
    given = steps.num_frames, steps.num_bands
    if given != vision.input_shape:
        raise ModelFilesError(
            f"the feature extractor gives {given[0]} moments of {given[1]} bands (max_length, "
            f"num_mel_bins), and the encoder takes {vision.input_shape[0]} of "
            f"{vision.input_shape[1]} (vision_config)"
        )
    return Sounds(SAMPLE_RATE, *given)


def _seen(steps: ImageProcessor, vision: VisionSizes, max_resized_pixels: int) -> MediaKind:
    _check_gives(steps, vision.image_size)
    fitting = Fitting(
        image_size=vision.image_size,
        background=steps.background,
        size=None if steps.size is None else dict(steps.size),
        resample=steps.resample,
        crops=steps.crop is not None,
        max_resized_pixels=max_resized_pixels,
    )
    if vision.modality is Modality.VIDEO:
        return Videos(fitting, vision.num_frames)
    return Pictures(fitting)


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
