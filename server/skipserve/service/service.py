"""What the front end asks of an engine, wherever it runs."""

from collections.abc import AsyncGenerator, Callable
from typing import Protocol

from skipserve.engine.reports import Ready, StepOutput
from skipserve.engine.request import Request
from skipserve.errors import EngineError

# Hears that a request has been taken, and by which of several engines; "" where there is but one.
OnTaken = Callable[[str], None]


class Service(Protocol):
    """An engine that takes requests from a front end."""

    @property
    def ready(self) -> Ready | None:
        """What was loaded; None until then."""

    @property
    def failure(self) -> EngineError | None:
        """Why the engine is gone, unless it was closed; None while it lives."""

    @property
    def is_alive(self) -> bool:
        """Whether it lives and, once it is loaded, has lately shown progress."""

    @property
    def why_not_ready(self) -> str | None:
        """Why it takes no requests, in words for anyone; None while it takes them."""

    @property
    def num_running(self) -> int:
        """Requests under way."""

    @property
    def num_waiting(self) -> int:
        """Requests that were handed over and do not run."""

    async def start(self) -> None:
        """Begin to load the model, and return at once."""

    def stream(
        self, request: Request, on_taken: OnTaken | None = None
    ) -> AsyncGenerator[StepOutput, None]:
        """Run a request and yield what each step gives it; closing the generator cancels it.

        Args:
            request: what is asked.
            on_taken: hears when it has been taken, before its first step; again where it goes on
                elsewhere.

        Raises:
            SkipserveError: the request is refused or has failed, or the engine is not there.
        """

    async def wait_ready(self) -> None:
        """Return when the model is loaded.

        Raises:
            EngineError: the engine is gone before that.
        """

    async def wait_closed(self) -> None:
        """Return when the engine is gone."""

    async def close(self, grace_seconds: float) -> None:
        """Refuse new requests, let those under way finish within the grace, and let go."""
