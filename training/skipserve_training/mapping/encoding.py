"""Computes features into a folder, of lessons and of test pictures; one process does."""

from collections.abc import Callable
from pathlib import Path

from accelerate import Accelerator

from skipserve_client.evaluate.easy_vqa import EasySplit
from skipserve_training.mapping.easy_vqa_features import Views
from skipserve_training.mapping.easy_vqa_lessons import EasyLessons
from skipserve_training.mapping.encoders import FrozenEncoder
from skipserve_training.mapping.features import Features, compute_features
from skipserve_training.mapping.lessons import LessonSource, Media

# Called with what is under way, how much of it is done, how much there is, and the loss.
ReportFunction = Callable[[str, int, int, float], None]


def say_nothing(stage: str, done: int, total: int, loss: float) -> None:
    """Leave reporting to another process."""
    del stage, done, total, loss


class Encoding:
    """Computes features in a folder, or finds them there; other processes read them."""

    def __init__(
        self, folder: Path, encoder: FrozenEncoder, accelerator: Accelerator, report: ReportFunction
    ) -> None:
        self._folder = folder
        self._encoder = encoder
        self._accelerator = accelerator
        self._report = report

    def of_lessons(self, lessons: LessonSource, views: int, seed: int) -> Features:
        """Encode all media of the lessons, in so many variants, which a seed draws."""
        if isinstance(lessons, EasyLessons):
            varied = Views(lessons, views, seed)
            return self.of_media("features", len(varied), varied.media)
        return self.of_media("features", len(lessons), lessons.media)

    def of_split(self, split: EasySplit) -> Features:
        """Encode all pictures of a split, in the order of their numbers."""
        images = sorted(split.images)
        return self.of_media(
            f"{split.name}-features", len(images), lambda index: split.load(images[index])
        )

    def of_media(self, name: str, count: int, load: Callable[[int], Media]) -> Features:
        """Encode some media into a file of a name of its own."""
        with self._accelerator.main_process_first():
            return compute_features(
                self._folder / f"{name}.npy",
                self._encoder,
                count,
                load,
                lambda done: self._report(name, done, count, 0.0),
            )
