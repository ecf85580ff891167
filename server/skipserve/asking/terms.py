"""On what terms questions are taken: limits, and what may be asked for."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from skipserve.asking.auto.terms import AutoTerms
from skipserve.asking.policy_file import PolicyFile
from skipserve.media.decode import PixelLimits


@dataclass(frozen=True)
class ImageLimits:
    """How much image a question may bring.

    Attributes:
        num_images: images of one question.
        image_bytes: bytes of one image file.
        pixels: pixels of one image and of one question.
    """

    pixels: PixelLimits
    num_images: int = sys.maxsize
    image_bytes: int = sys.maxsize


@dataclass(frozen=True)
class TimeLimits:
    """How long a request may take in the engine.

    Attributes:
        queue_seconds: its wait for the first step; None for ever.
        request_seconds: all of it, and a question may ask for less; None for ever.
    """

    queue_seconds: float | None = None
    request_seconds: float | None = None

    def deadline(self, asked_seconds: float | None) -> float | None:
        """Return how long a request may take in all."""
        limits = (self.request_seconds, asked_seconds)
        return min((it for it in limits if it is not None), default=None)


@dataclass(frozen=True)
class Terms:
    """On what terms questions are taken, as whoever runs the model has set them.

    Attributes:
        listing: where whoever asks finds the names of all policies.
        images: how much image a question may bring.
        times: how long it may take.
        policies: a YAML file that adds skip policies.
        added_policies: the file of those that were added at run time; None where none can be.
        keeps_misfits: whether a policy of those files may name layers that the model lacks.
        default_policy: runs where a question names none; None for the model's own default.
        auto: how policies are chosen for questions that leave it to the server.
        takes_inline: whether a question may spell a policy out.
        ignores_unknown: whether fields that are not known are taken, and told to be ignored.
    """

    listing: str
    images: ImageLimits
    times: TimeLimits = TimeLimits()
    policies: Path | None = None
    added_policies: PolicyFile | None = None
    keeps_misfits: bool = False
    default_policy: str | None = None
    auto: AutoTerms = field(default_factory=AutoTerms)
    takes_inline: bool = True
    ignores_unknown: bool = False
