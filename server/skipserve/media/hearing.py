"""Samples of a sound to log energies of mel bands, moment by moment. Knows no file and no model.

They equal those of transformers' feature extractor for AST before it normalises, which here happens
on the device.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from skipserve.errors import UnusableImageError
from skipserve.media.wav import WavFile

# A moment's samples, those to the next, and what is transformed of it: filled up with zeros.
_WINDOW, _HOP, _TRANSFORMED = 400, 160, 512
_PREEMPHASIS = 0.97
_LOWEST_HERTZ = 20
_FLOOR = 1.192092955078125e-07


@dataclass(frozen=True)
class Hearing:
    """Cuts a sound into moments, and each into bands.

    Attributes:
        rate: samples a second that a sound must have.
        num_frames: moments; those behind a shorter sound's end are 0.
        num_bands: mel bands.
    """

    rate: int
    num_frames: int
    num_bands: int

    @property
    def max_samples(self) -> int:
        """As many as do not begin a moment more."""
        return _WINDOW + self.num_frames * _HOP - 1

    def check(self, sound: WavFile) -> None:
        """Refuse what the encoder does not hear, before it is decoded.

        Raises:
            UnusableImageError: the sound has another rate, or is too short or too long.
        """
        if sound.rate != self.rate:
            raise UnusableImageError(
                f"the sound has {sound.rate} samples a second, and the model hears {self.rate}: "
                "resample it"
            )
        if sound.num_samples < _WINDOW:
            raise UnusableImageError(
                f"the sound has {sound.num_samples} samples; it must have at least {_WINDOW}"
            )
        if sound.num_samples > self.max_samples:
            raise UnusableImageError(
                f"the sound lasts {sound.num_samples / self.rate:.2f} s, and the model hears at "
                f"most {self.max_samples / self.rate:.2f} s: send a part of it"
            )

    def energies(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the log energies of samples [N], float32 [T, M]."""
        moments = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)[::_HOP]
        waves = moments - moments.mean(axis=1, keepdims=True, dtype=np.float64)
        waves[:, 1:] -= _PREEMPHASIS * waves[:, :-1]
        waves[:, 0] *= 1 - _PREEMPHASIS
        power = np.abs(np.fft.rfft(waves * np.hanning(_WINDOW), _TRANSFORMED)) ** 2
        heard = np.zeros((self.num_frames, self.num_bands), dtype=np.float32)
        heard[: len(power)] = np.log(np.maximum(power @ self._filters, _FLOOR))
        return heard

    @cached_property
    def _filters(self) -> NDArray[np.float64]:
        """Triangles on the mel scale, one a band, [frequencies, bands]."""
        mels = np.linspace(_mel(_LOWEST_HERTZ), _mel(self.rate // 2), self.num_bands + 2)
        step = mels[1] - mels[0]
        frequencies = _mel(np.arange(_TRANSFORMED // 2 + 1) * self.rate / _TRANSFORMED)
        away = np.abs(frequencies[:, None] - mels[None, 1:-1]) / step
        return np.asarray(np.maximum(1 - away, 0.0))


def _mel(hertz: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Return the pitch of frequencies, as Kaldi counts it."""
    return np.asarray(1127 * np.log1p(np.asarray(hertz) / 700))
