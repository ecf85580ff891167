"""Which questions a name on the command line stands for."""

from pathlib import Path

from skipserve_client.command_group import CommandError
from skipserve_client.evaluate.data_sets.registry import DATA_SETS
from skipserve_client.evaluate.easy_vqa_samples import EASY_VQA, easy_vqa_questions
from skipserve_client.evaluate.question_file import file_samples
from skipserve_client.evaluate.sample import Questions, demo_samples
from skipserve_client.evaluate.step_samples import DEMO_STEPS, step_samples

DEMO = "demo"
_DEMO_COUNT = 1000


def questions_of(data: str, folder: Path | None, count: int | None) -> Questions:
    """Return the first `count` questions that `data` stands for, all or the demo's 1000 for None.

    Raises:
        CommandError: there are none of that name, or they cannot be read.
    """
    if data in DATA_SETS:
        return DATA_SETS[data].questions(folder, count)
    if data == EASY_VQA:
        return easy_vqa_questions(folder, count)
    if folder is not None:
        names = ", ".join((EASY_VQA, *DATA_SETS))
        raise CommandError(f"--data-folder: without effect but with --data {names}")
    if data == DEMO:
        return Questions(DEMO, demo_samples(count or _DEMO_COUNT))
    if data == DEMO_STEPS:
        return Questions(DEMO_STEPS, step_samples(count or _DEMO_COUNT))
    path = Path(data)
    return Questions(path.name, file_samples(path, count))
