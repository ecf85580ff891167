"""Lessons in the formats of VQAv2 and of COCO's captions, from local folders.

FOLDER/*questions*.json    {"questions": [{"question_id", "image_id", "question"}]}
FOLDER/*annotations*.json  {"annotations": [{"question_id", "answers": [{"answer"}]}]}
FOLDER/*captions*.json     {"images": [{"id", "file_name"}], "annotations": [{"image_id", ...
FOLDER/media/              pictures, folders of frames, or sounds
"""

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from pydantic import BaseModel, Field, ValidationError

from skipserve_training.mapping.lessons import CAPTION, Exchange, Media, Part, Probe
from skipserve_training.mapping.media import find_media, load_media

QUESTIONS_A_STEP = 8  # about one medium, drawn from those that it has

_MEDIA = "media"
_HELD_OUT = 10  # of so many media one is a test's
_SEED = 20


class _Question(BaseModel):
    question_id: int
    image_id: int
    question: str


class _Questions(BaseModel):
    questions: list[_Question]


class _Answer(BaseModel):
    answer: str


class _Annotation(BaseModel):
    question_id: int
    answer_type: str = "other"
    answers: list[_Answer] = Field(min_length=1)


class _Annotations(BaseModel):
    annotations: list[_Annotation]


class _Picture(BaseModel):
    id: int
    file_name: str


class _Caption(BaseModel):
    image_id: int
    caption: str


class _Captions(BaseModel):
    images: list[_Picture]
    annotations: list[_Caption]


@dataclass(frozen=True)
class _Told:
    """What annotators answered, without the objects of a file of millions of answers."""

    kind: str
    answers: tuple[str, ...]

    @classmethod
    def of(cls, annotation: _Annotation) -> Self:
        """Keep equal answers once."""
        answers = tuple(sys.intern(it.answer) for it in annotation.answers)
        return cls(sys.intern(annotation.answer_type), answers)


class VqaLessons:
    """Questions with the answers of several annotators, one of which is drawn each time.

    Args:
        folder: the data set.
        part: of its media; None for all.
    """

    def __init__(self, folder: Path, part: Part | None = None) -> None:
        questions = _read(folder, "questions", _Questions).questions
        annotations = _read(folder, "annotations", _Annotations).annotations
        self._answers = {one.question_id: _Told.of(one) for one in annotations}
        self._asked: dict[int, list[_Question]] = {}
        for question in questions:
            if question.question_id not in self._answers:
                raise ValueError(
                    f"{folder}: question {question.question_id} has no annotation with answers."
                )
            self._asked.setdefault(question.image_id, []).append(question)
        self._paths = _locate(find_media(folder / _MEDIA), self._asked, folder)
        self._media = _media_of(part, sorted(self._asked), folder)
        self.kinds: Sequence[str] = sorted({told.kind for told in self._answers.values()})

    @property
    def questions_a_step(self) -> float:
        """Return how many questions are drawn about a medium in a step, in the mean."""
        counts = [min(QUESTIONS_A_STEP, len(self._asked[number])) for number in self._media]
        return sum(counts) / len(counts)

    def __len__(self) -> int:
        """Return the number of media."""
        return len(self._media)

    def media(self, index: int) -> Media:
        """Load one."""
        return load_media(self._paths[self._media[index]])

    def exchanges(self, index: int, draw: random.Random) -> list[Exchange]:
        """Draw questions, and one annotator's answer to each."""
        asked = self._asked[self._media[index]]
        return [
            self._exchange(question, draw)
            for question in draw.sample(asked, min(QUESTIONS_A_STEP, len(asked)))
        ]

    def probes(self, index: int) -> list[Probe]:
        """Return all questions about one, with all answers."""
        found = [(it, self._answers[it.question_id]) for it in self._asked[self._media[index]]]
        return [Probe(question.question, told.answers, told.kind) for question, told in found]

    def _exchange(self, question: _Question, draw: random.Random) -> Exchange:
        told = self._answers[question.question_id]
        return Exchange(question.question, draw.choice(told.answers), told.kind)


class CaptionLessons:
    """Captions, one of a medium's drawn each time; nothing is asked.

    Args:
        folder: the data set.
        part: of its media; None for all.
    """

    kinds: Sequence[str] = (CAPTION,)
    questions_a_step = 1

    def __init__(self, folder: Path, part: Part | None = None) -> None:
        found = _read(folder, "captions", _Captions)
        self._captions: dict[int, list[str]] = {}
        for caption in found.annotations:
            self._captions.setdefault(caption.image_id, []).append(caption.caption.strip())
        paths = {picture.id: folder / _MEDIA / picture.file_name for picture in found.images}
        present = {number: path for number, path in paths.items() if path.exists()}
        self._paths = _locate(present, self._captions, folder)
        self._media = _media_of(part, sorted(self._captions), folder)

    def __len__(self) -> int:
        """Return the number of media."""
        return len(self._media)

    def media(self, index: int) -> Media:
        """Load one."""
        return load_media(self._paths[self._media[index]])

    def exchanges(self, index: int, draw: random.Random) -> list[Exchange]:
        """Draw a caption."""
        return [Exchange(None, draw.choice(self._captions[self._media[index]]), CAPTION)]

    def probes(self, index: int) -> list[Probe]:
        """Return all captions of one, as one."""
        return [Probe(None, tuple(self._captions[self._media[index]]), CAPTION)]


_T = TypeVar("_T", bound=BaseModel)


def _read(folder: Path, what: str, form: type[_T]) -> _T:
    """Read the one file of a folder whose name says what it holds."""
    found = sorted(folder.glob(f"*{what}*.json"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise ValueError(f"{folder}: expected one file *{what}*.json, found {names}.")
    try:
        return form.model_validate_json(found[0].read_bytes())
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"])) or "the file"
        raise ValueError(f"{found[0]}: {place}: {fault['msg']}.") from error


def _locate(
    paths: dict[int, Path], wanted: dict[int, list[str]] | dict[int, list[_Question]], folder: Path
) -> dict[int, Path]:
    missing = sorted(wanted.keys() - paths.keys())
    if missing:
        raise ValueError(
            f"{folder / _MEDIA} lacks {len(missing)} media of which the files speak, the first "
            f"is number {missing[0]}."
        )
    return paths


def _media_of(part: Part | None, numbers: list[int], folder: Path) -> list[int]:
    """Choose the media of a part, in order: a tenth, drawn once, is the test's."""
    if part is None:
        return numbers
    if len(numbers) < 2:
        raise ValueError(f"{folder} has {len(numbers)} media: two parts take two at least.")
    drawn = random.Random(f"{_SEED}/held out").sample(numbers, -(-len(numbers) // _HELD_OUT))
    held_out = set(drawn)
    return [number for number in numbers if (number in held_out) is (part is Part.TEST)]
