"""The replies and events of `POST /v1/responses`, in OpenAI's newer form."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import Any, Literal

from pydantic import BaseModel, Field

from skipserve.api.forms.response_form import ResponseForm
from skipserve.api.replies import Reply, Sparse
from skipserve.api.streaming import event
from skipserve.api.usage import request_metrics, usage
from skipserve.api.wire import RequestMetrics, TokenDetails
from skipserve.asking.account import Account
from skipserve.asking.answer import Piece, TokenLogprobs, WholeAnswer
from skipserve.asking.tools import CallPiece
from skipserve.engine.reports import FinishReason
from skipserve.errors import SkipserveError


class OutputText(Reply):
    """The text of an answer."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: tuple[()] = ()
    logprobs: tuple[TokenLogprobs, ...] = ()


class OutputMessage(Reply):
    """An answer; a later request may have it among its input."""

    type: Literal["message"] = "message"
    id: str
    status: str
    role: Literal["assistant"] = "assistant"
    content: tuple[OutputText, ...]


class FunctionCall(Reply):
    """A call that an answer makes; a later request may have it among its input."""

    type: Literal["function_call"] = "function_call"
    id: str
    call_id: str
    name: str
    arguments: str = Field(description="A JSON object as text.")
    status: str


class OutputDetails(Reply):
    """Of the tokens written, those of reasoning: none."""

    reasoning_tokens: int = 0


class ResponseUsage(Reply):
    """Tokens read and written; `output_tokens` counts the end token too."""

    input_tokens: int
    input_tokens_details: TokenDetails
    output_tokens: int
    output_tokens_details: OutputDetails = OutputDetails()
    total_tokens: int


class IncompleteDetails(Reply):
    """Why an answer ended early."""

    reason: Literal["max_output_tokens"] = "max_output_tokens"


class ResponseError(Reply):
    """Why there is no whole answer."""

    code: Literal["server_error"] = "server_error"
    message: str


class TextSettings(Reply):
    """What the answer's text is held to, as the request said."""

    format: dict[str, Any]


