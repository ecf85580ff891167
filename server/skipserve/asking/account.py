"""The account of a question: who asks, what runs for it, what that took, and how it ended."""

import time
from dataclasses import dataclass, field

from skipserve.asking.question import Prepared
from skipserve.asking.report import Reporter, SkipReport
from skipserve.budgets.accounts import Holding
from skipserve.budgets.client import Use
from skipserve.engine.reports import FinishReason, Stage, StepOutput
from skipserve_policies.catalog import AUTO_NAME


@dataclass(eq=False, repr=False)
class ChoiceAccount:
    """What is known of one answer to a question.

    Attributes:
        num_generated: tokens sampled, the end token among them.
        num_cached: leading prompt rows that were not computed.
        first_token, last_token: when they came.
        finish_reason: why it ended; None until then.
    """

    num_generated: int = 0
    num_cached: int = 0
    first_token: float | None = None
    last_token: float | None = None
    finish_reason: FinishReason | None = None

    def take(self, output: StepOutput) -> None:
        """Count a step."""
        self.num_cached = max(self.num_cached, output.num_cached_tokens)
        if output.token_id is None:
            return
        self.num_generated += 1
        self.last_token = time.perf_counter()
        if self.first_token is None:
            self.first_token = self.last_token


@dataclass(eq=False, repr=False)
class Account:
    """What is known of a question from its arrival to its end.

    Attributes:
        asked: when the question was there, whole; like all times here, on the clock of
            `perf_counter`.
        choices: its answers, of which there is one unless more are wanted.
        tells_cached: whether whoever asks may hear of cached rows: it must not learn what others
            ask.
        is_given_up: whether whoever asked ended it, or the time that it had.
        has_failed: whether something else did.
        stage_seconds: time spent in each stage, once it is over; with several answers, by one.
        finish_reason: why its first answer ended; None until all have, or after an error.
        skip: what its work cost, once its answers are whole.
        use: what it took, once it is over.
        spending: what that is paid from; None where nobody pays.
        engine: which of several engines ran it, the last one; "" where there is but one.
    """

    asked: float = field(default_factory=time.perf_counter)
    choices: list[ChoiceAccount] = field(default_factory=lambda: [ChoiceAccount()])
    tells_cached: bool = True
    is_given_up: bool = False
    has_failed: bool = False
    stage_seconds: dict[Stage, float] = field(default_factory=dict)
    finish_reason: FinishReason | None = None
    skip: SkipReport | None = None
    use: Use | None = None
    spending: Holding | None = None
    engine: str = ""
    _prepared: Prepared | None = field(default=None, init=False)

    def sibling(self) -> "Account":
        """Return the account of another question that came with this one."""
        return Account(self.asked, spending=self.spending)

    def ask(self) -> None:
        """Note that the question is there."""
        self.asked = time.perf_counter()

    def start(self, prepared: Prepared) -> None:
        """Note what runs for it."""
        self._prepared = prepared
        self.choices = [ChoiceAccount() for _ in range(prepared.generation.num_choices)]

    @property
    def has_started(self) -> bool:
        """Whether it is known what runs for it."""
        return self._prepared is not None

    @property
    def prepared(self) -> Prepared:
        """What runs for it; there is nothing before `start`."""
        assert self._prepared is not None
        return self._prepared

    def take(self, output: StepOutput, choice: int = 0) -> None:
        """Count a step of an answer."""
        if output.stage_seconds:
            self.stage_seconds |= output.stage_seconds
        self.choices[choice].take(output)

    def finish(self, reason: FinishReason, reporter: Reporter, choice: int = 0) -> None:
        """Note why an answer is whole, and once all are, what that cost."""
        self.choices[choice].finish_reason = reason
        if all(it.finish_reason is not None for it in self.choices):
            self.finish_reason = self.choices[0].finish_reason
            self.skip = self._report(reporter)

    def settle(self, reporter: Reporter) -> None:
        """Note what it took, whole or not, and pay for it.

        Without a token nothing is known of what was computed. Whoever gave it up then pays for the
        prompt: else it could have one computed after the other for nothing.
        """
        self.use = Use()
        if self.num_generated or self.is_given_up:
            report = self.skip or self._report(reporter)
            self.use = Use(
                prompt_tokens=self.prepared.request.num_prompt,
                cached_tokens=self.num_told_cached,
                completion_tokens=self.num_generated,
                computed_flops=report.planned_flops,
                full_flops=report.full_flops,
            )
        if self.spending is not None:
            self.spending.settle(self.use)

    def _report(self, reporter: Reporter) -> SkipReport:
        """Report on the answers that have begun; on the first, where none has."""
        begun = [it for it in self.choices if it.num_generated] or self.choices[:1]
        num_cached = [it.num_cached for it in begun]
        if not self.tells_cached:
            # The others found what one of them had computed, whatever others ask.
            num_cached[num_cached.index(min(num_cached))] = 0
        generated = (it.num_generated for it in begun)
        first, *others = zip(generated, num_cached, strict=True)
        prepared = self.prepared
        report = reporter.report(prepared.request, prepared.policy, *first, *others)
        if prepared.chosen is None:
            return report
        told = {"requested": AUTO_NAME, "chosen_because": prepared.chosen.because}
        return report.model_copy(update=told)

    @property
    def num_generated(self) -> int:
        """Tokens sampled for all answers, end tokens among them."""
        return sum(it.num_generated for it in self.choices)

    @property
    def num_cached(self) -> int:
        """Leading prompt rows that were not computed for any of the answers."""
        return self.choices[0].num_cached

    @property
    def num_told_cached(self) -> int:
        """Leading prompt rows that, as whoever asks is told and pays, were not computed."""
        return self.num_cached if self.tells_cached else 0

    @property
    def first_token(self) -> float | None:
        """When the first token of any answer came."""
        return min((it.first_token for it in self.choices if it.first_token), default=None)

    @property
    def last_token(self) -> float | None:
        """When the last token of any answer came, so far."""
        return max((it.last_token for it in self.choices if it.last_token), default=None)

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
        """Mean time between two tokens of an answer; None where none has two."""
        waits = [
            (it.last_token - it.first_token, it.num_generated - 1)
            for it in self.choices
            if it.first_token and it.last_token and it.num_generated > 1
        ]
        return sum(wait for wait, _ in waits) / sum(count for _, count in waits) if waits else None
