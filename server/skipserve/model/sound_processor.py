"""What the feature extractor of a checkpoint does to sounds, field by field, as in transformers 5.

Knows no sound and no file: `media` follows what is read here, the encoder the numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from skipserve.model.fields import read_as

_KIND = "ASTFeatureExtractor"
# Moments are of 25 ms, every 10 ms, which the extractor counts in samples of this rate.
SAMPLE_RATE = 16_000

_Length = Annotated[PositiveInt, Field(description="a whole number, 1 or more")]
_Number = Annotated[float, Field(allow_inf_nan=False, description="a number")]


class _Fields(BaseModel):
    """A preprocessor file; what is left out is transformers' default."""

    model_config = ConfigDict(extra="ignore", strict=True)

    feature_extractor_type: Annotated[str, Field(description="a text")] = _KIND
    sampling_rate: _Length = SAMPLE_RATE
    num_mel_bins: _Length = 128
    max_length: _Length = 1024
    do_normalize: Annotated[bool, Field(description="true or false")] = True
    mean: _Number = -4.2677393
    std: Annotated[float, Field(gt=0, allow_inf_nan=False, description="a number above 0")] = (
        4.5689974
    )


# What changes nothing here: there is one length, one channel, and silence is silence.
_WITHOUT_EFFECT = {"feature_size", "padding_value", "padding_side", "return_attention_mask"}


@dataclass(frozen=True)
class SoundProcessor:
    """Log energies of mel bands, cut or filled up to one length, then normalised.

    Attributes:
        num_frames: moments of a sound.
        num_bands: mel bands of each.
        mean: is subtracted from each.
        divisor: what it is then divided by.
        unread: names of fields that the extractor does not have.
    """

    num_frames: int
    num_bands: int
    mean: float
    divisor: float
    unread: tuple[str, ...] = ()

    @classmethod
    def from_fields(cls, given: Mapping[str, Any]) -> Self:
        """Read the fields of a feature extractor's file.

        Raises:
            ValueError: one cannot be followed; names it.
        """
        fields = read_as(_Fields, given)
        if fields.feature_extractor_type != _KIND:
            raise ValueError(
                f"feature_extractor_type is {fields.feature_extractor_type!r}; supported: {_KIND}"
            )
        if fields.sampling_rate != SAMPLE_RATE:
            raise ValueError(f"sampling_rate is {fields.sampling_rate}; supported: {SAMPLE_RATE}")
        return cls(
            num_frames=fields.max_length,
            num_bands=fields.num_mel_bins,
            mean=fields.mean if fields.do_normalize else 0.0,
            divisor=2 * fields.std if fields.do_normalize else 1.0,
            unread=tuple(sorted(given.keys() - _Fields.model_fields.keys() - _WITHOUT_EFFECT)),
        )
