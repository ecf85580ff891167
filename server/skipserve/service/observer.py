"""Who hears of an engine's work. The service does not know what comes of it."""

from collections.abc import Callable

from skipserve.engine.reports import (
    EngineState,
    FailureKind,
    Ready,
    Retry,
    StepOutput,
    StepReport,
)


class Observer:
    """Hears what an engine does. This one takes no notice."""

    def watch_engine(
        self,
        is_ready: Callable[[], bool],
        num_running: Callable[[], int],
        num_waiting: Callable[[], int],
        pid: Callable[[], int | None],
    ) -> None:
        """Take note of what can be asked at any time: of the engine, its requests, its process."""

    def record_ready(self, ready: Ready) -> None:
        """Hear what was loaded."""

    def record_state(self, state: EngineState) -> None:
        """Hear how the engine stands."""

    def record_step(self, report: StepReport) -> None:
        """Hear what a step did."""

    def record_output(self, policy_name: str, output: StepOutput) -> None:
        """Hear what a step gave one request."""

    def record_failure(self, kind: FailureKind) -> None:
        """Hear that a request failed."""

    def record_retry(self, reason: Retry) -> None:
        """Hear that a request goes on in another engine."""
