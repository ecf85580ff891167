"""`POST /v1/chat/completions`: one answer, whole or as a stream of chunks."""

import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace

from starlette.responses import Response

from skipserve.api.admission import Place
from skipserve.api.answer import Piece, Tally
from skipserve.api.convert import Prepared
from skipserve.api.report import usage
from skipserve.api.serving import Serving
from skipserve.api.streaming import EventStream
from skipserve.api.wire import (
    AnswerMessage,
    ChatChunk,
    ChatForm,
    ChatReply,
    Choice,
    ChoiceLogprobs,
    ChunkChoice,
    Delta,
    RequestMetrics,
    Role,
)
from skipserve.errors import SkipserveError


@dataclass(frozen=True)
class Chat:
    """One request on its way to one answer.

    Attributes:
        serving: the server.
        form: what was asked.
        prepared: the same, for the engine.
        place: where it waits for its first token.
        tally: grows while the answer does.
        created: when the request came, in seconds since 1970.
    """

    serving: Serving
    form: ChatForm
    prepared: Prepared
    place: Place
    tally: Tally
    created: int

    async def respond(self, on_error: Callable[[SkipserveError], None]) -> Response:
        """Return the reply, or the stream that will be it; `on_error` hears why a stream fails."""
        headers = {"X-Skip-Policy": self.prepared.policy.name}
        if self.form.stream:
            seconds = self.serving.keep_alive_seconds
            return EventStream(self._chunks(), headers, seconds, on_error)
        reply = await self._reply()
        return Response(reply.model_dump_json(), 200, headers, media_type="application/json")

    async def _reply(self) -> ChatReply:
        async with contextlib.aclosing(self._pieces()) as pieces:
            parts = [piece async for piece in pieces]
        finish_reason = parts[-1].finish_reason
        assert finish_reason is not None
        whole = Piece(
            text="".join(part.text for part in parts),
            logprobs=tuple(token for part in parts for token in part.logprobs),
            finish_reason=finish_reason,
        )
        return ChatReply(
            id=self.prepared.request.id,
            created=self.created,
            model=self._model,
            choices=(
                Choice(
                    message=AnswerMessage(content=whole.text),
                    logprobs=self._logprobs(whole),
                    finish_reason=finish_reason.value,
                ),
            ),
            usage=usage(self.prepared.request, self.tally),
            metrics=self._metrics(),
        )

    async def _chunks(self) -> AsyncGenerator[str, None]:
        """Yield the chunks of a stream as JSON."""
        wants_usage = bool(self.form.stream_options and self.form.stream_options.include_usage)
        yield self._chunk(ChunkChoice(delta=Delta(role=Role.ASSISTANT, content="")))
        async with contextlib.aclosing(self._pieces()) as pieces:
            async for piece in pieces:
                if piece.text or piece.logprobs:
                    yield self._chunk(self._delta(replace(piece, finish_reason=None)))
                if piece.finish_reason is not None:
                    last = self._delta(Piece("", (), piece.finish_reason))
                    yield self._chunk(last, None if wants_usage else self._metrics())
        if wants_usage:
            yield self._chunk_of(
                choices=(), usage=usage(self.prepared.request, self.tally), metrics=self._metrics()
            )

    def _pieces(self) -> AsyncGenerator[Piece, None]:
        return self.serving.answer(self.prepared, self.place, self.tally)

    @property
    def _model(self) -> str:
        return self.form.model or self.serving.converter.model_name

    def _metrics(self) -> RequestMetrics:
        prepared, tally = self.prepared, self.tally
        metrics = self.serving.reporter.metrics(prepared.request, prepared.policy, tally)
        tally.skip = metrics.skip
        return metrics

    def _logprobs(self, piece: Piece) -> ChoiceLogprobs | None:
        return ChoiceLogprobs(content=piece.logprobs) if self.prepared.has_logprobs else None

    def _delta(self, piece: Piece) -> ChunkChoice:
        return ChunkChoice(
            delta=Delta(content=piece.text or None),
            logprobs=self._logprobs(piece) if piece.logprobs else None,
            finish_reason=None if piece.finish_reason is None else piece.finish_reason.value,
        )

    def _chunk(self, choice: ChunkChoice, metrics: RequestMetrics | None = None) -> str:
        return self._chunk_of(choices=(choice,), metrics=metrics)

    def _chunk_of(self, **fields: object) -> str:
        head = {"id": self.prepared.request.id, "created": self.created, "model": self._model}
        return ChatChunk.model_validate(head | fields).model_dump_json()
