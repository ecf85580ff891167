"""What the API process and the engine process say to each other."""

import msgspec

from skipserve.engine.reports import EngineState, Failed, Ready, StepOutput, StepReport
from skipserve.engine.request import Request


class Submit(msgspec.Struct, frozen=True, tag="submit"):
    """To the engine: run this."""

    request: Request


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """To the engine: forget this request."""

    request_id: str


class PlanWanted(msgspec.Struct, frozen=True, tag="plan_wanted"):
    """From the engine: this request named a plan that is not known; submit it with the table."""

    request_id: str


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """From the engine, regularly and after each step: it is alive.

    Attributes:
        state: how the engine stands.
        outputs: what the last step gave; empty for a mere sign of life.
        step: what the last step did; None for a mere sign of life.
    """

    state: EngineState
    outputs: tuple[StepOutput, ...] = ()
    step: StepReport | None = None


ToEngine = Submit | Cancel
FromEngine = Ready | Progress | Failed | PlanWanted
