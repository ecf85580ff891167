"""What travels between an ingress and an engine's replica."""

import msgspec
import pytest
from fake_decoder import make_request
from plan_strategies import without_generated_ffn

from skipserve.engine.reports import FailureKind, FinishReason, StepOutput
from skipserve.errors import (
    EngineError,
    InvalidRequestError,
    NotFoundError,
    RequestTimeoutError,
    SkipserveError,
    UnavailableError,
)
from skipserve.ray import wire
from skipserve.ray.wire import Accepted, CallReader, CallWriter, Fault, Outputs, pack, read
from skipserve_policies.plan import Plan, trim

pytestmark = pytest.mark.fast


def test_a_request_arrives_as_it_was() -> None:
    request = make_request(num_images=2, plan=trim(without_generated_ffn(4, 1)))
    assert CallReader().read(CallWriter().write(request)) == request


def test_a_plan_is_read_once() -> None:
    reader, request = CallReader(), make_request()
    first, second = (reader.read(CallWriter().write(request)) for _ in range(2))
    assert first.plan is second.plan


def test_plans_are_not_kept_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_KEPT_PLANS", 2)
    writer, reader = CallWriter(), CallReader()
    requests = [make_request(plan=trim(without_generated_ffn(4, layer))) for layer in range(4)]
    for request in (*requests, *requests):
        assert reader.read(writer.write(request)) == request
    assert isinstance(requests[0].plan, Plan)
    assert len(reader._plans) <= 2
    assert len(writer._tables) <= 2


@pytest.mark.parametrize(
    "message",
    [
        Accepted("one"),
        Outputs(),
        Outputs((StepOutput("r", 3), StepOutput("r", 4, finish_reason=FinishReason.STOP))),
        Fault("a", "EngineError", "it failed", is_lost=True),
    ],
    ids=lambda message: type(message).__name__,
)
def test_messages_arrive_as_they_were(message: wire.FromReplica) -> None:
    assert read(pack(message)) == message


def test_what_is_no_message() -> None:
    with pytest.raises(msgspec.DecodeError):
        read(b"\x93")


@pytest.mark.parametrize(
    "error",
    [
        EngineError("it died", reason=FailureKind.ENGINE),
        InvalidRequestError("too long", "messages"),
        RequestTimeoutError("too slow", reason=FailureKind.DEADLINE),
        UnavailableError("full", retry_after_seconds=7),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_are_data(error: SkipserveError) -> None:
    fault = read(pack(Fault.of("a", error, is_lost=False)))
    assert isinstance(fault, Fault)
    again = fault.error
    assert type(again) is type(error)
    assert vars(again) == vars(error)


def test_an_error_of_another_kind_is_the_engines() -> None:
    fault = Fault.of("a", NotFoundError("nothing there"), is_lost=False)
    assert type(fault.error) is EngineError
