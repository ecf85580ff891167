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

from skipserve_client.evaluate.figures import Comparison, Figures, Measured, figures_of
from skipserve_client.evaluate.metrics.means import EXACT
from skipserve_client.evaluate.metrics.metric import SHARE, Metric
from skipserve_client.evaluate.metrics.registry import METRICS
from skipserve_client.evaluate.records import Conditions, Record
from skipserve_client.evaluate.sample import Sample
from skipserve_client.evaluate.scoring import Score
from skipserve_client.tables import CUT, format_share
from skipserve_policies.named import FULL

_UNBOUNDED = 10_000
_COMPARED = (
    "beside full, on the same questions: of full, with a paired bootstrap's interval; as full, the "
    "share of equal answers; lost/won, right answers that became wrong and wrong ones that became "
    "right"
)


@dataclass(frozen=True)
class PolicyResult:
    """What one policy reached.

    Attributes:
        digest: of what ran; None where the server has no policies, or chose another for each.
        figures: scores, and how they compare with full's.
        flops_saved: 1 - planned / full, over all questions; None where the server does not count.
        latency_seconds: the median of a request's duration, as the server counts it, or the client
            where the server does not.
        first_token_seconds: the median time to the first token.
        num_cut: answers that were cut at the limit of tokens.
    """

    digest: str | None
    figures: Figures
    flops_saved: float | None
    latency_seconds: float
    first_token_seconds: float
    num_cut: int

    @classmethod
    def of(cls, records: Sequence[Record], figures: Figures) -> Self:
        """Sum up what one policy answered."""
        planned = [record.planned_flops for record in records if record.planned_flops is not None]
        full = sum(record.full_flops or 0 for record in records)
        digests = {record.policy_digest for record in records}
        return cls(
            digest=digests.pop() if len(digests) == 1 else None,
            figures=figures,
            flops_saved=1 - sum(planned) / full if full else None,
            latency_seconds=median(record.latency_seconds for record in records),
            first_token_seconds=median(
                record.first_token_seconds or record.latency_seconds for record in records
            ),
            num_cut=sum(record.finish_reason == CUT for record in records),
        )

    @property
    def score(self) -> Score:
        """The mean of what the answers are worth, by type too."""
        return self.figures.score

    @property
    def headline(self) -> Measured:
        """The figure that the metric is known for."""
        return self.figures.measured[0]


@dataclass(frozen=True)
class Evaluation:
    """What all policies reached.

    Attributes:
        conditions: what was asked of what.
        records: each policy's, in the order asked for.
        left_out: policies that the loaded model cannot run, with the server's reason.
        inline: the policies that were spelt out, by label.
        samples: the questions with their pictures; none where records were scored again.
        baseline: what another model answered to the same questions under `full`, in their order;
            empty where policies are held against this model's own `full`.
    """

    conditions: Conditions
    records: Mapping[str, Sequence[Record]]
    left_out: Mapping[str, str]
    inline: Mapping[str, Any] = field(default_factory=dict)
    samples: Sequence[Sample] = ()
    baseline: Sequence[Record] = ()

    @cached_property
    def policies(self) -> dict[str, PolicyResult]:
        """The results by name."""
        items = {name: [it.item for it in found] for name, found in self.records.items()}
        if not items:
            return {}
        figures = figures_of(items, self.metric, [it.item for it in self.baseline])
        return {name: PolicyResult.of(found, figures[name]) for name, found in self.records.items()}

    @cached_property
    def baseline_figures(self) -> Figures:
        """What the baseline reached, which there must be."""
        return figures_of({FULL: [it.item for it in self.baseline]}, self.metric)[FULL]

    @property
    def metric(self) -> Metric:
        """How the answers are scored."""
        if not self.records:
            return EXACT
        return METRICS[next(iter(self.records.values()))[0].metric]

    def retention(self, name: str) -> float | None:
        """Return a policy's first figure as a share of the full model's, if that was measured."""
        comparison = self.policies[name].figures.comparison
        if comparison is not None:
            return None if comparison.retention is None else comparison.retention.value
        return 1.0 if name == FULL and self.policies[name].headline.value else None


def evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    """Return the summary that `skipserve evaluate` prints and writes."""
    return {
        **evaluation.conditions.model_dump(),
        **_baseline_json(evaluation),
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


def _baseline_json(evaluation: Evaluation) -> dict[str, Any]:
    if not evaluation.baseline:
        return {}
    first, score = evaluation.baseline[0], evaluation.baseline_figures.score
    told = {name: getattr(score, name) for name in ("accuracy", "low", "high", "n")}
    model = {"model": first.model, "model_digest": first.model_digest}
    return {"baseline": model | {"policy": FULL} | told}


def _result_json(result: PolicyResult, retention: float | None) -> dict[str, Any]:
    figures, comparison = result.figures, result.figures.comparison
    return {
        "digest": result.digest,
        **asdict(result.score),
        "measures": [
            {
                "metric": it.measure.name,
                "unit": it.measure.unit,
                "value": it.value,
                "low": it.low,
                "high": it.high,
            }
            for it in figures.measured
        ],
        "details": {kind: dict(found) for kind, found in figures.details.items()},
        "retention": retention,
        "beside_full": None if comparison is None else asdict(comparison),
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
    for note in notes(evaluation):
        console.print(note, style="dim", markup=False)


def evaluation_table(evaluation: Evaluation) -> Table:
    """Return the table of policies against scores, FLOPs and latency."""
    table = Table(box=box.MARKDOWN)
    table.add_column("policy", no_wrap=True)
    for title in titles(evaluation):
        table.add_column(title, justify="right", no_wrap=True)
    for name in evaluation.policies:
        table.add_row(name, *cells(evaluation, name))
    return table


def titles(evaluation: Evaluation) -> tuple[str, ...]:
    """Return the titles of what `cells` gives."""
    first = evaluation.metric.measures[0].name
    name = "accuracy" if first == "exact match" else first
    return (name, "95 % interval", "of full", "as full", "lost/won", "FLOPs saved", "latency")


def cells(evaluation: Evaluation, name: str) -> tuple[str, ...]:
    """Return a policy's figures as texts; an empty one for what is not known."""
    result, retention = evaluation.policies[name], evaluation.retention(name)
    found, comparison = result.headline, result.figures.comparison
    is_share = found.measure.unit == SHARE
    scale = 100 if is_share else 1
    return (
        format_share(found.value) if is_share else f"{found.value:.1f}",
        f"{scale * found.low:.1f}-{scale * found.high:.1f}",
        "" if retention is None else _format_retention(retention, comparison),
        "" if comparison is None else format_share(comparison.agreement.value),
        "" if comparison is None else _format_flips(comparison),
        "" if result.flops_saved is None else format_share(result.flops_saved),
        f"{1000 * result.latency_seconds:.0f} ms",
    )


def _format_retention(retention: float, comparison: Comparison | None) -> str:
    if comparison is None or comparison.retention is None:
        return format_share(retention)
    low, high = 100 * comparison.retention.low, 100 * comparison.retention.high
    return f"{format_share(retention)} ({low:.1f}-{high:.1f})"


def _format_flips(comparison: Comparison) -> str:
    """Say how many right answers became wrong and wrong ones right, or how many are others."""
    if comparison.right_to_wrong is None:
        return f"{comparison.changed} changed"
    return f"{comparison.right_to_wrong}/{comparison.wrong_to_right}"


def _show_narrow(evaluation: Evaluation, console: Console) -> None:
    """Print each policy's figures below its name."""
    for name in evaluation.policies:
        console.print(name, markup=False, highlight=False)
        figures = zip(titles(evaluation), cells(evaluation, name), strict=True)
        line = ", ".join(f"{title} {value}" for title, value in figures if value)
        console.print(Padding(Text(line), (0, 0, 0, 2)))


def _blind_note(evaluation: Evaluation) -> Iterator[str]:
    """Say what needs no picture, where the data tell it for each question."""
    for name, records in evaluation.records.items():
        if all(record.blind is not None for record in records):
            share = format_share(evaluation.policies[name].score.majority)
            yield f"{share} would be right without the pictures, from the questions' words alone"
            return


def _baseline_note(evaluation: Evaluation) -> Iterator[str]:
    """Say what is held against another model's answers, and how many of those are right."""
    if evaluation.baseline:
        share = format_share(evaluation.baseline_figures.score.accuracy)
        yield (
            f"full here is {evaluation.baseline[0].model}'s, whose answers to the same questions "
            f"under {FULL} reach {share}"
        )


def notes(evaluation: Evaluation) -> Iterator[str]:
    """Yield what a reader of the table must know."""
    results = evaluation.policies.values()
    yield from _blind_note(evaluation)
    yield from _baseline_note(evaluation)
    if any(result.figures.comparison for result in results):
        yield _COMPARED
    if any(result.flops_saved is None for result in results):
        yield "the server has no skip policies: FLOPs are not known, and latency is the client's"
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
