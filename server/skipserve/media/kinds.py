"""What is made of a file of a picture, a video or a sound. Runs where files are decoded."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from skipserve.errors import UnusableImageError
from skipserve.media.data_uri import EncodedImage
from skipserve.media.decode import decode_image, decode_video
from skipserve.media.fitting import Fitting
from skipserve_policies.sizes import Modality

# Hears how many pixels are held at a time and how many are decoded, before any is, and raises where
# that should not be.
BeforeLoad = Callable[[int, int], None]


@dataclass(frozen=True)
class Made:
    """What a file became.

    Attributes:
        content: as the encoder takes it: uint8 [S, S, 3], of a video [F, S, S, 3], of a sound
            float32 [T, M].
        num_decoded: pixels that were decoded, or samples.
        fit_seconds: time spent on fitting them.
    """

    content: bytes
    num_decoded: int
    fit_seconds: float


class Pictures(msgspec.Struct, frozen=True, tag="pictures"):
    """Makes a picture of each file.

    Attributes:
        fitting: how it comes to the encoder's size.
    """

    fitting: Fitting

    @property
    def modality(self) -> Modality:
        """What is made."""
        return Modality.IMAGE

    @property
    def num_bytes(self) -> int:
        """What it takes."""
        return 3 * self.fitting.image_size**2

    def warm_up(self) -> None:
        """Load nothing more."""

    def make(self, file: EncodedImage, max_pixels: int, before_load: BeforeLoad) -> Made:
        """Decode and fit a file.

        Raises:
            UnusableImageError: it is broken, of another format, or over a limit.
        """

        def know_size(width: int, height: int) -> None:
            before_load(self.fitting.num_pixels(width, height, file.param), width * height)

        picture = decode_image(file, max_pixels, know_size)
        num_decoded = picture.width * picture.height
        begun = time.perf_counter()
        pixels = self.fitting.fit(picture, file.param)
        return Made(pixels, num_decoded, time.perf_counter() - begun)


class Videos(msgspec.Struct, frozen=True, tag="videos"):
    """Makes some frames of each file.

    Attributes:
        fitting: how each comes to the encoder's size.
        num_frames: how many there are.
    """

    fitting: Fitting
    num_frames: int

    @property
    def modality(self) -> Modality:
        """What is made."""
        return Modality.VIDEO

    @property
    def num_bytes(self) -> int:
        """What it takes."""
        return 3 * self.num_frames * self.fitting.image_size**2

    def warm_up(self) -> None:
        """Load nothing more."""

    def make(self, file: EncodedImage, max_pixels: int, before_load: BeforeLoad) -> Made:
        """Decode and fit the frames that are shown, one after the other.

        Raises:
            UnusableImageError: it is broken, of another format, has too few frames, or is over a
                limit.
        """
        num_decoded = 0

        def know_size(width: int, height: int, num_frames: int) -> None:
            nonlocal num_decoded
            num_decoded = width * height * num_frames
            before_load(self.fitting.num_pixels(width, height, file.param), num_decoded)

        pixels, fit_seconds = [], 0.0
        for picture in decode_video(file, self.num_frames, max_pixels, know_size):
            begun = time.perf_counter()
            pixels.append(self.fitting.fit(picture, file.param))
            fit_seconds += time.perf_counter() - begun
        return Made(b"".join(pixels), num_decoded, fit_seconds)


class Sounds(msgspec.Struct, frozen=True, tag="sounds"):
    """Makes log energies of each file.

    Attributes:
        rate: samples a second that a sound must have.
        num_frames: moments of it.
        num_bands: mel bands of each.
    """

    rate: int
    num_frames: int
    num_bands: int

    @property
    def modality(self) -> Modality:
        """What is made."""
        return Modality.AUDIO

    @property
    def num_bytes(self) -> int:
        """What it takes."""
        return 4 * self.num_frames * self.num_bands

    def warm_up(self) -> None:
        """Load numpy, and have it take the memory that it keeps, before there is a limit."""
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        import numpy as np  # noqa: PLC0415

        from skipserve.media.hearing import Hearing  # noqa: PLC0415

        hearing = Hearing(self.rate, self.num_frames, self.num_bands)
        hearing.energies(np.zeros(hearing.max_samples, np.float32))

    def make(self, file: EncodedImage, max_pixels: int, before_load: BeforeLoad) -> Made:
        """Decode a WAV file. How long it is, is known and limited before; no pixels are.

        Raises:
            UnusableImageError: it is broken, of another format, or not as the encoder hears.
        """
        del before_load
        from skipserve.media.hearing import Hearing  # noqa: PLC0415
        from skipserve.media.wav import open_wav  # noqa: PLC0415

        hearing = Hearing(self.rate, self.num_frames, self.num_bands)
        sound = open_wav(file.content)
        hearing.check(sound)
        if sound.num_samples > max_pixels:
            raise UnusableImageError("the request's images and sounds are too large together")
        samples = sound.samples()
        begun = time.perf_counter()
        content = hearing.energies(samples).tobytes()
        return Made(content, sound.num_samples, time.perf_counter() - begun)


MediaKind = Pictures | Videos | Sounds
