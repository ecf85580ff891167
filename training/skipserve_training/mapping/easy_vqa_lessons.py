"""Lessons from easy-VQA: questions drawn by type, so that neither "yes" nor "no" is a habit."""

import random
from collections.abc import Mapping, Sequence
from functools import cached_property

from PIL import Image

from skipserve_client.evaluate.easy_vqa import (
    COLOURS,
    NO,
    SHAPES,
    YES,
    EasyQuestion,
    EasySplit,
    EasyType,
)
from skipserve_training.mapping.lessons import CAPTION, Exchange

# How many of each type a picture is asked in a step.
SHARES: dict[EasyType, int] = {
    EasyType.COLOUR: 1,
    EasyType.SHAPE: 1,
    EasyType.POSITIVE_PRESENT: 2,
    EasyType.POSITIVE_ABSENT: 2,
    EasyType.NEGATED_PRESENT: 2,
    EasyType.NEGATED_ABSENT: 2,
}


class EasyLessons:
    """The pictures whose colour and shape are known from their own questions.

    Every text that the split's questions have is asked of every picture which it fits: a
    picture's own questions name what is there too rarely to learn "yes" and "not" from.
    """

    kinds: Sequence[str] = tuple(EasyType)

    def __init__(self, split: EasySplit, shares: Mapping[EasyType, int] | None = None) -> None:
        self.split = split
        self._shares = shares or SHARES
        self._attributes = _whole(split)
        self.images = sorted(self._attributes)

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.images)

    def media(self, index: int) -> Image.Image:
        """Load a picture."""
        return self.split.load(self.images[index])

    def exchanges(self, index: int, draw: random.Random) -> list[Exchange]:
        """Draw questions of each type."""
        fitting = self._fitting[self._attributes[self.images[index]]]
        return [
            exchange
            for kind, count in self._shares.items()
            for exchange in draw.sample(fitting[kind], min(count, len(fitting[kind])))
        ]

    @property
    def questions_a_step(self) -> int:
        """Return how many questions are drawn about a picture."""
        return sum(self._shares.values())

    @cached_property
    def _fitting(self) -> dict[tuple[str, str], dict[EasyType, list[Exchange]]]:
        """Answer each text for each kind of picture."""
        texts = sorted({question.text for question in self.split.questions})
        return {
            (colour, shape): _answered(texts, colour, shape)
            for colour in COLOURS
            for shape in SHAPES
        }


class EasyCaptions:
    """The same pictures, each told in a sentence; nothing is asked."""

    kinds: Sequence[str] = (CAPTION,)
    questions_a_step = 1

    def __init__(self, split: EasySplit) -> None:
        self._split = split
        self._attributes = _whole(split)
        self._images = sorted(self._attributes)

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self._images)

    def media(self, index: int) -> Image.Image:
        """Load a picture."""
        return self._split.load(self._images[index])

    def exchanges(self, index: int, draw: random.Random) -> list[Exchange]:
        """Return the sentence."""
        del draw
        colour, shape = self._attributes[self._images[index]]
        return [Exchange(None, f"The image shows a {colour} {shape}.", CAPTION)]


def _whole(split: EasySplit) -> dict[int, tuple[str, str]]:
    """Return colour and shape of the pictures whose questions tell both."""
    return {
        image: (one.colour, one.shape)
        for image, one in split.attributes().items()
        if one.colour is not None and one.shape is not None
    }


def _answered(texts: list[str], colour: str, shape: str) -> dict[EasyType, list[Exchange]]:
    by_type: dict[EasyType, list[Exchange]] = {kind: [] for kind in EasyType}
    for text in texts:
        answer = answer_for(text, colour, shape)
        if answer is not None:
            kind = EasyQuestion(text, answer, 0).type
            by_type[kind].append(Exchange(text, answer, kind))
    return by_type


def answer_for(text: str, colour: str, shape: str) -> str | None:
    """Answer a question about a picture; None where it takes what is absent for there."""
    question = EasyQuestion(text, YES, 0)
    is_there = question.named in (colour, shape)
    if not text.startswith("what"):
        return YES if is_there != question.is_negated else NO
    if question.named is not None and not is_there:
        return None
    return colour if "color" in text else shape
