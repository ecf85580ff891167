"""Tests of what is known of a question from its arrival to its end."""

import time

import pytest

from skipserve.asking.account import Account
from skipserve.engine.reports import Stage, StepOutput

pytestmark = pytest.mark.fast


def test_steps_are_counted() -> None:
    account = Account()
    assert account.time_to_first_token_seconds is None
    account.take(StepOutput("r", 7, stage_seconds={Stage.QUEUE: 0.25}, num_cached_tokens=3))
    assert account.inter_token_latency_seconds is None
    account.take(StepOutput("r", 8))
    account.take(StepOutput("r", None))
    assert (account.num_generated, account.num_cached, account.queue_seconds) == (2, 3, 0.25)
    first, between = account.time_to_first_token_seconds, account.inter_token_latency_seconds
    assert first is not None
    assert between is not None
    assert 0 <= first <= first + between <= account.elapsed_seconds


def test_its_times_begin_when_the_question_is_there_whole() -> None:
    account, before = Account(), time.perf_counter()
    account.ask(b"whose")
    assert account.key_digest == b"whose"
    assert before <= account.asked
    account.take(StepOutput("r", 7))
    seconds = account.time_to_first_token_seconds
    assert seconds is not None
    assert 0 <= seconds <= time.perf_counter() - before


def test_what_runs_is_known_once_it_has_started() -> None:
    account = Account()
    assert not account.has_started
    with pytest.raises(AssertionError):
        _ = account.prepared
