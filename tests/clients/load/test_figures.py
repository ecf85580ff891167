"""Percentiles, rates and shares, against what was worked out by hand."""

from collections.abc import Callable

import pytest

from skipserve_client.load.figures import Goodput, Spread, figures_of, goodput_of, percentile
from skipserve_client.load.records import Failure, Outcome, Record, Tokens
from skipserve_client.load.slo import Slo

pytestmark = pytest.mark.fast

Making = Callable[..., Record]

REJECTED = Failure(Outcome.REJECTED, "503", "full", 2.0)
FAILED = Failure(Outcome.FAILED, "timeout", "late")


@pytest.mark.parametrize(
    ("numbers", "percent", "expected"),
    [
        ([7.0], 50, 7.0),
        ([7.0], 99, 7.0),
        ([1.0, 2.0], 50, 1.5),
        ([1.0, 2.0, 3.0, 4.0], 50, 2.5),
        ([1.0, 2.0, 3.0, 4.0], 90, 3.7),
        ([1.0, 2.0, 3.0, 4.0], 100, 4.0),
        ([float(number) for number in range(101)], 99, 99.0),
        ([0.0, 10.0], 99, 9.9),
    ],
)
def test_percentiles(numbers: list[float], percent: float, expected: float) -> None:
    assert percentile(numbers, percent) == pytest.approx(expected)


def test_a_spread() -> None:
    spread = Spread.of([4.0, None, 1.0, 3.0, 2.0])
    assert spread is not None
    assert (spread.count, spread.mean, spread.p50, spread.max) == (4, 2.5, 2.5, 4.0)
    assert spread.p95 == pytest.approx(3.85)
    assert Spread.of([None]) is None


def test_goodput_counts_all_that_were_sent(record: Making) -> None:
    slo = Slo({"ttft": 0.6, "itl": 0.3})
    records = [
        record(),
        record(ttft_seconds=0.7),
        record(itl_seconds=(0.3, 0.5)),
        record(failure=REJECTED),
    ]
    assert goodput_of(records, 2.0, slo) == Goodput(share=0.25, per_second=0.5)
    assert goodput_of([], 2.0, slo) is None


def test_figures(record: Making) -> None:
    records = [
        record(),
        record(ttft_seconds=1.5, e2e_seconds=3.0, itl_seconds=(0.7,), tokens=Tokens(20, 0, 5, 2)),
        record(failure=REJECTED),
        record(failure=FAILED),
        record(failure=FAILED),
    ]
    figures = figures_of(records, 4.0, None)
    assert (figures.requests, figures.answered) == (5, 2)
    assert (figures.rejected, figures.failed) == (1, 2)
    assert figures.errors == {"503": 1, "timeout": 2}
    assert (figures.answers_per_second, figures.output_tokens_per_second) == (0.5, 2.0)
    assert (figures.prompt_tokens, figures.cached_tokens, figures.output_tokens) == (30, 4, 8)
    assert figures.tokens_per_chunk == 8 / 5
    assert figures.flops_saved == pytest.approx(0.25)
    assert figures.ttft is not None
    assert figures.itl is not None
    assert figures.e2e is not None
    assert (figures.ttft.mean, figures.e2e.mean) == (1.0, 2.0)
    assert figures.itl.count == 3
    assert figures.itl.mean == pytest.approx(0.4)
    assert figures.goodput is None


def test_figures_of_nothing() -> None:
    figures = figures_of([], 0.0, Slo({"e2e": 1.0}))
    assert (figures.requests, figures.answers_per_second, figures.ttft) == (0, 0.0, None)
    assert (figures.tokens_per_chunk, figures.flops_saved, figures.goodput) == (None, None, None)
