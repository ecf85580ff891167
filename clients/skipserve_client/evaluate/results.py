"""What an evaluation found, for a reader and for a program."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Self

from rich import box
from rich.console import Console
from rich.table import Table

from skipserve_client.evaluate.dataset import Example
from skipserve_client.evaluate.scoring import GradedAnswer, Score, score
from skipserve_client.replies import Answer
from skipserve_client.tables import format_share


@dataclass(frozen=True)
class Answered:
    """One question, and the answer that it got under one policy."""

    policy: str
    example: Example
    answer: Answer


@dataclass(frozen=True)
class PolicyResult:
    """What one policy reached.

    Attributes:
        digest: of what ran.
        flops_saved: 1 - planned / full, over all questions.
        latency_seconds: the median of a request's duration, as the server counts it.
        first_token_seconds: the median time to the first token.
    """

    digest: str
    score: Score
    flops_saved: float
    latency_seconds: float
    first_token_seconds: float

    @classmethod
    def from_answers(cls, answered: Sequence[Answered]) -> Self:
        """Sum up what one policy answered."""
        skips = [item.answer.skip for item in answered]
        timings = [item.answer.timings for item in answered]
        return cls(
            digest=skips[0].digest,
            score=score(_grade(item) for item in answered),
            flops_saved=1 - sum(s.planned_flops for s in skips) / sum(s.full_flops for s in skips),
            latency_seconds=median(t.duration_seconds for t in timings),
            first_token_seconds=median(
                t.time_to_first_token_seconds or t.duration_seconds for t in timings
            ),
        )


def _grade(item: Answered) -> GradedAnswer:
    return GradedAnswer(item.example.type, item.example.answer, item.answer.text)


@dataclass(frozen=True)
class Evaluation:
    """What all policies reached.

    Attributes:
        policies: by name, in the order asked for.
        left_out: policies that the loaded model cannot run, with the server's reason.
    """

    policies: dict[str, PolicyResult]
    left_out: dict[str, str]

    def retention(self, name: str) -> float | None:
        """Return a policy's accuracy as a share of the full model's, if that was measured."""
        full = self.policies.get("full")
        if full is None or not full.score.accuracy:
            return None
        return self.policies[name].score.accuracy / full.score.accuracy


def evaluation_json(evaluation: Evaluation, data: str) -> dict[str, Any]:
    """Return the form that `skipserve evaluate --json` prints; `data` names the questions."""
    return {
        "data": data,
        "policies": {
            name: _result_json(result, evaluation.retention(name))
            for name, result in evaluation.policies.items()
        },
        "left_out": evaluation.left_out,
    }


def _result_json(result: PolicyResult, retention: float | None) -> dict[str, Any]:
    return {
        "digest": result.digest,
        **asdict(result.score),
        "retention": retention,
        "flops_saved": result.flops_saved,
        "latency_seconds": result.latency_seconds,
        "first_token_seconds": result.first_token_seconds,
    }


def show(evaluation: Evaluation, console: Console) -> None:
    """Print the table, in Markdown, and what was left out."""
    console.print(evaluation_table(evaluation))
    for name, reason in evaluation.left_out.items():
        console.print(f"left out: {reason if name in reason else f'{name}: {reason}'}", style="dim")


def evaluation_table(evaluation: Evaluation) -> Table:
    """Return the table of policies against accuracy, FLOPs and latency."""
    table = Table(box=box.MARKDOWN)
    table.add_column("policy", overflow="fold")
    for title in ("accuracy", "95 % interval", "of full", "FLOPs saved", "latency"):
        table.add_column(title, justify="right")
    for name, result in evaluation.policies.items():
        retention = evaluation.retention(name)
        table.add_row(
            name,
            format_share(result.score.accuracy),
            f"{100 * result.score.low:.1f}-{100 * result.score.high:.1f}",
            "" if retention is None else format_share(retention),
            format_share(result.flops_saved),
            f"{1000 * result.latency_seconds:.0f} ms",
        )
    return table
