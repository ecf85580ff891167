"""Another evaluation's answers under the full model, which new ones are held against."""

from collections.abc import Sequence
from pathlib import Path

from skipserve_client.command_group import CommandError
from skipserve_client.evaluate.records import Record, read_records
from skipserve_client.evaluate.sample import Questions
from skipserve_policies.named import FULL


def read_baseline(path: Path, questions: Questions) -> Sequence[Record]:
    """Return what a model answered to these questions under `full`, in their order.

    Args:
        path: what `skipserve evaluate --output` wrote; it may hold more.
        questions: what is asked now.

    Raises:
        CommandError: the file cannot be read, or lacks the answer to one of the questions.
    """
    answers = {it.index: it for it in read_records(path) if it.policy == FULL}
    for sample in questions.samples:
        answer = answers.get(sample.index)
        digest = sample.digest(sample.messages())
        if answer is None or (answer.data, answer.question_digest) != (questions.name, digest):
            raise CommandError(
                f"--baseline {path}: holds no answer under {FULL} to {sample.name}; ask that model "
                f"the same questions, with --policies {FULL} --output FILE"
            )
    return [answers[sample.index] for sample in questions.samples]
