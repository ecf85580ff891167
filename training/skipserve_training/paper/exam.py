"""What is asked: media that are never trained on, and the questions about each."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Protocol

from PIL import Image

from skipserve_client.evaluate.easy_vqa import EasySplit, EasyType, blind_answers, read_easy_vqa
from skipserve_training.mapping.easy_vqa_lessons import EasyLessons
from skipserve_training.mapping.lessons import CAPTION, LessonSource, Media, Part, Probe
from skipserve_training.mapping.sources import (
    EASY_CAPTIONS,
    EASY_VQA,
    read_source,
    split_source,
)
from skipserve_training.mapping.vqa_lessons import CaptionLessons, VqaLessons
from skipserve_training.paper.setup import Scoring

_ANNOTATORS = 10  # of each question, who vote


class Exam(Protocol):
    """`len(exam)` media, numbered from 0.

    Attributes:
        kinds: types of its questions, in the order of tables.
        scoring: what answers are held against.
    """

    kinds: Sequence[str]
    scoring: Scoring

    def __len__(self) -> int:
        """Return the number of media."""
        ...

    def media(self, index: int) -> Media:
        """Load one."""
        ...

    def probes(self, index: int) -> Sequence[Probe]:
        """Return all questions about one."""
        ...

    def blind(self, probe: Probe) -> str | None:
        """Answer as whoever sees the question alone, and what is trained on."""
        ...


class EasyExam:
    """The test split of easy-VQA, whose pictures come in the order of their numbers."""

    kinds: Sequence[str] = tuple(EasyType)
    scoring = Scoring.ANSWER

    def __init__(self, trained_on: EasySplit, test: EasySplit) -> None:
        self._test = test
        self._probes: dict[int, list[Probe]] = {image: [] for image in sorted(test.images)}
        for question in test.questions:
            probe = Probe(question.text, (question.answer,), question.type)
            self._probes[question.image].append(probe)
        self._images = [*self._probes]
        self._blind = blind_answers(trained_on)

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self._images)

    def media(self, index: int) -> Image.Image:
        """Load a picture."""
        return self._test.load(self._images[index])

    def probes(self, index: int) -> Sequence[Probe]:
        """Return all questions about one."""
        return self._probes[self._images[index]]

    def blind(self, probe: Probe) -> str | None:
        """Give the commonest answer to the same text."""
        return self._blind.get(probe.question or "")


class VqaExam:
    """Questions of VQAv2's form: by votes where each has ten annotators, else by any of them."""

    def __init__(self, trained_on: VqaLessons, test: VqaLessons) -> None:
        self._test = test
        self.kinds = test.kinds
        counts = {len(probe.answers) for probe in _probes(test)}
        self.scoring = Scoring.VOTES if counts == {_ANNOTATORS} else Scoring.ANSWER
        by_text: dict[str | None, Counter[str]] = {}
        every: Counter[str] = Counter()
        for probe in _probes(trained_on):
            by_text.setdefault(probe.question, Counter()).update(probe.answers)
            every.update(probe.answers)
        self._blind = {text: commonest(found) for text, found in by_text.items()}
        self._always = commonest(every)

    def __len__(self) -> int:
        """Return the number of media."""
        return len(self._test)

    def media(self, index: int) -> Media:
        """Load one."""
        return self._test.media(index)

    def probes(self, index: int) -> Sequence[Probe]:
        """Return all questions about one."""
        return self._test.probes(index)

    def blind(self, probe: Probe) -> str | None:
        """Give the commonest answer to the same text, or to any where it is new."""
        return self._blind.get(probe.question, self._always)


class CaptionExam:
    """Media that are told of; whoever does not look has nothing to say."""

    kinds: Sequence[str] = (CAPTION,)
    scoring = Scoring.CAPTIONS

    def __init__(self, test: CaptionLessons) -> None:
        self._test = test

    def __len__(self) -> int:
        """Return the number of media."""
        return len(self._test)

    def media(self, index: int) -> Media:
        """Load one."""
        return self._test.media(index)

    def probes(self, index: int) -> Sequence[Probe]:
        """Return all captions of one, as one."""
        return self._test.probes(index)

    def blind(self, probe: Probe) -> None:
        """Say nothing."""
        del probe


def _probes(lessons: VqaLessons) -> Iterator[Probe]:
    return chain.from_iterable(lessons.probes(index) for index in range(len(lessons)))


def commonest(answers: Counter[str]) -> str:
    """Return the answer that comes most often; of several, the first."""
    return answers.most_common(1)[0][0]


def divide(data: str, test: str | None) -> tuple[str, str]:
    """Name what is trained on and what is asked about, neither of which holds media of the other.

    Args:
        data: FORM:FOLDER.
        test: another; None for a part of the data.

    Raises:
        ValueError: One is written otherwise, they are of two forms, or are not apart.
    """
    source = split_source(data)
    if test is None and source.part is None:
        return (data if source.form == EASY_VQA else f"{data}#{Part.TRAIN}"), f"{data}#{Part.TEST}"
    asked = split_source(test or data)
    if asked.form != source.form:
        raise ValueError(f"test is {test!r}: expected the form of the data, {source.form}.")
    is_one = asked.folder.resolve() == source.folder.resolve()
    if is_one and {source.part, asked.part} != set(Part):
        raise ValueError(
            f"test is {test!r}, and the data {data!r}: they share media. Expected another folder, "
            f"or #{Part.TRAIN} and #{Part.TEST} of one."
        )
    return data, test or data


def read_exam(trained_on: LessonSource, asked: str) -> Exam:
    """Read what is asked.

    Args:
        trained_on: the lessons.
        asked: what is asked about, FORM:FOLDER, as `divide` names it.

    Raises:
        ValueError: The folder does not hold such data, or nothing can be asked about its form.
    """
    form, folder, _ = split_source(asked)
    if isinstance(trained_on, EasyLessons):
        return EasyExam(trained_on.split, read_easy_vqa(folder, Part.TEST))
    test = None if form == EASY_CAPTIONS else read_source(asked)
    if isinstance(trained_on, VqaLessons) and isinstance(test, VqaLessons):
        return VqaExam(trained_on, test)
    if isinstance(test, CaptionLessons):
        return CaptionExam(test)
    raise ValueError(f"data is of the form {form}: expected easy-vqa, vqa or captions.")
