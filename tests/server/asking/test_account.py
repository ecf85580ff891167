"""Tests of what is known of a question from its arrival to its end."""

import time
from dataclasses import replace

import pytest
from fake_decoder import CONFIG, NUM_LAYERS, make_request

from skipserve.asking.account import Account
from skipserve.asking.question import Generation, Prepared
from skipserve.asking.report import Reporter
from skipserve.engine.reports import FinishReason, Stage, StepOutput
from skipserve_policies.catalog import load_catalog
from skipserve_policies.resolve import resolve

pytestmark = pytest.mark.fast

FULL = resolve("full", load_catalog()["full"], NUM_LAYERS)
PREPARED = Prepared(make_request(num_text=5), FULL, "tiny", Generation())


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
    account.ask()
    assert before <= account.asked
    account.take(StepOutput("r", 7))
    seconds = account.time_to_first_token_seconds
    assert seconds is not None
    assert 0 <= seconds <= time.perf_counter() - before


def test_what_runs_is_known_once_it_has_started() -> None:
    account = Account()
    assert not account.has_started
    account.start(PREPARED)
    assert account.has_started
    assert account.prepared is PREPARED


def test_several_answers_have_one_account() -> None:
    account, reporter = Account(), Reporter(CONFIG.sizes)
    account.start(replace(PREPARED, generation=Generation(num_choices=2)))
    account.take(StepOutput("r", 7, num_cached_tokens=2))
    account.take(StepOutput("r-1", 7, num_cached_tokens=4), 1)
    assert account.inter_token_latency_seconds is None
    account.take(StepOutput("r-1", 8), 1)
    second = account.choices[1]
    assert second.first_token is not None
    assert second.last_token is not None
    assert account.inter_token_latency_seconds == second.last_token - second.first_token
    assert (account.num_generated, account.num_cached) == (3, 2)
    account.finish(FinishReason.STOP, reporter, 1)
    assert (account.finish_reason, account.skip) == (None, None)
    account.finish(FinishReason.LENGTH, reporter)
    assert account.finish_reason is FinishReason.LENGTH
    assert account.skip == reporter.report(PREPARED.request, FULL, 1, 2, (2, 4))


def test_its_end_tells_what_it_cost() -> None:
    account, reporter = Account(), Reporter(CONFIG.sizes)
    account.start(PREPARED)
    account.take(StepOutput("r", 7, num_cached_tokens=2))
    account.take(StepOutput("r", 8))
    assert account.skip is None
    account.finish(FinishReason.LENGTH, reporter)
    assert account.finish_reason is FinishReason.LENGTH
    assert account.skip == reporter.report(PREPARED.request, FULL, 2, 2)


def test_it_never_shows_what_was_asked() -> None:
    account = Account()
    account.start(PREPARED)
    assert str(PREPARED.request.prompt_ids) not in repr(account)


@pytest.mark.parametrize("is_given_up", [False, True])
def test_without_a_token_only_whoever_gave_up_pays(is_given_up: bool) -> None:
    account, reporter = Account(), Reporter(CONFIG.sizes)
    account.start(PREPARED)
    account.is_given_up = is_given_up
    account.settle(reporter)
    assert account.use is not None
    planned = reporter.report(PREPARED.request, FULL, 0, 0).planned_flops
    paid = account.use.prompt_tokens, account.use.completion_tokens, account.use.computed_flops
    assert paid == ((7, 0, planned) if is_given_up else (0, 0, 0))


def test_what_was_cached_is_told_and_free_unless_it_may_be_another_s() -> None:
    reporter = Reporter(CONFIG.sizes)
    for tells_cached in (True, False):
        account = Account(tells_cached=tells_cached)
        account.start(PREPARED)
        account.take(StepOutput("r", 7, num_cached_tokens=4))
        account.settle(reporter)
        assert account.use is not None
        assert account.num_cached == 4
        assert account.use.cached_tokens == account.num_told_cached == (4 if tells_cached else 0)
        expected = reporter.report(PREPARED.request, FULL, 1, account.num_told_cached)
        assert account.use.computed_flops == expected.planned_flops


def test_of_several_answers_those_are_paid_that_have_begun() -> None:
    account, reporter = Account(), Reporter(CONFIG.sizes)
    account.start(replace(PREPARED, generation=Generation(num_choices=3)))
    account.is_given_up = True
    account.settle(reporter)
    assert account.use is not None
    first = reporter.report(PREPARED.request, FULL, 0, 0)
    assert account.use.computed_flops == first.planned_flops
    account.take(StepOutput("r-1", 7, num_cached_tokens=4), 1)
    account.take(StepOutput("r-2", 7, num_cached_tokens=5), 2)
    account.settle(reporter)
    two = reporter.report(PREPARED.request, FULL, 1, 4, (1, 5))
    assert (account.use.completion_tokens, account.use.computed_flops) == (2, two.planned_flops)
    account.tells_cached = False
    account.settle(reporter)
    # What the first of them found may be another's, what the second found is its own.
    untold = reporter.report(PREPARED.request, FULL, 1, 0, (1, 5))
    assert account.use.computed_flops == untold.planned_flops
