"""Log energies of sounds against transformers' feature extractor, and which sounds are heard."""

import warnings

import numpy as np
import pytest
from media_models import noise, wav_file
from transformers import ASTFeatureExtractor

from skipserve.errors import UnusableImageError
from skipserve.media.hearing import Hearing
from skipserve.media.wav import open_wav

pytestmark = pytest.mark.fast

HEARING = Hearing(rate=16_000, num_frames=32, num_bands=16)


@pytest.mark.parametrize(("num_frames", "num_bands"), [(32, 16), (1024, 128)])
@pytest.mark.parametrize("share", [0.0, 0.4, 0.999, 1.0])
def test_energies_are_those_of_transformers(num_frames: int, num_bands: int, share: float) -> None:
    hearing = Hearing(16_000, num_frames, num_bands)
    num_samples = max(400, int(share * hearing.max_samples))
    samples = (0.3 * noise(num_samples) + 0.2).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # bands so narrow that some have no frequency
        extractor = ASTFeatureExtractor(
            max_length=num_frames, num_mel_bins=num_bands, do_normalize=False
        )
    said = extractor(samples, sampling_rate=16_000, return_tensors="np")["input_values"][0]
    heard = hearing.energies(samples)
    assert heard.dtype == np.float32
    assert heard.shape == (num_frames, num_bands)
    np.testing.assert_allclose(heard, said, atol=1e-5)


def test_silence_is_quiet() -> None:
    heard = HEARING.energies(np.zeros(HEARING.max_samples, np.float32))
    np.testing.assert_allclose(heard, np.log(1.192092955078125e-07), atol=1e-6)


@pytest.mark.parametrize(
    ("num_samples", "rate", "told"),
    [
        (4000, 8_000, "8000 samples a second, and the model hears 16000: resample it"),
        (4000, 44_100, "resample it"),
        (0, 16_000, "has 0 samples; it must have at least 400"),
        (399, 16_000, "has 399 samples"),
        (32 * 160 + 400, 16_000, r"lasts 0\.34 s, and the model hears at most 0\.34 s"),
    ],
)
def test_what_is_not_heard_is_told(num_samples: int, rate: int, told: str) -> None:
    sound = open_wav(wav_file(noise(num_samples), rate))
    with pytest.raises(UnusableImageError, match=told):
        HEARING.check(sound)


def test_the_longest_sound_fills_all_moments() -> None:
    longest = open_wav(wav_file(noise(HEARING.max_samples)))
    HEARING.check(longest)
    assert (HEARING.energies(longest.samples())[-1] != 0).all()
