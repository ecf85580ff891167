"""The account of a question: who asks, what runs for it, what that took, and how it ended."""

import time
from dataclasses import dataclass, field

from skipserve.asking.question import Prepared
from skipserve.asking.report import Reporter, SkipReport
from skipserve.engine.reports import FinishReason, Stage, StepOutput


@dataclass(eq=False, repr=False)
class Account:
    """What is known of a question from its arrival to its end.

    Attributes:
        key_digest: of the API key of whoever asks; None where there is none.
        asked: when the question was there, whole; like all times here, on the clock of
            `perf_counter`.
        num_generated: tokens sampled, the end token among them.
        num_cached: leading prompt rows that were not computed.
        stage_seconds: time spent in each stage, once it is over.
        first_token, last_token: when they came.
        finish_reason: why it ended; None until then, and where it ended by an error.
        skip: what its work cost, once its answer is whole.
    """

    key_digest: bytes | None = None
    asked: float = field(default_factory=time.perf_counter)
    num_generated: int = 0
    num_cached: int = 0
    stage_seconds: dict[Stage, float] = field(default_factory=dict)
    first_token: float | None = None
    last_token: float | None = None
    finish_reason: FinishReason | None = None
    skip: SkipReport | None = None
    _prepared: Prepared | None = field(default=None, init=False)

    def sibling(self) -> "Account":
        """Return the account of another question that came with this one."""
        return Account(self.key_digest, self.asked)

    def ask(self, key_digest: bytes | None) -> None:
        """Note that the question is there, and whose it is."""
        self.key_digest = key_digest
        self.asked = time.perf_counter()

    def start(self, prepared: Prepared) -> None:
        """Note what runs for it."""
        self._prepared = prepared

    @property
    def has_started(self) -> bool:
        """Whether it is known what runs for it."""
        return self._prepared is not None

    @property
    def prepared(self) -> Prepared:
        """What runs for it; there is nothing before `start`."""
        assert self._prepared is not None
        return self._prepared

    def take(self, output: StepOutput) -> None:
        """Count a step."""
        if output.stage_seconds:
            self.stage_seconds |= output.stage_seconds
        self.num_cached = max(self.num_cached, output.num_cached_tokens)
        if output.token_id is None:
            return
        self.num_generated += 1
        self.last_token = time.perf_counter()
        if self.first_token is None:
            self.first_token = self.last_token

    def finish(self, reason: FinishReason, reporter: Reporter) -> None:
        """Note why its answer is whole, and what that cost."""
        self.finish_reason = reason
        request, policy = self.prepared.request, self.prepared.policy
        self.skip = reporter.report(request, policy, self.num_generated, self.num_cached)

    @property
    def queue_seconds(self) -> float:
        """Time spent waiting for the engine."""
        return self.stage_seconds.get(Stage.QUEUE, 0.0)

    @property
    def elapsed_seconds(self) -> float:
        """Time since the question was asked."""
        return time.perf_counter() - self.asked

    @property
    def time_to_first_token_seconds(self) -> float | None:
        """Time from the question to its first token."""
        return None if self.first_token is None else self.first_token - self.asked

    @property
    def inter_token_latency_seconds(self) -> float | None:
        """Mean time between two tokens; None with fewer than two."""
        if self.first_token is None or self.last_token is None or self.num_generated < 2:
            return None
        return (self.last_token - self.first_token) / (self.num_generated - 1)
