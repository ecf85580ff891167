"""Which questions rank policies and which confirm them: the same never do both."""

from dataclasses import dataclass
from pathlib import Path

from skipserve_client.command_group import CommandError
from skipserve_client.evaluate.easy_vqa_samples import EASY_VQA, easy_vqa_questions
from skipserve_client.evaluate.question_file import file_samples
from skipserve_client.evaluate.sample import Questions, Sample, demo_samples
from skipserve_client.evaluate.session import DEMO


@dataclass(frozen=True)
class Drawn:
    """The questions of a calibration.

    Attributes:
        name: what results call them.
        ranking: those that policies are ranked by.
        confirming: others, that confirm what was found.
    """

    name: str
    ranking: tuple[Sample, ...]
    confirming: tuple[Sample, ...]


def draw(data: str, folder: Path | None, num_ranking: int, num_confirming: int) -> Drawn:
    """Return the first questions of data to rank by, and those behind them to confirm with.

    Args:
        data: as `skipserve evaluate` takes it.
        folder: where easy-VQA lies; None for where it is kept.
        num_ranking: so many rank.
        num_confirming: as many as there are up to so many confirm.

    Raises:
        CommandError: the data cannot be read, or has too few questions.
    """
    found = _read(data, folder, num_ranking + num_confirming)
    samples = tuple(found.samples)
    if len(samples) <= num_ranking:
        raise CommandError(
            f"--data {data} has {len(samples)} questions: more than --samples {num_ranking} are "
            "needed, for what ranks policies cannot confirm them"
        )
    return Drawn(found.name, samples[:num_ranking], samples[num_ranking:])


def _read(data: str, folder: Path | None, count: int) -> Questions:
    if folder is not None and data != EASY_VQA:
        raise CommandError(f"--data-folder: without effect but with --data {EASY_VQA}")
    if data == DEMO:
        return Questions(DEMO, demo_samples(count))
    if data == EASY_VQA:
        return easy_vqa_questions(folder, count)
    path = Path(data)
    return Questions(path.name, file_samples(path, count))
