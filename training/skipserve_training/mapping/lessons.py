"""What a mapping module is taught: media, and what is asked and answered about each.

Knows nothing about encoders and language models; a source of lessons is a data set on disk.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
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


class LessonSource(Protocol):
    """A data set: `len(source)` media, numbered from 0."""

    @property
    def kinds(self) -> Sequence[str]:
        """Name the types of its exchanges."""
        ...

    @property
    def questions_a_step(self) -> int:
        """Return how many exchanges are drawn about a medium, where it has so many."""
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
    """Writes exchanges as the ids of prompts and answers: the projector's rows, then text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, rows: int, kinds: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._picture = (PICTURE,) * rows
        self._kinds = {kind: index for index, kind in enumerate(kinds)}
        self._example = lru_cache(_KNOWN)(self._encode)

    def example(self, exchange: Exchange) -> Example:
        """Encode an exchange; those that come up often are known.

        Raises:
            ValueError: The tokenizer joins the end of the question to the answer.
        """
        return self._example(exchange)

    def _encode(self, exchange: Exchange) -> Example:
        question, answer = "", exchange.answer
        if exchange.question is not None:
            question = QUESTION_FORM.format(question=exchange.question)
            answer = ANSWER_FORM.format(answer=exchange.answer)
        prompt = self._ids(question)
        whole = self._ids(question + answer)
        if whole[: len(prompt)] != prompt:
            raise ValueError(
                f"The tokenizer joins {question!r} to {answer!r}: the answer has no ids of its own."
            )
        end = (int(self._tokenizer.eos_token_id),)
        return Example(
            self._picture + prompt, whole[len(prompt) :] + end, self._kinds[exchange.kind]
        )

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text)["input_ids"])
