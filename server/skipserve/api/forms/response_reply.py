"""The replies and events of `POST /v1/responses`, in OpenAI's newer form."""

from collections.abc import Sequence
from itertools import count
from typing import Literal

from pydantic import BaseModel, Field

from skipserve.api.replies import Reply, Sparse
from skipserve.api.streaming import event
from skipserve.api.usage import request_metrics, usage
from skipserve.api.wire import RequestMetrics, TokenDetails
from skipserve.asking.account import Account
from skipserve.asking.answer import Piece, TokenLogprobs, WholeAnswer
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


class TextFormat(Reply):
    """Free text."""

    type: Literal["text"] = "text"


class TextSettings(Reply):
    """What the answer's text is like."""

    format: TextFormat = TextFormat()


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
    output: tuple[OutputMessage, ...] = ()
    parallel_tool_calls: bool = False
    previous_response_id: None = None
    store: Literal[False] = False
    temperature: float
    text: TextSettings = TextSettings()
    tool_choice: Literal["none"] = "none"
    tools: tuple[()] = ()
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
    item: OutputMessage | None = None
    item_id: str | None = None
    content_index: int | None = None
    part: OutputText | None = None
    delta: str | None = None
    text: str | None = None
    logprobs: tuple[TokenLogprobs, ...] | None = None
    code: str | None = None
    message: str | None = None
    param: str | None = None


class ResponseWriter:
    """Writes one answer, whole or as the numbered events of a stream.

    Args:
        account: of the question.
        created: when it came, in seconds since 1970.
        instructions: those of the request, which the reply repeats.
    """

    sign_of_life: str = ": keep-alive\n\n"
    closing: tuple[str, ...] = ()

    def __init__(self, account: Account, created: int, instructions: str | None) -> None:
        self._account = account
        self._created = created
        self._instructions = instructions
        self._item_id = "msg_" + account.prepared.request.id.removeprefix("resp_")
        self._numbers = count()
        self._pieces: list[Piece] = []

    def reply(self, answers: Sequence[WholeAnswer]) -> ResponseReply:
        """Return the reply that is a whole answer."""
        (answer,) = answers
        is_whole = answer.finish_reason is not FinishReason.LENGTH
        status = "completed" if is_whole else "incomplete"
        return self._reply(
            status=status,
            incomplete_details=None if is_whole else IncompleteDetails(),
            output=(self._message(status, _output_text(answer)),),
            usage=self._usage(),
            metrics=request_metrics(self._account),
        )

    def opening(self) -> list[str]:
        """Return the events that come before the answer."""
        begun = self._reply(status="in_progress")
        item = self._message("in_progress")
        return [
            self._event("response.created", response=begun),
            self._event("response.in_progress", response=begun),
            self._event("response.output_item.added", output_index=0, item=item),
            self._of_part("response.content_part.added", part=OutputText(text="")),
        ]

    def chunks(self, piece: Piece) -> list[str]:
        """Return the events that a piece of the answer becomes."""
        self._pieces.append(piece)
        events = []
        if piece.text or piece.logprobs:
            events.append(
                self._of_part(
                    "response.output_text.delta", delta=piece.text, logprobs=piece.logprobs
                )
            )
        return events if piece.finish_reason is None else events + self._ending()

    def failure(self, error: SkipserveError) -> list[str]:
        """Return the events that tell of an error."""
        told = ResponseError(message=error.told)
        return [
            self._event("error", code=error.type, message=error.told, param=error.param),
            self._event("response.failed", response=self._reply(status="failed", error=told)),
        ]

    def _ending(self) -> list[str]:
        answer = WholeAnswer.join(self._pieces)
        reply, part = self.reply([answer]), _output_text(answer)
        (item,) = reply.output
        return [
            self._of_part("response.output_text.done", text=part.text, logprobs=part.logprobs),
            self._of_part("response.content_part.done", part=part),
            self._event("response.output_item.done", output_index=0, item=item),
            self._event(f"response.{reply.status}", response=reply),
        ]

    def _message(self, status: str, *content: OutputText) -> OutputMessage:
        return OutputMessage(id=self._item_id, status=status, content=content)

    def _reply(self, **fields: object) -> ResponseReply:
        prepared = self._account.prepared
        head = {
            "id": prepared.request.id,
            "created_at": self._created,
            "instructions": self._instructions,
            "max_output_tokens": prepared.generation.max_tokens,
            "model": prepared.model,
            "temperature": prepared.generation.temperature,
            "top_logprobs": prepared.generation.num_top_logprobs or 0,
            "top_p": prepared.generation.top_p,
        }
        return ResponseReply.model_validate(head | fields)

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

    def _event(self, kind: str, **fields: object) -> str:
        told: BaseModel = _Event.model_validate(
            {"type": kind, "sequence_number": next(self._numbers)} | fields
        )
        return event(told.model_dump_json(), kind)


def _output_text(answer: WholeAnswer) -> OutputText:
    return OutputText(text=answer.text, logprobs=answer.logprobs)
