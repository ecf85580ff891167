"""Reads easy-VQA: pictures of one shape, and questions about its colour and its form.

The questions mostly name what is absent: positive yes/no questions are answered "no" in seven
of eight cases, negated ones "yes". So each question says what it names and whether it is there.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from PIL import Image

COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
SHAPES = ("circle", "rectangle", "triangle")
YES, NO = "yes", "no"

_NAMED = re.compile(rf"\b({'|'.join((*COLOURS, *SHAPES))})\b")
_NEGATION = re.compile(r"\b(not|no)\b")


class EasyType(StrEnum):
    """What a question asks for; yes/no by its form and by whether what it names is there."""

    COLOUR = "colour"
    SHAPE = "shape"
    POSITIVE_PRESENT = "yes/no, present"
    POSITIVE_ABSENT = "yes/no, absent"
    NEGATED_PRESENT = "negated, present"
    NEGATED_ABSENT = "negated, absent"


@dataclass(frozen=True)
class EasyQuestion:
    """A question about one picture, with its only right answer."""

    text: str
    answer: str
    image: int

    @property
    def named(self) -> str | None:
        """The colour or the shape that the question names, if it names one."""
        found = _NAMED.search(self.text)
        return found[0] if found else None

    @property
    def is_negated(self) -> bool:
        """Say whether it asks for an absence."""
        return _NEGATION.search(self.text) is not None

    @property
    def type(self) -> EasyType:
        """The question's type, which its answer tells too."""
        if self.answer in COLOURS:
            return EasyType.COLOUR
        if self.answer in SHAPES:
            return EasyType.SHAPE
        is_present = (self.answer == YES) != self.is_negated
        if self.is_negated:
            return EasyType.NEGATED_PRESENT if is_present else EasyType.NEGATED_ABSENT
        return EasyType.POSITIVE_PRESENT if is_present else EasyType.POSITIVE_ABSENT


@dataclass(frozen=True)
class Attributes:
    """What a picture's questions and answers tell about its shape; None where they do not."""

    colour: str | None
    shape: str | None


@dataclass(frozen=True)
class EasySplit:
    """One half of the data set: "train" or "test"."""

    name: str
    images: dict[int, Path]
    questions: tuple[EasyQuestion, ...]

    def load(self, image: int) -> Image.Image:
        """Load a picture by its number."""
        with Image.open(self.images[image]) as opened:
            return opened.convert("RGB")

    def attributes(self) -> dict[int, Attributes]:
        """Tell each picture's colour and shape, as far as its questions do."""
        by_image: dict[int, list[EasyQuestion]] = {image: [] for image in self.images}
        for question in self.questions:
            by_image[question.image].append(question)
        return {image: _attributes(questions) for image, questions in by_image.items()}


def read_easy_vqa(folder: Path, split: str) -> EasySplit:
    """Read a split from the package's `data` folder, or from one that holds such a folder.

    Raises:
        ValueError: The folder does not hold the data set, or a question is not of it.
    """
    root = _data_folder(folder, split)
    pictures = sorted((root / "images").glob("*.png"))
    images = {int(path.stem): path for path in pictures if path.stem.isdecimal()}
    questions = tuple(_read_questions(root / "questions.json"))
    unseen = {question.image for question in questions} - images.keys()
    if unseen:
        raise ValueError(f"{root} has no picture {min(unseen)}.png, of which questions ask.")
    return EasySplit(split, images, questions)


def _data_folder(folder: Path, split: str) -> Path:
    for root in (folder, folder / "data", folder / "easy_vqa" / "data"):
        if (root / split / "questions.json").is_file():
            return root / split
    raise ValueError(
        f"{folder} does not hold easy-VQA: expected {split}/questions.json in it, in its folder "
        "'data' or in 'easy_vqa/data', as in the unpacked package easy-vqa."
    )


def _read_questions(path: Path) -> Iterable[EasyQuestion]:
    try:
        entries = json.loads(path.read_text())
        for text, answer, image in entries:
            if not isinstance(text, str):
                raise ValueError(f"the question {text!r} is not a text")
            if answer not in (*COLOURS, *SHAPES, YES, NO):
                raise ValueError(f"the answer {answer!r} is none of the 13")
            yield EasyQuestion(text, answer, int(image))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no file of easy-VQA's questions: {error}; expected a list of "
            "[question, answer, number of the picture]."
        ) from error


def _attributes(questions: Iterable[EasyQuestion]) -> Attributes:
    """Put together what is said to be there: in answers, in questions, and by elimination."""
    present: set[str] = set()
    absent: set[str] = set()
    for question in questions:
        if question.answer in (YES, NO):
            is_present = question.type in (EasyType.POSITIVE_PRESENT, EasyType.NEGATED_PRESENT)
            (present if is_present else absent).add(question.named or "")
        else:
            present |= {question.answer, question.named or ""}
    return Attributes(_only(COLOURS, present, absent), _only(SHAPES, present, absent))


def _only(words: tuple[str, ...], present: set[str], absent: set[str]) -> str | None:
    known = present.intersection(words) or set(words) - absent
    return known.pop() if len(known) == 1 else None


def blind_answers(trained_on: EasySplit) -> dict[str, str]:
    """Tell the commonest answer to each text: what can be had without looking at pictures."""
    counts: dict[str, Counter[str]] = {}
    for question in trained_on.questions:
        counts.setdefault(question.text, Counter())[question.answer] += 1
    return {text: answers.most_common(1)[0][0] for text, answers in counts.items()}
