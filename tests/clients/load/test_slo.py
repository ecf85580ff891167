"""Which answers are good."""

from collections.abc import Callable

import pytest

from skipserve_client.command_group import CommandError
from skipserve_client.load.records import Failure, Outcome, Record
from skipserve_client.load.slo import Slo, read_slo

pytestmark = pytest.mark.fast

Making = Callable[..., Record]


def test_limits_are_milliseconds() -> None:
    assert read_slo("ttft:500, itl:50,e2e:2000.5").limits == {
        "ttft": 0.5,
        "itl": 0.05,
        "e2e": 2.0005,
    }


@pytest.mark.parametrize("text", ["", "ttft", "ttft:", "ttft:0", "ttft:-1", "ttft:nan", "ttft:inf"])
def test_other_limits_are_refused(text: str) -> None:
    for wrong in (text, f"e2e:1,{text}", "tpot:3", "ttft:1,ttft:2"):
        with pytest.raises(CommandError, match="--slo"):
            read_slo(wrong)


# The record's first token comes after 0.5 s, its gaps are 0.25 s in the mean, its end is at 1 s.
@pytest.mark.parametrize(
    ("limits", "is_met"),
    [
        ({}, True),
        ({"ttft": 0.5}, True),
        ({"ttft": 0.49}, False),
        ({"itl": 0.25}, True),
        ({"itl": 0.24}, False),
        ({"e2e": 1.0}, True),
        ({"e2e": 0.99}, False),
        ({"ttft": 0.6, "itl": 0.2, "e2e": 2.0}, False),
    ],
)
def test_all_limits_must_be_met(record: Making, limits: dict[str, float], is_met: bool) -> None:
    assert Slo(limits).is_met(record()) is is_met


def test_an_answer_of_one_token_has_no_gap_to_be_too_long(record: Making) -> None:
    assert Slo({"itl": 0.001}).is_met(record(itl_seconds=()))


def test_what_was_not_answered_is_not_good(record: Making) -> None:
    failure = Failure(Outcome.REJECTED, "503", "full")
    assert not Slo({"e2e": 10.0}).is_met(record(failure=failure))
