"""Which questions of easy-VQA's test split are asked: those of whole pictures, drawn once."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, groupby

from skipserve_client.evaluate.easy_vqa import EasyQuestion, EasySplit
from skipserve_training.mapping.lessons import Exchange, PromptForm
from skipserve_training.paper.answering import Judge, Question, Verdict

_SEED = 20
_PICTURES = 8  # at a time
# More are asked of a model that gives more than this share of the answers of the first.
WORTH_MORE = 0.5


@dataclass(frozen=True)
class Asked:
    """A question of the test split, and the place of its picture among all."""

    question: EasyQuestion
    picture: int


def draw_questions(test: EasySplit, count: int) -> list[Asked]:
    """Draw pictures until there are `count` questions about them; fewer are the first of more."""
    by_image: dict[int, list[EasyQuestion]] = {image: [] for image in sorted(test.images)}
    for question in test.questions:
        by_image[question.image].append(question)
    images = [*enumerate(by_image.values())]
    random.Random(f"{_SEED}/questions").shuffle(images)
    drawn: list[Asked] = []
    for picture, questions in images:
        if len(drawn) >= count:
            break
        drawn += [Asked(question, picture) for question in questions]
    return drawn


def ask(
    judge: Judge, asked: Sequence[Asked], progress: Callable[[int, int], None]
) -> list[Verdict]:
    """Ask all, some pictures at a time; `progress` is called with what is done, and of how much."""
    pictures = [[*some] for _, some in groupby(asked, key=lambda each: each.picture)]
    verdicts: list[Verdict] = []
    for first in range(0, len(pictures), _PICTURES):
        some = chain.from_iterable(pictures[first : first + _PICTURES])
        verdicts += judge.judge([_question(each, judge.course.prompts) for each in some])
        progress(len(verdicts), len(asked))
    return verdicts


def _question(asked: Asked, prompts: PromptForm) -> Question:
    question = asked.question
    exchange = Exchange(question.text, question.answer, question.type)
    return Question(asked.picture, prompts.example(exchange), question.answer)
