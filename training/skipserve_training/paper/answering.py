"""Lets a model answer freely and greedily, many questions about a picture at once, and judges."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from skipserve_client.evaluate.scoring import normalise
from skipserve_training.mapping.packing import Example, pack
from skipserve_training.mapping.training import Course, embed

MAX_TOKENS = 16


@dataclass(frozen=True)
class Verdict:
    """How right an answer is.

    Attributes:
        exact: its tokens are the right answer's, and so is its end.
        accepted: it ends, and is right but for case, spaces and a final stop.
        begun: it begins with the right answer's tokens, whether it ends or not.
    """

    exact: bool
    accepted: bool
    begun: bool


@dataclass(frozen=True)
class Question:
    """A question about one of the pictures, by its row of the course's features."""

    picture: int
    example: Example
    answer: str


@dataclass(frozen=True)
class Judge:
    """A model that answers, and what tells whether it does so rightly."""

    course: Course
    projector: nn.Module
    tokenizer: PreTrainedTokenizerBase

    @torch.inference_mode()
    def judge(self, questions: Sequence[Question]) -> list[Verdict]:
        """Answer the questions, each as if it were alone; those about a picture follow each other.

        All are asked at once. An answer is followed only as long as it can be accepted.
        """
        right = [question.example.answer for question in questions]
        predicted = self._predict(questions, [answer[:-1] for answer in right])
        said = [_follow(*each) for each in zip(right, predicted, strict=True)]
        while waiting := [
            index for index in range(len(said)) if self._goes_on(said[index], questions[index])
        ]:
            more = self._predict(
                [questions[index] for index in waiting], [said[index] for index in waiting]
            )
            for index, tokens in zip(waiting, more, strict=True):
                said[index] += tokens[-1:]
        return [self._verdict(*each) for each in zip(questions, said, strict=True)]

    def _predict(
        self, questions: Sequence[Question], said: Sequence[tuple[int, ...]]
    ) -> Iterator[tuple[int, ...]]:
        """Yield for each question the token after its prompt, and after each token said so far."""
        trees: dict[int, list[Example]] = {}
        for question, tokens in zip(questions, said, strict=True):
            answer = (*tokens, self._end)  # whatever: the last token gets no row
            trees.setdefault(question.picture, []).append(replace(question.example, answer=answer))
        course = self.course
        device = next(self.projector.parameters()).device
        features, batch = course.features.take(list(trees)), pack([*trees.values()]).to(device)
        rows = embed(course.language, self.projector, features.to(device), batch)
        hidden = course.language.hidden(rows, batch).flatten(0, 1)[batch.rows]
        predicted = iter(course.language.logits(hidden).argmax(-1).tolist())
        for so_far in said:
            yield tuple(next(predicted) for _ in range(len(so_far) + 1))

    def _goes_on(self, said: tuple[int, ...], question: Question) -> bool:
        is_under_way = said[-1] != self._end and len(said) < MAX_TOKENS
        return is_under_way and can_be_accepted(self._text(said), question.answer)

    def _verdict(self, question: Question, said: tuple[int, ...]) -> Verdict:
        answer = question.example.answer
        return Verdict(
            exact=said == answer,
            accepted=said[-1] == self._end
            and normalise(self._text(said)) == normalise(question.answer),
            begun=said[: len(answer) - 1] == answer[:-1],
        )

    def _text(self, tokens: tuple[int, ...]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    @property
    def _end(self) -> int:
        return int(self.tokenizer.eos_token_id)


def can_be_accepted(said: str, answer: str) -> bool:
    """Say whether more tokens could make an accepted answer of what was said."""
    words, right = " ".join(said.lower().split()), normalise(answer)
    return f"{right}.".startswith(words) or words == f"{right} ."


def _follow(right: tuple[int, ...], predicted: tuple[int, ...]) -> tuple[int, ...]:
    """Return what was said up to the first token that departs from the right ones, with it."""
    for length, (expected, token) in enumerate(zip(right, predicted, strict=True), start=1):
        if token != expected:
            return predicted[:length]
    return predicted
