"""What flows through the engine, and whether it survives the way over the socket."""

import math
from dataclasses import replace

import msgspec
import pytest
from fake_decoder import make_request, plan_of

from skipserve.engine.reports import (
    EngineState,
    Executed,
    Failed,
    FailureKind,
    FinishReason,
    PromptScores,
    Ready,
    Stage,
    StepOutput,
    StepReport,
    TokenLogprob,
)
from skipserve.service.messages import Cancel, FromEngine, Progress, Submit, ToEngine

pytestmark = pytest.mark.fast


def _round_trip(message: object, kind: object) -> object:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=kind)


def test_a_request_survives_the_socket() -> None:
    request = replace(
        make_request(num_images=2, seed=2**63, num_top_logprobs=3),
        cache_salt="s",
        queue_seconds=0.5,
        deadline_seconds=math.inf,
        num_prompt_logprobs=2,
    )
    # What a plan remembers of itself must not travel.
    assert plan_of(request).digest
    assert _round_trip(Submit(request), ToEngine) == Submit(request)


@pytest.mark.parametrize("message", [Cancel("r")])
def test_messages_to_the_engine_survive(message: object) -> None:
    assert _round_trip(message, ToEngine) == message


@pytest.mark.parametrize(
    "message",
    [
        Ready("cpu", "float32", "ab", 4096),
        Progress(
            EngineState(1, 2),
            (StepOutput("r", None, finish_reason=FinishReason.CANCELLED),),
        ),
        Progress(
            EngineState(num_faults=1),
            (
                StepOutput(
                    "r",
                    7,
                    logprob=-0.5,
                    top_logprobs=(TokenLogprob(7, -0.5),),
                    num_cached_tokens=16,
                    stage_seconds={Stage.DECODE: 0.5},
                    prompt_scores=PromptScores(1, b"abcd", b"efgh", b"ijkl", b"mnop"),
                ),
            ),
            StepReport({"full": Executed(5, 6, 1, 2, 3, 4)}, 0.25, 3, 2, 1),
        ),
        Failed(None, "no model"),
        Failed("r", "no"),
        *(Failed("r", "no", kind) for kind in FailureKind),
    ],
)
def test_messages_from_the_engine_survive(message: object) -> None:
    assert _round_trip(message, FromEngine) == message


def test_executed_adds_up_field_by_field() -> None:
    total = Executed(1, 2, 3, 4, 5, 6) + Executed(10, 20, 30, 40, 50, 60)
    assert total == Executed(11, 22, 33, 44, 55, 66)
