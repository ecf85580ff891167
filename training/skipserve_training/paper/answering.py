"""Lets a model answer freely, many questions about a picture at once, and judges."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedTokenizerBase

from skipserve_client.evaluate.metrics.item import Item
from skipserve_client.evaluate.metrics.means import VQA
from skipserve_client.evaluate.scoring import normalise
from skipserve_training.mapping.packing import Example
from skipserve_training.mapping.speaking import GREEDY, Speaker, Tokens, Turn
from skipserve_training.mapping.training import Course

MAX_TOKENS = 16


@dataclass(frozen=True)
class Verdict:
    """How right an answer is.

    Attributes:
        exact: its tokens are those of the expected answer, and so is its end.
        accepted: from 0 to 1. Of one right answer or several: it ends, and is one of them but for
            case, spaces and a final stop. By votes: it ends, and so many annotators agree.
        begun: it begins with the expected answer's tokens, whether it ends or not.
    """

    exact: bool
    accepted: float
    begun: bool


@dataclass(frozen=True)
class Question:
    """A question about one of the pictures.

    Attributes:
        picture: its row of the course's features.
        example: with the answer that is expected.
        answers: those that are right, or of all annotators where they vote.
        is_voted: whether they do.
    """

    picture: int
    example: Example
    answers: Sequence[str]
    is_voted: bool = False

    def grade(self, said: str) -> float:
        """Tell from 0 to 1 how right a whole answer is."""
        if self.is_voted:
            return VQA.worth(Item(type="", expected=tuple(self.answers), given=said))
        return normalise(said) in map(normalise, self.answers)

    def can_be_accepted(self, said: str) -> bool:
        """Say whether more tokens could make a right answer of what was said."""
        return self.is_voted or any(can_be_accepted(said, answer) for answer in self.answers)


@dataclass(frozen=True)
class Judge:
    """A model that answers, and what tells whether it does so rightly.

    Attributes:
        num_beams: of the search for an answer; 1 is greedy.
        limit: tokens of an answer.
        is_hasty: whether a greedy answer is followed only as long as it can be accepted. Rounding
            then tells close calls between two tokens otherwise than where it grew token by token.
    """

    course: Course
    projector: nn.Module
    tokenizer: PreTrainedTokenizerBase
    num_beams: int = GREEDY
    limit: int = MAX_TOKENS
    is_hasty: bool = True

    def judge(self, questions: Sequence[Question]) -> list[Verdict]:
        """Answer the questions, each as if it were alone; those about a picture follow each other.

        All are asked at once.
        """
        return [
            self._verdict(question, said)
            for question, said in zip(questions, self._say(questions), strict=True)
        ]

    @property
    def speaker(self) -> Speaker:
        """Return what answers."""
        course = self.course
        return Speaker(course.language, self.projector, course.features, self._end)

    def _say(self, questions: Sequence[Question]) -> list[Tokens]:
        if self.num_beams != GREEDY or not self.is_hasty:
            turns = [Turn(question.picture, question.example.prompt) for question in questions]
            return self.speaker.say(turns, self.limit, self.num_beams)
        right = [question.example.answer for question in questions]
        followed = self._follow(questions, [answer[:-1] for answer in right])
        said = [_agreed(*each) for each in zip(right, followed, strict=True)]
        while waiting := [
            index for index in range(len(said)) if self._goes_on(said[index], questions[index])
        ]:
            more = self._follow(
                [questions[index] for index in waiting], [said[index] for index in waiting]
            )
            for index, tokens in zip(waiting, more, strict=True):
                said[index] += tokens[-1:]
        return said

    def _follow(self, questions: Sequence[Question], said: Sequence[Tokens]) -> list[Tokens]:
        return self.speaker.follow(
            [
                Turn(question.picture, question.example.prompt, tokens)
                for question, tokens in zip(questions, said, strict=True)
            ]
        )

    def _goes_on(self, said: Tokens, question: Question) -> bool:
        is_under_way = said[-1] != self._end and len(said) < self.limit
        return is_under_way and question.can_be_accepted(self.text(said))

    def _verdict(self, question: Question, said: Tokens) -> Verdict:
        answer = question.example.answer
        has_ended = said[-1] == self._end
        return Verdict(
            exact=said == answer,
            accepted=question.grade(self.text(said)) if has_ended else said == answer,
            begun=said[: len(answer) - 1] == answer[:-1],
        )

    def text(self, tokens: Tokens) -> str:
        """Return what tokens say, without special ones."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    @property
    def _end(self) -> int:
        return int(self.tokenizer.eos_token_id)


def can_be_accepted(said: str, answer: str) -> bool:
    """Say whether more tokens could make an accepted answer of what was said."""
    words, right = " ".join(said.lower().split()), normalise(answer)
    return f"{right}.".startswith(words) or words == f"{right} ."


def _agreed(right: Tokens, followed: Tokens) -> Tokens:
    """Return what was said up to the first token that departs from the right ones, with it."""
    for length, (expected, token) in enumerate(zip(right, followed, strict=True), start=1):
        if token != expected:
            return followed[:length]
    return followed
