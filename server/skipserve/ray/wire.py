"""What an ingress and a replica say to each other, as msgpack: errors are data. No Ray."""

from dataclasses import replace
from typing import TypeVar

import msgspec

from skipserve.engine.reports import StepOutput
from skipserve.engine.request import Request
from skipserve.errors import (
    EngineError,
    InvalidRequestError,
    RateLimitError,
    RequestTimeoutError,
    SkipserveError,
    UnavailableError,
)
from skipserve_policies.plan import Plan

# Of each side; a plan that was forgotten is encoded or decoded again.
_KEPT_PLANS = 4096

T = TypeVar("T")

_KINDS: dict[str, type[SkipserveError]] = {
    kind.__name__: kind
    for kind in (
        EngineError,
        InvalidRequestError,
        RateLimitError,
        RequestTimeoutError,
        UnavailableError,
    )
}


class Call(msgspec.Struct, frozen=True):
    """To a replica: run this.

    Attributes:
        request: with the key of its plan.
        plan: the plan itself, as msgpack, which whoever knows the key need not read.
    """

    request: Request
    plan: bytes


class Accepted(msgspec.Struct, frozen=True, tag="accepted"):
    """From a replica, first of all: the request is here."""

    replica: str


class Outputs(msgspec.Struct, frozen=True, tag="outputs"):
    """From a replica: what steps gave the request; nothing for a mere sign of life."""

    outputs: tuple[StepOutput, ...] = ()


class Fault(msgspec.Struct, frozen=True, tag="fault"):
    """From a replica, last of all: the request has failed.

    Attributes:
        replica: its name.
        kind: the name of the error.
        message, param, reason, retry_after_seconds: those of the error.
        is_lost: whether the engine is gone, or is about to be: another one may run the request.
    """

    replica: str
    kind: str
    message: str
    param: str | None = None
    reason: str | None = None
    retry_after_seconds: int | None = None
    is_lost: bool = False

    @classmethod
    def of(cls, replica: str, error: SkipserveError, is_lost: bool) -> "Fault":
        """Return what tells of an error; one that is not among those an engine raises is its."""
        kind = type(error) if type(error) in _KINDS.values() else EngineError
        reason = None if error.reason is None else str(error.reason)
        return cls(
            replica,
            kind.__name__,
            error.told,
            error.param,
            reason,
            error.retry_after_seconds,
            is_lost,
        )

    @property
    def error(self) -> SkipserveError:
        """The error that it tells of."""
        return _KINDS[self.kind](
            self.message,
            self.param,
            reason=self.reason,
            retry_after_seconds=self.retry_after_seconds,
        )


FromReplica = Accepted | Outputs | Fault

_call_decoder = msgspec.msgpack.Decoder(Call)
_decoder: msgspec.msgpack.Decoder[FromReplica] = msgspec.msgpack.Decoder(FromReplica)
_encoder = msgspec.msgpack.Encoder()


class CallWriter:
    """Makes requests calls; encodes each plan once."""

    def __init__(self) -> None:
        self._tables: dict[bytes, bytes] = {}

    def write(self, request: Request) -> bytes:
        """Return a request, with its plan, as a replica takes it."""
        plan = request.plan
        assert isinstance(plan, Plan)
        table = self._tables.get(plan.key)
        if table is None:
            table = _kept(self._tables, plan.key, _encoder.encode(plan))
        return _encoder.encode(Call(replace(request, plan=plan.key), table))


class CallReader:
    """Makes calls requests; decodes each plan once."""

    def __init__(self) -> None:
        self._plans: dict[bytes, Plan] = {}

    def read(self, frame: bytes) -> Request:
        """Return the request of a call, with its plan.

        Raises:
            msgspec.DecodeError: it is no call.
        """
        call = _call_decoder.decode(frame)
        key = call.request.plan
        assert isinstance(key, bytes)
        plan = self._plans.get(key)
        if plan is None:
            plan = _kept(self._plans, key, msgspec.msgpack.decode(call.plan, type=Plan))
        return replace(call.request, plan=plan)


def pack(message: FromReplica) -> bytes:
    """Return a message as it travels."""
    return _encoder.encode(message)


def read(frame: bytes) -> FromReplica:
    """Return a replica's message.

    Raises:
        msgspec.DecodeError: it is none.
    """
    return _decoder.decode(frame)


def _kept(plans: dict[bytes, T], key: bytes, value: T) -> T:
    """Return a value that is remembered from now on."""
    if len(plans) >= _KEPT_PLANS:
        plans.clear()
    plans[key] = value
    return value
