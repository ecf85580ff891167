"""What the routes work with: everything that was built once for the served model."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry
from starlette.requests import Request as HttpRequest

from skipserve.api.admission import Admission, Place
from skipserve.api.answer import AnswerText, Piece, Tally
from skipserve.api.convert import Converter, Prepared
from skipserve.api.report import Reporter, num_visual
from skipserve.engine.reports import FinishReason, Stage, StepOutput
from skipserve.engine.request import Request
from skipserve.metrics.registry import ServerMetrics
from skipserve.service.service import Service


@dataclass(frozen=True)
class Serving:
    """The server behind the routes.

    Attributes:
        service: the engine.
        converter: forms to requests.
        reporter: what replies say about the work.
        admission: who may come in.
        metrics: where requests are counted.
        registry: what `/metrics` shows.
        keep_alive_seconds: between signs of life in a stream.
        created: when the server started, in seconds since 1970.
    """

    service: Service
    converter: Converter
    reporter: Reporter
    admission: Admission
    metrics: ServerMetrics
    registry: CollectorRegistry
    keep_alive_seconds: float
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def num_cache_tokens(self) -> int | None:
        """Positions that the engine's cache holds; None while it loads."""
        return self.service.ready.num_cache_tokens if self.service.ready else None

    async def answer(
        self, prepared: Prepared, place: Place, tally: Tally
    ) -> AsyncGenerator[Piece, None]:
        """Run a request and yield its answer; closing the generator cancels it.

        Args:
            prepared: what to run.
            place: left the queue with the first token.
            tally: grows with each step.

        Raises:
            SkipserveError: the engine refused the request, failed or died.
        """
        text = AnswerText(self.converter.prompts.tokenizer, prepared.stops, prepared.has_logprobs)
        self._record_start(prepared)
        try:
            async with contextlib.aclosing(self.service.stream(prepared.request)) as outputs:
                async for output in outputs:
                    place.leave_queue()
                    self._record(output, prepared.request, tally)
                    piece = text.push(output)
                    tally.finish_reason = piece.finish_reason
                    yield piece
                    if piece.finish_reason is not None:
                        break
        except (asyncio.CancelledError, GeneratorExit):
            tally.finish_reason = tally.finish_reason or FinishReason.CANCELLED
            raise
        finally:
            tally.stage_seconds |= prepared.stage_seconds | {Stage.DETOKENIZE: text.seconds}
            self.metrics.record_stage(Stage.DETOKENIZE, text.seconds)
            self.metrics.record_request(
                prepared.policy.name, tally.finish_reason, tally.duration_seconds
            )

    def _record_start(self, prepared: Prepared) -> None:
        request, num_rows = prepared.request, num_visual(prepared.request)
        self.metrics.record_prompt(
            prepared.policy.name, request.num_prompt - num_rows, num_rows, len(request.images)
        )
        for stage, seconds in prepared.stage_seconds.items():
            self.metrics.record_stage(stage, seconds)

    def _record(self, output: StepOutput, request: Request, tally: Tally) -> None:
        last_token = tally.last_token
        tally.add(output)
        if output.token_id is None or tally.last_token is None:
            return
        name, metrics = request.policy_name, self.metrics
        if last_token is None:
            metrics.record_first_token(name, tally.last_token - tally.arrived)
            metrics.record_prefix_use(name, request.num_prompt, output.num_cached_tokens)
        else:
            metrics.record_inter_token(name, tally.last_token - last_token)


def get_serving(request: HttpRequest) -> Serving:
    """Return what the app was built with; for FastAPI's `Depends`."""
    serving: Serving = request.app.state.serving
    return serving
