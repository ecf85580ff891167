"""What was chosen for a request, and what the choice leaves with it."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from skipserve.asking.auto.choice import Reason
from skipserve.asking.auto.traces import Conversation, Mark
from skipserve_policies.resolve import ResolvedPolicy


class ChosenBecause(BaseModel):
    """Why the server chose the policy that ran."""

    model_config = ConfigDict(frozen=True)

    reason: Reason
    min_quality: float | None = Field(
        description="The share of what the full model reaches that had to be kept; null where "
        "nothing was measured.",
    )
    quality: float | None = Field(
        description="The share that the policy keeps at least, as measured; null where it was not.",
    )
    max_latency_ms: float | None = Field(description="What the request asked for.")
    expected_latency_ms: float | None = Field(
        description="What was expected of the policy; null where nothing was measured yet, and "
        "then `max_latency_ms` did not count.",
    )
    expected_cached_tokens: int = Field(
        description="Leading tokens of the prompt that were expected to be computed before."
    )
    under_pressure: bool = Field(
        description="Whether requests waited for so long that the server's floor counted."
    )


@dataclass(frozen=True)
class Chosen:
    """A policy that the server chose.

    Attributes:
        policy: what runs.
        because: why.
    """

    policy: ResolvedPolicy
    because: ChosenBecause


@dataclass(frozen=True)
class Trace:
    """What is remembered of a request once it has run.

    Attributes:
        root: whose it is.
        marks: of its prompt.
        conversation: where it stands in one.
    """

    root: bytes
    marks: tuple[Mark, ...]
    conversation: Conversation
