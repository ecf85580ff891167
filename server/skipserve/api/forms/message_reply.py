"""The replies, events and errors of `POST /v1/messages`, in Anthropic's form."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from skipserve.api.forms.errors import message_error
from skipserve.api.replies import Reply, Sparse
from skipserve.api.streaming import event
from skipserve.api.usage import request_metrics
from skipserve.api.wire import RequestMetrics
from skipserve.asking.account import Account
from skipserve.asking.answer import Piece, WholeAnswer
from skipserve.engine.reports import FinishReason
from skipserve.errors import SkipserveError

_STOP_REASONS = {FinishReason.STOP: "end_turn", FinishReason.LENGTH: "max_tokens"}


class MessageUsage(Reply):
    """Tokens read and written. Those that were cached are not among the `input_tokens`."""

    input_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int
    output_tokens: int


class TextBlock(Reply):
    """A piece of the answer's text."""

    type: Literal["text"] = "text"
    text: str


class MessageReply(Reply):
    """The reply of `POST /v1/messages`."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: tuple[TextBlock, ...]
    stop_reason: str | None
    stop_sequence: str | None
    usage: MessageUsage
    metrics: RequestMetrics | None = Field(description="Null where the answer only begins.")


class TokenCount(Reply):
    """The reply of `POST /v1/messages/count_tokens`."""

    input_tokens: int


class _TextDelta(Reply):
    type: Literal["text_delta"] = "text_delta"
    text: str


class _MessageDelta(Reply):
    stop_reason: str
    stop_sequence: str | None


class _Event(Sparse):
    """An event; `type` is its name too."""

    type: str
    message: MessageReply | None = None
    index: int | None = None
    content_block: TextBlock | None = None
    delta: _TextDelta | _MessageDelta | None = None
    usage: MessageUsage | None = None
    metrics: RequestMetrics | None = None


def _event(kind: str, **fields: object) -> str:
    return event(_Event.model_validate({"type": kind} | fields).model_dump_json(), kind)


@dataclass(frozen=True)
class MessageWriter:
    """Writes one answer, whole or as the events of a stream; `account` is the question's."""

    account: Account
    sign_of_life: str = field(default=_event("ping"), init=False)
    closing: tuple[str, ...] = field(default=(), init=False)

    def reply(self, answers: Sequence[WholeAnswer]) -> MessageReply:
        """Return the reply that is a whole answer."""
        (answer,) = answers
        return self._message(
            content=(TextBlock(text=answer.text),),
            stop_reason=_stop_reason(answer),
            stop_sequence=answer.stop,
            metrics=request_metrics(self.account),
        )

    def opening(self) -> list[str]:
        """Return the events that come before the answer."""
        begun = self._message(content=(), stop_reason=None, stop_sequence=None, metrics=None)
        block = TextBlock(text="")
        return [
            _event("message_start", message=begun),
            _event("content_block_start", index=0, content_block=block),
            self.sign_of_life,
        ]

    def chunks(self, piece: Piece) -> list[str]:
        """Return the events that a piece of the answer becomes."""
        events = []
        if piece.text:
            delta = _TextDelta(text=piece.text)
            events.append(_event("content_block_delta", index=0, delta=delta))
        return events if piece.finish_reason is None else events + self._ending(piece)

    def failure(self, error: SkipserveError) -> tuple[str, ...]:
        """Return the event that tells of an error."""
        return (event(message_error(error).model_dump_json(), "error"),)

    def _ending(self, piece: Piece) -> list[str]:
        delta = _MessageDelta(stop_reason=_stop_reason(piece), stop_sequence=piece.stop)
        metrics = request_metrics(self.account)
        return [
            _event("content_block_stop", index=0),
            _event("message_delta", delta=delta, usage=self._usage(), metrics=metrics),
            _event("message_stop"),
        ]

    def _message(self, **fields: object) -> MessageReply:
        prepared = self.account.prepared
        head = {"id": prepared.request.id, "model": prepared.model, "usage": self._usage()}
        return MessageReply.model_validate(head | fields)

    def _usage(self) -> MessageUsage:
        num_prompt = self.account.prepared.request.num_prompt
        num_cached = self.account.num_told_cached
        return MessageUsage(
            input_tokens=num_prompt - num_cached,
            cache_read_input_tokens=num_cached,
            output_tokens=self.account.num_generated,
        )


def _stop_reason(piece: Piece) -> str:
    assert piece.finish_reason is not None
    return "stop_sequence" if piece.stop is not None else _STOP_REASONS[piece.finish_reason]