class ResponseReply(Reply):
    """The reply of `POST /v1/responses`; nothing of it is stored."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: str
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    max_output_tokens: int | None
    model: str
    output: tuple[OutputMessage | FunctionCall, ...] = ()
    parallel_tool_calls: bool
    previous_response_id: None = None
    store: Literal[False] = False
    temperature: float
    text: TextSettings
    tool_choice: str | dict[str, str]
    tools: tuple[dict[str, Any], ...]
    top_logprobs: int
    top_p: float
    truncation: Literal["disabled"] = "disabled"
    usage: ResponseUsage | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    metrics: RequestMetrics | None = None


class _Event(Sparse):
    """An event; `type` is its name too."""

    type: str
    sequence_number: int
    response: ResponseReply | None = None
    output_index: int | None = None
    item: OutputMessage | FunctionCall | None = None
    item_id: str | None = None
    content_index: int | None = None
    part: OutputText | None = None
    delta: str | None = None
    text: str | None = None
    name: str | None = None
    arguments: str | None = None
    logprobs: tuple[TokenLogprobs, ...] | None = None
    code: str | None = None
    message: str | None = None
    param: str | None = None


class ResponseWriter:
    """Writes one answer, whole or as the numbered events of a stream.

    Args:
        account: of the question.
        created: when it came, in seconds since 1970.
        form: the request, of which the reply repeats some.
    """

    sign_of_life: str = ": keep-alive\n\n"
    closing: tuple[str, ...] = ()

    def __init__(self, account: Account, created: int, form: ResponseForm) -> None:
        self._account = account
        self._created = created
        self._echo = _echo(form)
        self._item_id = "msg_" + account.prepared.request.id.removeprefix("resp_")
        self._numbers = count()
        self._pieces: list[Piece] = []
        # Items that a stream has begun, and whether the last one is open.
        self._num_items = 0
        self._is_open = False

    def reply(self, answers: Sequence[WholeAnswer]) -> ResponseReply:
        """Return the reply that is a whole answer."""
        (answer,) = answers
        is_whole = answer.finish_reason is not FinishReason.LENGTH
        status = "completed" if is_whole else "incomplete"
        return self._reply(
            status=status,
            incomplete_details=None if is_whole else IncompleteDetails(),
            output=self._items(answer, status),
            usage=self._usage(),
            metrics=request_metrics(self._account),
        )

    def opening(self) -> list[str]:
        """Return the events that come before the answer."""
        begun = self._reply(status="in_progress")
        events = [
            self._event("response.created", response=begun),
            self._event("response.in_progress", response=begun),
        ]
        # An answer that may be calls alone need not have a text.
        has_calls = self._account.prepared.generation.call_form is not None
        return events if has_calls else events + self._begin_message()

    def chunks(self, piece: Piece) -> list[str]:
        """Return the events that a piece of the answer becomes."""
        self._pieces.append(piece)
        events = []
        if piece.text or (piece.logprobs and self._is_open):
            if not self._num_items:
                events += self._begin_message()
            events.append(
                self._of_part(
                    "response.output_text.delta", delta=piece.text, logprobs=piece.logprobs
                )
            )
        for call in piece.calls:
            events += self._call(call)
        return events if piece.finish_reason is None else events + self._ending()

    def failure(self, error: SkipserveError) -> list[str]:
        """Return the events that tell of an error."""
        told = ResponseError(message=error.told)
        return [
            self._event("error", code=error.type, message=error.told, param=error.param),
            self._event("response.failed", response=self._reply(status="failed", error=told)),
        ]

    def _begin_message(self) -> list[str]:
        self._num_items, self._is_open = 1, True
        item = self._message("in_progress")
        return [
            self._event("response.output_item.added", output_index=0, item=item),
            self._of_part("response.content_part.added", part=OutputText(text="")),
        ]

    def _call(self, call: CallPiece) -> list[str]:
        """Return the events of a piece of a call, which ends what was open before it."""
        events = []
        if call.is_first:
            events += self._close()
            self._num_items, self._is_open = self._num_items + 1, True
            item = _function_call(replace(call, arguments=""), "in_progress")
            place = self._num_items - 1
            events.append(self._event("response.output_item.added", output_index=place, item=item))
        if call.arguments:
            kind = "response.function_call_arguments.delta"
            events.append(self._of_call(kind, call, delta=call.arguments))
        return events

    def _close(self, status: str = "completed") -> list[str]:
        """Return the events that end the item that is open."""
        if not self._is_open:
            return []
        self._is_open = False
        place, answer = self._num_items - 1, _so_far(self._pieces)
        items = self._items(answer, status)
        item = items[place]
        if isinstance(item, OutputMessage):
            (part,) = item.content
            events = [
                self._of_part("response.output_text.done", text=part.text, logprobs=part.logprobs),
                self._of_part("response.content_part.done", part=part),
            ]
        else:
            call = answer.calls[place - len(items)]
            told = {"name": call.name, "arguments": call.arguments}
            events = [self._of_call("response.function_call_arguments.done", call, **told)]
        return [*events, self._event("response.output_item.done", output_index=place, item=item)]

    def _ending(self) -> list[str]:
        reply = self.reply([WholeAnswer.join(self._pieces)])
        events = [] if self._num_items else self._begin_message()
        events += self._close(reply.status)
        return [*events, self._event(f"response.{reply.status}", response=reply)]

    def _items(self, answer: WholeAnswer, status: str) -> tuple[OutputMessage | FunctionCall, ...]:
        """Return what an answer consists of: its text, unless it is calls alone, and its calls."""
        calls = tuple(_function_call(call, status) for call in answer.calls)
        if calls and not answer.text:
            return calls
        return (self._message(status, _output_text(answer)), *calls)

    def _message(self, status: str, *content: OutputText) -> OutputMessage:
        return OutputMessage(id=self._item_id, status=status, content=content)

    def _reply(self, **fields: object) -> ResponseReply:
        prepared = self._account.prepared
        head = {
            "id": prepared.request.id,
            "created_at": self._created,
            "max_output_tokens": prepared.generation.max_tokens,
            "model": prepared.model,
            "temperature": prepared.generation.temperature,
            "top_logprobs": prepared.generation.num_top_logprobs or 0,
            "top_p": prepared.generation.top_p,
        }
        return ResponseReply.model_validate(self._echo | head | fields)

    def _usage(self) -> ResponseUsage:
        told = usage(self._account)
        return ResponseUsage(
            input_tokens=told.prompt_tokens,
            input_tokens_details=told.prompt_tokens_details,
            output_tokens=told.completion_tokens,
            total_tokens=told.total_tokens,
        )

    def _of_part(self, kind: str, **fields: object) -> str:
        place = {"item_id": self._item_id, "output_index": 0, "content_index": 0}
        return self._event(kind, **place | fields)

    def _of_call(self, kind: str, call: CallPiece, **fields: object) -> str:
        place = {"item_id": _item_id(call), "output_index": self._num_items - 1}
        return self._event(kind, **place | fields)

    def _event(self, kind: str, **fields: object) -> str:
        told: BaseModel = _Event.model_validate(
            {"type": kind, "sequence_number": next(self._numbers)} | fields
        )
        return event(told.model_dump_json(), kind)


def _echo(form: ResponseForm) -> dict[str, Any]:
    """Return what a reply repeats of a request."""
    said = form.text and form.text.format
    choice = form.tool_choice or "auto"
    return {
        "instructions": form.instructions,
        "parallel_tool_calls": form.parallel_tool_calls is not False,
        "text": {"format": _plain(said) if said else {"type": "text"}},
        "tool_choice": choice if isinstance(choice, str) else _plain(choice),
        "tools": [_plain(tool) for tool in form.tools or ()],
    }


def _plain(form: BaseModel) -> dict[str, Any]:
    return form.model_dump(mode="json", by_alias=True, exclude_none=True)


def _so_far(pieces: Sequence[Piece]) -> WholeAnswer:
    """Return what there is of an answer that may not be whole."""
    last = replace(pieces[-1], finish_reason=pieces[-1].finish_reason or FinishReason.STOP)
    return WholeAnswer.join([*pieces[:-1], last])


def _item_id(call: CallPiece) -> str:
    return "fc_" + call.id.removeprefix("call_")


def _function_call(call: CallPiece, status: str) -> FunctionCall:
    return FunctionCall(
        id=_item_id(call),
        call_id=call.id,
        name=call.name,
        arguments=call.arguments,
        status=status,
    )


def _output_text(answer: WholeAnswer) -> OutputText:
    return OutputText(text=answer.text, logprobs=answer.logprobs)
