"""Names a data set on the command line: its form, its folder, and which part of it."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from skipserve_client.evaluate.easy_vqa import read_easy_vqa
from skipserve_training.mapping.easy_vqa_lessons import EasyCaptions, EasyLessons
from skipserve_training.mapping.lessons import LessonSource, Part
from skipserve_training.mapping.vqa_lessons import CaptionLessons, VqaLessons

EASY_VQA, EASY_CAPTIONS, VQA, CAPTIONS = "easy-vqa", "easy-vqa-captions", "vqa", "captions"

# What comes of a folder and a part of it; easy-VQA is published in two.
_FORMS: dict[str, Callable[[Path, Part | None], LessonSource]] = {
    EASY_VQA: lambda folder, part: EasyLessons(read_easy_vqa(folder, part or Part.TRAIN)),
    EASY_CAPTIONS: lambda folder, part: EasyCaptions(read_easy_vqa(folder, part or Part.TRAIN)),
    VQA: VqaLessons,
    CAPTIONS: CaptionLessons,
}


class Source(NamedTuple):
    """A data set on disk.

    Attributes:
        part: of it; None for all, of easy-VQA for what is trained on.
    """

    form: str
    folder: Path
    part: Part | None


def split_source(text: str) -> Source:
    """Split FORM:FOLDER, behind which #train or #test names a part.

    Raises:
        ValueError: It is written otherwise, or the form is unknown.
    """
    form, _, place = text.partition(":")
    parts = [part for part in Part if place.endswith(f"#{part}")]
    folder = place.removesuffix(f"#{parts[0]}") if parts else place
    if not folder or form not in _FORMS:
        raise ValueError(
            f"The data {text!r} is unknown: expected FORM:FOLDER with a form of "
            f"{', '.join(_FORMS)}."
        )
    return Source(form, Path(folder), parts[0] if parts else None)


def read_source(text: str) -> LessonSource:
    """Read the data set that FORM:FOLDER, FORM:FOLDER#train or FORM:FOLDER#test names.

    Raises:
        ValueError: It is written otherwise, or the folder does not hold such data.
    """
    form, folder, part = split_source(text)
    return _FORMS[form](folder, part)
