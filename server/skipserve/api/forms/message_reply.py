"""The replies, events and errors of `POST /v1/messages`, in Anthropic's form."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

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


class ToolUseBlock(Reply):
    """A call that the answer makes; a later request may have it among its messages."""

    type: Literal["tool_use"] = "tool_use"
    id: str
    name: str
    input: dict[str, Any]


class MessageReply(Reply):
    """The reply of `POST /v1/messages`."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: tuple[TextBlock | ToolUseBlock, ...] = Field(
        description="A call that was cut off is left out: its input is not whole."
    )
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


class _InputDelta(Reply):
    type: Literal["input_json_delta"] = "input_json_delta"
    partial_json: str


class _MessageDelta(Reply):
    stop_reason: str
    stop_sequence: str | None


class _Event(Sparse):
    """An event; `type` is its name too."""

    type: str
    message: MessageReply | None = None
    index: int | None = None
    content_block: TextBlock | ToolUseBlock | None = None
    delta: _TextDelta | _InputDelta | _MessageDelta | None = None
    usage: MessageUsage | None = None
    metrics: RequestMetrics | None = None


def _event(kind: str, **fields: object) -> str:
    return event(_Event.model_validate({"type": kind} | fields).model_dump_json(), kind)


@dataclass
class MessageWriter:
    """Writes one answer, whole or as the events of a stream; `account` is the question's."""

    account: Account
    sign_of_life: str = field(default=_event("ping"), init=False)
    closing: tuple[str, ...] = field(default=(), init=False)
    # Blocks that a stream has begun, the last of which is open.
    _num_blocks: int = field(default=0, init=False)

    def reply(self, answers: Sequence[WholeAnswer]) -> MessageReply:
        """Return the reply that is a whole answer."""
        (answer,) = answers
        return self._message(
            content=_blocks(answer),
            stop_reason=_stop_reason(answer),
            stop_sequence=answer.stop,
            metrics=request_metrics(self.account),
        )

    def opening(self) -> list[str]:
        """Return the events that come before the answer."""
        begun = self._message(content=(), stop_reason=None, stop_sequence=None, metrics=None)
        # An answer that may be calls alone need not have a text.
        has_calls = self.account.prepared.generation.call_form is not None
        block = [] if has_calls else self._begin(TextBlock(text=""))
        return [_event("message_start", message=begun), *block, self.sign_of_life]

    def chunks(self, piece: Piece) -> list[str]:
        """Return the events that a piece of the answer becomes."""
        events = []
        if piece.text:
            if not self._num_blocks:
                events += self._begin(TextBlock(text=""))
            events.append(self._delta(_TextDelta(text=piece.text)))
        for call in piece.calls:
            if call.is_first:
                events += self._begin(ToolUseBlock(id=call.id, name=call.name, input={}))
            if call.arguments:
                events.append(self._delta(_InputDelta(partial_json=call.arguments)))
        return events if piece.finish_reason is None else events + self._ending(piece)

    def failure(self, error: SkipserveError) -> tuple[str, ...]:
        """Return the event that tells of an error."""
        return (event(message_error(error).model_dump_json(), "error"),)

    def _ending(self, piece: Piece) -> list[str]:
        delta = _MessageDelta(stop_reason=_stop_reason(piece), stop_sequence=piece.stop)
        metrics = request_metrics(self.account)
        begun = [] if self._num_blocks else self._begin(TextBlock(text=""))
        return [
            *begun,
            _event("content_block_stop", index=self._num_blocks - 1),
            _event("message_delta", delta=delta, usage=self._usage(), metrics=metrics),
            _event("message_stop"),
        ]

    def _begin(self, block: TextBlock | ToolUseBlock) -> list[str]:
        """Return the events that end the block before, if there is one, and begin another."""
        ended = [_event("content_block_stop", index=self._num_blocks - 1)] * bool(self._num_blocks)
        self._num_blocks += 1
        begun = _event("content_block_start", index=self._num_blocks - 1, content_block=block)
        return [*ended, begun]

    def _delta(self, delta: _TextDelta | _InputDelta) -> str:
        return _event("content_block_delta", index=self._num_blocks - 1, delta=delta)

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


def _blocks(answer: WholeAnswer) -> tuple[TextBlock | ToolUseBlock, ...]:
    calls = [
        ToolUseBlock(id=call.id, name=call.name, input=json.loads(call.arguments))
        for call in (answer.calls if answer.ends_with_calls else answer.calls[:-1])
    ]
    text = () if calls and not answer.text else (TextBlock(text=answer.text),)
    return (*text, *calls)


def _stop_reason(piece: Piece) -> str:
    assert piece.finish_reason is not None
    if piece.ends_with_calls:
        return "tool_use"
    return "stop_sequence" if piece.stop is not None else _STOP_REASONS[piece.finish_reason]
