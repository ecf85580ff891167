"""The figures of a load: percentiles, rates, shares."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from skipserve_client.load.records import Outcome, Record, Tokens
from skipserve_client.load.slo import Slo


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return a percentile of ascending numbers; between two of them, on the line between them."""
    place = (len(ordered) - 1) * percent / 100
    low, high = math.floor(place), math.ceil(place)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


@dataclass(frozen=True)
class Spread:
    """Numbers, in seconds, summed up."""

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Spread | None":
        """Sum numbers up; None where there is none."""
        ordered = sorted(value for value in values if value is not None)
        if not ordered:
            return None
        mean = math.fsum(ordered) / len(ordered)
        p50, p90, p95, p99 = (percentile(ordered, percent) for percent in (50, 90, 95, 99))
        return cls(len(ordered), mean, p50, p90, p95, p99, ordered[-1])


@dataclass(frozen=True)
class Goodput:
    """How many requests met the limits, of all that were sent.

    Attributes:
        share: of the requests; those that were rejected or failed did not meet them.
        per_second: such requests a second.
    """

    share: float
    per_second: float


@dataclass(frozen=True)
class Figures:
    """What came of some requests in a time.

    Attributes:
        errors: how many were not answered, by code.
        answers_per_second: in the mean.
        output_tokens_per_second: of the answers, in the mean.
        tokens_per_chunk: above 1, some gaps between tokens were too short to be seen apart.
        flops_saved: the share of the full model's FLOPs; None where the server does not say.
        ttft: seconds to the first token.
        itl: seconds between tokens, over all gaps of all answers.
        e2e: seconds to the end.
    """

    requests: int
    answered: int
    rejected: int
    failed: int
    errors: dict[str, int]
    answers_per_second: float
    output_tokens_per_second: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    tokens_per_chunk: float | None
    flops_saved: float | None
    ttft: Spread | None
    itl: Spread | None
    e2e: Spread | None
    goodput: Goodput | None


def figures_of(records: Sequence[Record], seconds: float, slo: Slo | None) -> Figures:
    """Sum requests up.

    Args:
        records: the requests.
        seconds: from the first one's beginning to the last one's end.
        slo: what is good; None for no goodput.
    """
    answered = [record for record in records if record.is_answered]
    tokens = [record.tokens for record in answered if record.tokens is not None]
    outcomes = Counter(record.outcome for record in records)
    errors = Counter(record.failure.code for record in records if record.failure is not None)
    num_tokens = sum(it.completion for it in tokens)
    num_chunks = sum(it.chunks for it in tokens)
    return Figures(
        requests=len(records),
        answered=len(answered),
        rejected=outcomes[Outcome.REJECTED],
        failed=outcomes[Outcome.FAILED],
        errors=dict(sorted(errors.items())),
        answers_per_second=_rate(len(answered), seconds),
        output_tokens_per_second=_rate(num_tokens, seconds),
        prompt_tokens=sum(it.prompt for it in tokens),
        cached_tokens=sum(it.cached for it in tokens),
        output_tokens=num_tokens,
        tokens_per_chunk=num_tokens / num_chunks if num_chunks else None,
        flops_saved=_flops_saved(tokens),
        ttft=Spread.of(record.ttft_seconds for record in answered),
        itl=Spread.of(gap for record in answered for gap in record.itl_seconds),
        e2e=Spread.of(record.e2e_seconds for record in answered),
        goodput=None if slo is None else goodput_of(records, seconds, slo),
    )


def goodput_of(records: Sequence[Record], seconds: float, slo: Slo) -> Goodput | None:
    """Return how many requests met the limits; None where there are no requests."""
    if not records:
        return None
    num_good = sum(slo.is_met(record) for record in records)
    return Goodput(num_good / len(records), _rate(num_good, seconds))


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds else 0.0


def _flops_saved(tokens: Sequence[Tokens]) -> float | None:
    told = [it for it in tokens if it.planned_flops is not None and it.full_flops]
    full = sum(it.full_flops or 0 for it in told)
    return 1 - sum(it.planned_flops or 0 for it in told) / full if full else None
