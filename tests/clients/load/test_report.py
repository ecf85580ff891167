"""What is told of a load."""

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from skipserve_client.load.records import Failure, Outcome, Record
from skipserve_client.load.report import Report, line_of, live_view
from skipserve_client.load.running import Run
from skipserve_client.load.slo import read_slo

pytestmark = pytest.mark.fast

Making = Callable[..., Record]


async def never(*_: object) -> Record:
    raise AssertionError


@pytest.fixture
def run(record: Making) -> Run:
    """Return a run of four seconds: two answers, a rejection, and one under way."""
    records = [
        record(),
        record(index=1, policy="a-policy-with-a-rather-long-name", e2e_seconds=3.0),
        record(index=2, failure=Failure(Outcome.REJECTED, "503", "full")),
    ]
    return Run(never, records=records, num_sent=4, seconds=4.0, cpu_share=0.1)


def report_of(run: Run, **changes: Any) -> Report:
    values: dict[str, Any] = {
        "about": {"schema": "s"},
        "way": "closed loop, 2 at a time",
        "slo": ("e2e:1000", read_slo("e2e:1000")),
        "is_interrupted": False,
    }
    return Report(run, **(values | changes))


def shown(what: Any, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO())
    with console.capture() as captured:
        console.print(what)
    return captured.get()


@pytest.mark.parametrize("width", [60, 80])
def test_a_terminal_shows_all_of_it(run: Run, width: int) -> None:
    text = shown(report_of(run).shown(), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    words = " ".join(text.split())
    for told in (
        "3 requests in 4.0 s, closed loop, 2 at a time",
        "2 answered, 1 rejected (503: 1)",
        "0.50 answers/s, 1.5 tokens/s, 8 of 20 prompt tokens cached",
        "FLOPs saved: 25.0 %",
        "goodput at e2e:1000: 33.3 %, 0.25 answers/s",
        "first token 500 500 500 500 500 500",
        "end 2000 2000 2800 2900 2980 3000",
        "full 1/2",
    ):
        assert told in words


def test_json_can_be_written_and_has_the_same(run: Run) -> None:
    told = json.loads(json.dumps(report_of(run).as_json()))
    assert (told["schema"], told["seconds"], told["num_unfinished"]) == ("s", 4.0, 1)
    assert told["all"]["errors"] == {"503": 1}
    assert told["all"]["goodput"]["share"] == pytest.approx(1 / 3)
    assert told["by_policy"]["full"]["requests"] == 2
    assert told["client"] == {"cpu_share": 0.1, "delay_seconds": None, "lag_seconds": None}
    assert told["warnings"] == []


def test_one_policy_has_no_table_of_its_own(record: Making) -> None:
    run = Run(never, records=[record()], num_sent=1, seconds=1.0)
    assert "ok first p50" not in " ".join(shown(report_of(run).shown()).split())


def test_nothing_answered_has_no_times(record: Making) -> None:
    failed = record(failure=Failure(Outcome.FAILED, "timeout", "late"))
    run = Run(never, records=[failed], num_sent=1, seconds=1.0)
    text = shown(report_of(run, slo=None).shown())
    assert "0 answered, 1 failed (timeout: 1)" in text
    assert "p99" not in text


def test_doubts_are_told(record: Making) -> None:
    late = record(scheduled_seconds=0.0, sent_seconds=0.5)
    run = Run(never, [late].append, [late], num_sent=3, seconds=1.0, cpu_share=0.9)
    run.delays_seconds = [0.0, 0.2]
    busy, delay, lag, early = report_of(run, is_interrupted=True).warnings
    assert "90.0 % of a core" in busy
    assert "198 ms late" in delay
    assert "500 ms late" in lag
    assert "2 requests were under way" in early


def test_a_line_while_it_runs(run: Run) -> None:
    line = line_of(run, 4.2)
    assert line.startswith("4 s: 4 sent, 1 under way, 2 answered, 1 not, first token p50 500 ms")
    assert line_of(Run(never), 0.0) == "0 s: 0 sent, 0 under way, 0 answered"
    assert "between tokens" in shown(live_view(run, 4.2))
