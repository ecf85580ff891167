"""Which questions of an exam are asked: those of whole pictures, drawn once."""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Protocol, TypeVar

import torch

from skipserve_training.mapping.lessons import Exchange, Probe, PromptForm
from skipserve_training.mapping.packing import Example, pack
from skipserve_training.mapping.speaking import Tokens, Turn
from skipserve_training.mapping.training import answer
from skipserve_training.paper.answering import Judge, Question, Verdict
from skipserve_training.paper.exam import Exam, commonest
from skipserve_training.paper.setup import Scoring

# Called with what is done, and of how much.
Progress = Callable[[int, int], None]

_SEED = 20
_PICTURES = 8  # at a time
# More are asked of a model that gives more than this share of the answers of the first.
WORTH_MORE = 0.5


@dataclass(frozen=True)
class Asked:
    """A question of an exam, and the place of its picture among all."""

    probe: Probe
    picture: int

    @property
    def expected(self) -> Exchange:
        """Return the question with the answer that comes most often."""
        return Exchange(
            self.probe.question, commonest(Counter(self.probe.answers)), self.probe.kind
        )


def draw_questions(exam: Exam, count: int) -> list[Asked]:
    """Draw pictures until there are `count` questions about them; fewer are the first of more."""
    pictures = [*range(len(exam))]
    random.Random(f"{_SEED}/questions").shuffle(pictures)
    drawn: list[Asked] = []
    for picture in pictures:
        if len(drawn) >= count:
            break
        drawn += [Asked(probe, picture) for probe in exam.probes(picture)]
    return drawn


def make_question(asked: Asked, prompts: PromptForm, scoring: Scoring) -> Question:
    """Write a question as it is asked, with the answers that are right."""
    example = prompts.example(asked.expected)
    return Question(asked.picture, example, asked.probe.answers, scoring is Scoring.VOTES)


def make_captioning(asked: Asked, judge: Judge, said: Tokens) -> Question:
    """Ask for a caption, of which what the full model said is the right one."""
    prompt = judge.course.prompts.prompt(asked.probe.question)
    return Question(asked.picture, Example(prompt, said, 0), (judge.text(said),))


def ask(judge: Judge, questions: Sequence[Question], progress: Progress) -> list[Verdict]:
    """Ask all, some pictures at a time."""
    verdicts: list[Verdict] = []
    for some in _by_pictures(questions):
        verdicts += judge.judge(some)
        progress(len(verdicts), len(questions))
    return verdicts


def tell(judge: Judge, asked: Sequence[Asked], progress: Progress) -> list[Tokens]:
    """Let a model tell of all, some pictures at a time, as long as it goes on."""
    said: list[Tokens] = []
    for some in _by_pictures(asked):
        turns = [
            Turn(each.picture, judge.course.prompts.prompt(each.probe.question)) for each in some
        ]
        said += judge.speaker.say(turns, judge.limit, judge.num_beams)
        progress(len(said), len(asked))
    return said


@torch.inference_mode()
def loss(judge: Judge, asked: Sequence[Asked], scoring: Scoring) -> float:
    """Return the mean loss of the tokens of right answers, each behind those before it.

    They are the commonest answer to each question, or all captions.
    """
    course, total, count = judge.course, 0.0, 0
    device = course.language.device
    for some in _by_pictures(asked):
        trees: dict[int, list[Example]] = {}
        for each in some:
            right = _captions(each) if scoring is Scoring.CAPTIONS else [each.expected]
            trees.setdefault(each.picture, []).extend(map(course.prompts.example, right))
        features, batch = course.features.take([*trees]), pack([*trees.values()]).to(device)
        found = answer(course.language, judge.projector, features.to(device), batch).loss
        total += found.item() * len(batch.targets)
        count += len(batch.targets)
    return total / count


def _captions(asked: Asked) -> list[Exchange]:
    probe = asked.probe
    return [Exchange(probe.question, caption, probe.kind) for caption in probe.answers]


class _OfPicture(Protocol):
    @property
    def picture(self) -> int: ...


_P = TypeVar("_P", bound=_OfPicture)


def _by_pictures(items: Sequence[_P]) -> Iterator[list[_P]]:
    """Yield what is about some pictures at a time; what is about one follows each other."""
    pictures = [[*some] for _, some in groupby(items, key=lambda each: each.picture)]
    for first in range(0, len(pictures), _PICTURES):
        yield [*chain.from_iterable(pictures[first : first + _PICTURES])]
