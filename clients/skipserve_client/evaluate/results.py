"""What an evaluation found, for a reader and for a program: scores of its records."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from statistics import median
from typing import Any, Self

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from skipserve_client.evaluate.records import Conditions, Record
from skipserve_client.evaluate.scoring import Score, score
from skipserve_client.tables import CUT, format_share

_UNBOUNDED = 10_000


@dataclass(frozen=True)
class PolicyResult:
    """What one policy reached.

    Attributes:
        digest: of what ran.
        flops_saved: 1 - planned / full, over all questions.
        latency_seconds: the median of a request's duration, as the server counts it.
        first_token_seconds: the median time to the first token.
        num_cut: answers that were cut at the limit of tokens.
    """

    digest: str
    score: Score
    flops_saved: float
    latency_seconds: float
    first_token_seconds: float
    num_cut: int

    @classmethod
    def from_records(cls, records: Sequence[Record]) -> Self:
        """Sum up what one policy answered."""
        planned = sum(record.planned_flops for record in records)
        full = sum(record.full_flops for record in records)
        return cls(
            digest=records[0].policy_digest,
            score=score(record.graded for record in records),
            flops_saved=1 - planned / full,
            latency_seconds=median(record.latency_seconds for record in records),
            first_token_seconds=median(
                record.first_token_seconds or record.latency_seconds for record in records
            ),
            num_cut=sum(record.finish_reason == CUT for record in records),
        )


@dataclass(frozen=True)
class Evaluation:
    """What all policies reached.

    Attributes:
        conditions: what was asked of what.
        records: each policy's, in the order asked for.
        left_out: policies that the loaded model cannot run, with the server's reason.
        inline: the policies that were spelt out, by label.
    """

    conditions: Conditions
    records: Mapping[str, Sequence[Record]]
    left_out: Mapping[str, str]
    inline: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def policies(self) -> dict[str, PolicyResult]:
        """The results by name."""
        return {name: PolicyResult.from_records(found) for name, found in self.records.items()}

    def retention(self, name: str) -> float | None:
        """Return a policy's accuracy as a share of the full model's, if that was measured."""
        full = self.policies.get("full")
        if full is None or not full.score.accuracy:
            return None
        return self.policies[name].score.accuracy / full.score.accuracy


def evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    """Return the summary that `skipserve evaluate` prints and writes."""
    return {
        **evaluation.conditions.model_dump(),
        "policies": {
            name: _result_json(result, evaluation.retention(name))
            for name, result in evaluation.policies.items()
        },
        "inline": dict(evaluation.inline),
        "left_out": dict(evaluation.left_out),
    }


def answers_json(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return every record, without what all have in common."""
    common = set(Conditions.model_fields)
    return [
        record.model_dump(mode="json", exclude=common)
        for records in evaluation.records.values()
        for record in records
    ]


def _result_json(result: PolicyResult, retention: float | None) -> dict[str, Any]:
    return {
        "digest": result.digest,
        **asdict(result.score),
        "retention": retention,
        "flops_saved": result.flops_saved,
        "latency_seconds": result.latency_seconds,
        "first_token_seconds": result.first_token_seconds,
        "num_cut": result.num_cut,
    }


def show(evaluation: Evaluation, console: Console) -> None:
    """Print the table, in Markdown where it is wide enough, and what a reader must know of it."""
    table = evaluation_table(evaluation)
    unbounded = console.options.update(max_width=_UNBOUNDED)
    if console.measure(table, options=unbounded).maximum <= console.width:
        console.print(table)
    else:
        _show_narrow(evaluation, console)
    for note in _notes(evaluation):
        console.print(note, style="dim", markup=False)


def evaluation_table(evaluation: Evaluation) -> Table:
    """Return the table of policies against accuracy, FLOPs and latency."""
    table = Table(box=box.MARKDOWN)
    table.add_column("policy", no_wrap=True)
    for title in _TITLES:
        table.add_column(title, justify="right", no_wrap=True)
    for name in evaluation.policies:
        table.add_row(name, *_cells(evaluation, name))
    return table


_TITLES = ("accuracy", "95 % interval", "of full", "FLOPs saved", "latency")


def _cells(evaluation: Evaluation, name: str) -> tuple[str, ...]:
    result, retention = evaluation.policies[name], evaluation.retention(name)
    return (
        format_share(result.score.accuracy),
        f"{100 * result.score.low:.1f}-{100 * result.score.high:.1f}",
        "" if retention is None else format_share(retention),
        format_share(result.flops_saved),
        f"{1000 * result.latency_seconds:.0f} ms",
    )


def _show_narrow(evaluation: Evaluation, console: Console) -> None:
    """Print each policy's figures below its name."""
    for name in evaluation.policies:
        console.print(name, markup=False, highlight=False)
        figures = zip(_TITLES, _cells(evaluation, name), strict=True)
        line = ", ".join(f"{title} {value}" for title, value in figures if value)
        console.print(Padding(Text(line), (0, 0, 0, 2)))


def _blind_note(evaluation: Evaluation) -> Iterator[str]:
    """Say what needs no picture, where the data tell it for each question."""
    for name, records in evaluation.records.items():
        if all(record.blind is not None for record in records):
            share = format_share(evaluation.policies[name].score.majority)
            yield f"{share} would be right without the pictures, from the questions' words alone"
            return


def _notes(evaluation: Evaluation) -> Iterator[str]:
    results = evaluation.policies.values()
    yield from _blind_note(evaluation)
    if num_cut := sum(result.num_cut for result in results):
        total, limit = sum(it.score.n for it in results), evaluation.conditions.max_tokens
        yield (
            f"{num_cut} of {total} answers were cut at {limit} tokens and graded as they stand; "
            "--max-tokens sets the limit"
        )
    for name, reason in evaluation.left_out.items():
        yield f"left out: {reason if name in reason else f'{name}: {reason}'}"
    for label, policy in evaluation.inline.items():
        yield f"{label}: {json.dumps(policy)}"
