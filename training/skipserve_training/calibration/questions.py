"""Which questions rank policies and which confirm them: the same never do both."""

from dataclasses import dataclass
from pathlib import Path

from skipserve_client.command_group import CommandError
from skipserve_client.evaluate.metrics.registry import METRICS
from skipserve_client.evaluate.questions_by_name import questions_of
from skipserve_client.evaluate.sample import Sample


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
        folder: where a published data set lies; None for where easy-VQA is kept.
        num_ranking: so many rank.
        num_confirming: as many as there are up to so many confirm.

    Raises:
        CommandError: the data cannot be read, or has too few questions.
    """
    found = questions_of(data, folder, num_ranking + num_confirming)
    samples = tuple(found.samples)
    if vague := sorted({it.metric for it in samples if not METRICS[it.metric].tells_right}):
        raise CommandError(
            f"--data {data} is scored by {vague[0]}, which calls no answer right or wrong: "
            "policies cannot be confirmed on it"
        )
    if len(samples) <= num_ranking:
        raise CommandError(
            f"--data {data} has {len(samples)} questions: more than --samples {num_ranking} are "
            "needed, for what ranks policies cannot confirm them"
        )
    return Drawn(found.name, samples[:num_ranking], samples[num_ranking:])
