"""What a mapping module is taught: media, and what is asked and answered about each.

Knows nothing about encoders and language models; a source of lessons is a data set on disk.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from transformers import PreTrainedTokenizerBase

from skipserve_training.mapping.packing import PICTURE, Example


@dataclass(frozen=True)
class Sound:
    """Samples from -1 to 1, `[N]`, so many a second."""

    samples: NDArray[np.float32]
    rate: int


Media = Image.Image | list[Image.Image] | Sound  # a list holds a video's frames

IMAGE = "<image>"  # the token that stands for a medium's rows
QUESTION_FORM = "Question: {question} Answer:"
ANSWER_FORM = " {answer}"

CAPTION = "caption"  # the type of what answers no question

_KNOWN = 1 << 16  # exchanges whose ids are kept


@dataclass(frozen=True)
class Exchange:
    """A question and its answer; a caption answers no question."""

    question: str | None
    answer: str
    kind: str


def image_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id of the token that stands for a medium's rows."""
    found = tokenizer.convert_tokens_to_ids(IMAGE)
    assert isinstance(found, int)
    return found


@dataclass(frozen=True)
class Probe:
    """A held-out question with all that annotators answered; captions answer none."""

    question: str | None
    answers: tuple[str, ...]
    kind: str


class Part(StrEnum):
    """A part of a data set, by its media: none is in both."""

    TRAIN = "train"
    TEST = "test"


class LessonSource(Protocol):
    """A data set: `len(source)` media, numbered from 0."""

    @property
    def kinds(self) -> Sequence[str]:
        """Name the types of its exchanges."""
        ...

    @property
    def questions_a_step(self) -> float:
        """Return how many exchanges are drawn about a medium in a step, in the mean."""
        ...

    def __len__(self) -> int:
        """Return the number of media."""
        ...

    def media(self, index: int) -> Media:
        """Load one."""
        ...

    def exchanges(self, index: int, draw: random.Random) -> Sequence[Exchange]:
        """Draw what is asked about one in a step."""
        ...


class PromptForm:
    """Writes exchanges as the ids of prompts and answers, as the server writes a conversation.

    The projector's rows stand for `<image>`, behind what the tokenizer begins each text with.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, rows: int, kinds: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._image = image_id(tokenizer)
        self._picture = (PICTURE,) * rows
        self._kinds = {kind: index for index, kind in enumerate(kinds)}
        self._example = lru_cache(_KNOWN)(self._encode)

    def example(self, exchange: Exchange) -> Example:
        """Encode an exchange; those that come up often are known.

        Raises:
            ValueError: The tokenizer joins the end of the question to the answer, or the text
                speaks of `<image>` itself.
        """
        return self._example(exchange)

    def prompt(self, question: str | None) -> tuple[int, ...]:
        """Encode a question that is to be answered; None where a medium is told of."""
        return self._shown(self._ids(_asked(question)))

    def _encode(self, exchange: Exchange) -> Example:
        question, answer = _asked(exchange.question), exchange.answer
        if exchange.question is not None:
            answer = ANSWER_FORM.format(answer=exchange.answer)
        prompt = self._ids(question)
        whole = self._ids(question + answer)
        if whole[: len(prompt)] != prompt:
            raise ValueError(
                f"The tokenizer joins {question!r} to {answer!r}: the answer has no ids of its own."
            )
        end = (int(self._tokenizer.eos_token_id),)
        return Example(self._shown(prompt), whole[len(prompt) :] + end, self._kinds[exchange.kind])

    def _shown(self, prompt: tuple[int, ...]) -> tuple[int, ...]:
        """Put the projector's rows where the image's token is."""
        place = prompt.index(self._image)
        return prompt[:place] + self._picture + prompt[place + 1 :]

    def _ids(self, text: str) -> tuple[int, ...]:
        ids = tuple(self._tokenizer(IMAGE + text)["input_ids"])
        if ids.count(self._image) != 1:
            raise ValueError(
                f"The text {text!r} gives {ids.count(self._image) - 1} tokens {IMAGE} besides the "
                "picture's own: expected none."
            )
        return ids


def _asked(question: str | None) -> str:
    return "" if question is None else QUESTION_FORM.format(question=question)
