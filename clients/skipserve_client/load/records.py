"""What is known of one request of a load."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from skipserve_client.errors import ApiError, ClientError, ProtocolError

# What a server says that is too busy, or whose client asks too much.
_REJECTING = {429, 503}
TIMEOUT = "timeout"


class Outcome(StrEnum):
    """How a request ended."""

    ANSWERED = "answered"
    REJECTED = "rejected"
    FAILED = "failed"


@dataclass(frozen=True)
class Failure:
    """Why a request was not answered.

    Attributes:
        code: an HTTP status, "timeout", "connection" or "protocol".
    """

    outcome: Outcome
    code: str
    message: str
    retry_after_seconds: float | None = None

    @classmethod
    def of(cls, error: ClientError) -> "Failure":
        """Sort an error of the client's in."""
        if isinstance(error, ApiError):
            outcome = Outcome.REJECTED if error.status in _REJECTING else Outcome.FAILED
            return cls(outcome, str(error.status), error.message, error.retry_after_seconds)
        code = "protocol" if isinstance(error, ProtocolError) else "connection"
        return cls(Outcome.FAILED, code, str(error))


@dataclass(frozen=True)
class Tokens:
    """What an answer is made of, as far as the server says so.

    Attributes:
        prompt: tokens of the prompt.
        cached: those of them that were not computed again.
        completion: tokens of the answer; where the server does not count, its chunks.
        chunks: pieces in which they came.
        planned_flops: what the request costs under its policy; None from other servers.
        full_flops: what it would cost under the full model.
    """

    prompt: int
    cached: int
    completion: int
    chunks: int
    planned_flops: int | None = None
    full_flops: int | None = None


@dataclass(frozen=True)
class Record:
    """One request.

    Attributes:
        index: its place in the load.
        policy: what was asked for.
        picture: what it showed; None for a text alone.
        scheduled_seconds: when it was to be sent, from the beginning; None in a closed loop, where
            the answer before decides.
        sent_seconds: when it was sent.
        ttft_seconds: to the first token, from when it was to be sent.
        itl_seconds: the gaps between tokens after the first. A chunk of k tokens is k gaps, of a
            k-th of the time since the chunk before.
        e2e_seconds: to the end of the answer, or to the error, from when it was to be sent.
        tokens: None where it was not answered.
        failure: None where it was.
    """

    index: int
    policy: str
    picture: str | None
    question: str
    scheduled_seconds: float | None
    sent_seconds: float
    e2e_seconds: float
    ttft_seconds: float | None = None
    itl_seconds: tuple[float, ...] = ()
    tokens: Tokens | None = None
    finish_reason: str | None = None
    failure: Failure | None = None

    @property
    def outcome(self) -> Outcome:
        """How it ended."""
        return Outcome.ANSWERED if self.failure is None else self.failure.outcome

    @property
    def is_answered(self) -> bool:
        """Whether there is an answer."""
        return self.failure is None

    @property
    def mean_itl_seconds(self) -> float | None:
        """The mean gap; None where there is none."""
        gaps = self.itl_seconds
        return sum(gaps) / len(gaps) if gaps else None

    @property
    def lag_seconds(self) -> float | None:
        """How late it was sent, which is the generator's fault; None in a closed loop."""
        if self.scheduled_seconds is None:
            return None
        return self.sent_seconds - self.scheduled_seconds

    def as_json(self) -> dict[str, Any]:
        """Return a line of `--output`."""
        return {"kind": "request", "outcome": self.outcome, **asdict(self)}
