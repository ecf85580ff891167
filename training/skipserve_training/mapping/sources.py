"""Names a data set on the command line: its form and its folder."""

from collections.abc import Callable
from pathlib import Path

from skipserve_client.evaluate.easy_vqa import read_easy_vqa
from skipserve_training.mapping.easy_vqa_lessons import EasyCaptions, EasyLessons
from skipserve_training.mapping.lessons import LessonSource
from skipserve_training.mapping.vqa_lessons import CaptionLessons, VqaLessons

EASY_VQA, EASY_CAPTIONS = "easy-vqa", "easy-vqa-captions"

_FORMS: dict[str, Callable[[Path], LessonSource]] = {
    EASY_VQA: lambda folder: EasyLessons(read_easy_vqa(folder, "train")),
    EASY_CAPTIONS: lambda folder: EasyCaptions(read_easy_vqa(folder, "train")),
    "vqa": VqaLessons,
    "captions": CaptionLessons,
}


def split_source(text: str) -> tuple[str, Path]:
    """Split FORM:FOLDER.

    Raises:
        ValueError: It is written otherwise, or the form is unknown.
    """
    form, colon, folder = text.partition(":")
    if not colon or not folder or form not in _FORMS:
        raise ValueError(
            f"The data {text!r} is unknown: expected FORM:FOLDER with a form of "
            f"{', '.join(_FORMS)}."
        )
    return form, Path(folder)


def read_source(text: str) -> LessonSource:
    """Read the data set that FORM:FOLDER names.

    Raises:
        ValueError: It is written otherwise, or the folder does not hold such data.
    """
    form, folder = split_source(text)
    return _FORMS[form](folder)
