"""The questions of an evaluation, be they of the demo's list, of a data set or of a file."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from skipserve_client.evaluate.dataset import demo_examples
from skipserve_client.evaluate.scenes import Split
from skipserve_client.messages import ImageSource, Message, question_messages


@dataclass(frozen=True)
class Sample:
    """A picture, a question about it and the answers that are right.

    Attributes:
        index: its place in the data, from 0.
        answers: at least one; any of them is right.
        name: what messages call it, such as "questions.jsonl, line 7".
        id: what its owner calls it.
        part: which part of its type it belongs to, where a type has parts.
        blind: what a model would answer that sees the question alone, where that is known.
        metric: how the answer is scored, a name of `METRICS`.
        group: what it belongs together with, such as the other questions on its picture.
        choices: the texts of the options A, B, ..., where the question names some.
    """

    index: int
    image: ImageSource
    question: str
    answers: tuple[str, ...]
    type: str
    name: str
    id: str | None = None
    part: str | None = None
    blind: str | None = None
    metric: str = "exact"
    group: str | None = None
    choices: tuple[str, ...] = ()

    def messages(self) -> list[Message]:
        """Return the chat that asks it; reads the picture.

        Raises:
            PictureError: the picture is gone.
        """
        return question_messages(self.image, self.question)

    def digest(self, messages: Sequence[Message]) -> str:
        """Return a digest of what is asked, `messages`, and of what counts as right."""
        parts: list[object] = [messages, self.answers, self.type]
        if self.metric != "exact":
            parts += [self.metric, self.group, self.choices]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Questions:
    """What is asked.

    Attributes:
        name: what results call it.
        samples: the questions, in their order.
    """

    name: str
    samples: Sequence[Sample]


def demo_samples(count: int) -> tuple[Sample, ...]:
    """Return the first questions of the demo's held-out list."""
    return tuple(
        Sample(
            index=index,
            image=example.image,
            question=example.question,
            answers=(example.answer,),
            type=example.type,
            name=f"demo, question {index + 1}",
        )
        for index, example in enumerate(demo_examples(Split.HELD_OUT, count))
    )
