"""The fields of a feature extractor's file, against transformers' own defaults."""

from typing import Any

import pytest
from transformers import ASTFeatureExtractor

from skipserve.model.sound_processor import SoundProcessor

pytestmark = [pytest.mark.fast, pytest.mark.filterwarnings("ignore:At least one mel filter")]


def test_a_silent_file_means_what_it_means_to_transformers() -> None:
    oracle, read = ASTFeatureExtractor(), SoundProcessor.from_fields({})
    assert (read.num_frames, read.num_bands) == (oracle.max_length, oracle.num_mel_bins)
    assert (read.mean, read.divisor) == (oracle.mean, 2 * oracle.std)


def test_what_transformers_writes_is_all_read() -> None:
    written = ASTFeatureExtractor(max_length=32, num_mel_bins=16, mean=1.0, std=2.0).to_dict()
    assert SoundProcessor.from_fields(written) == SoundProcessor(32, 16, 1.0, 4.0)


def test_without_normalisation_nothing_changes() -> None:
    read = SoundProcessor.from_fields({"do_normalize": False})
    assert (read.mean, read.divisor) == (0.0, 1.0)


def test_unknown_fields_are_named() -> None:
    assert SoundProcessor.from_fields({"dither": 1.0, "feature_size": 1}).unread == ("dither",)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"sampling_rate": 8000}, "sampling_rate is 8000; supported: 16000"),
        ({"feature_extractor_type": "WhisperFeatureExtractor"}, "supported: ASTFeatureExtractor"),
        ({"max_length": 0}, "max_length is 0; it must be a whole number, 1 or more"),
        ({"num_mel_bins": None}, "num_mel_bins is None; it must be"),
        ({"std": 0.0}, "std is 0.0; it must be a number above 0"),
        ({"mean": "x"}, "mean is 'x'; it must be a number"),
        ({"do_normalize": 1}, "do_normalize is 1; it must be true or false"),
    ],
)
def test_what_cannot_be_followed_is_named(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        SoundProcessor.from_fields(fields)
