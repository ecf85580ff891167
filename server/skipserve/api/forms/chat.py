"""The form of `POST /v1/chat/completions`: to a question, and from an answer's pieces to JSON."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from skipserve.api.forms.shared import (
    begin_question,
    check_openai,
    not_supported,
    openai_sampling,
)
from skipserve.api.streaming import DataEvents, event
from skipserve.api.usage import request_metrics, usage
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
    ResponseFormat,
)
from skipserve.asking.account import Account
from skipserve.asking.answer import Piece, WholeAnswer
from skipserve.asking.messages import Role, image_uris, template_messages
from skipserve.asking.question import Generation, Question
from skipserve.errors import InvalidRequestError


def read_chat(form: ChatForm, policy_header: str | None = None) -> Question:
    """Return the question that a form asks.

    Args:
        form: the body.
        policy_header: the header `X-Skip-Policy`.

    Raises:
        InvalidRequestError: the form asks for what does not work yet, or contradicts itself.
    """
    _check_supported(form)
    return replace(
        begin_question(form, policy_header, "chatcmpl-"),
        messages=template_messages(form.messages),
        image_uris=image_uris(form.messages),
        generation=_generation(form),
        priority=form.priority or 0,
    )


def _check_supported(form: ChatForm) -> None:
    check_openai(form)
    if form.response_format not in (None, ResponseFormat()):
        raise not_supported("response_format")
    both = form.max_tokens, form.max_completion_tokens
    if None not in both and both[0] != both[1]:
        raise InvalidRequestError(
            f"max_tokens is {both[0]} and max_completion_tokens is {both[1]}; send one of them",
            param="max_tokens",
        )
    if form.top_logprobs and not form.logprobs:
        raise InvalidRequestError("top_logprobs needs logprobs: true", param="top_logprobs")


def _generation(form: ChatForm) -> Generation:
    return replace(
        openai_sampling(form),
        max_tokens=form.max_completion_tokens or form.max_tokens,
        num_top_logprobs=(form.top_logprobs or 0) if form.logprobs else None,
    )


@dataclass(frozen=True)
class ChatWriter(DataEvents):
    """Writes one answer, whole or as the chunks of a stream.

    Attributes:
        account: of the question.
        created: when it came, in seconds since 1970.
        tells_usage: whether a stream ends with the usage.
    """

    account: Account
    created: int
    tells_usage: bool = False

    def reply(self, answers: Sequence[WholeAnswer]) -> ChatReply:
        """Return the reply that is a question's whole answers."""
        return ChatReply(
            id=self.account.prepared.request.id,
            created=self.created,
            model=self.account.prepared.model,
            choices=tuple(
                Choice(
                    index=answer.choice,
                    message=AnswerMessage(content=answer.text),
                    logprobs=self._logprobs(answer),
                    finish_reason=answer.finish_reason.value,
                )
                for answer in answers
            ),
            usage=usage(self.account),
            metrics=request_metrics(self.account),
        )

    def opening(self) -> list[str]:
        """Return the chunks that come before the answers."""
        opened = Delta(role=Role.ASSISTANT, content="")
        choices = range(len(self.account.choices))
        return [self._chunk(ChunkChoice(index=choice, delta=opened)) for choice in choices]

    def chunks(self, piece: Piece) -> list[str]:
        """Return the chunks that a piece of the answer becomes."""
        chunks = []
        if piece.text or piece.logprobs:
            chunks.append(self._chunk(self._delta(replace(piece, finish_reason=None))))
        if piece.finish_reason is not None:
            chunks += self._ending(self._delta(replace(piece, text="", logprobs=())))
        return chunks

    def _ending(self, last: ChunkChoice) -> list[str]:
        if self.account.skip is None:
            return [self._chunk(last)]  # another answer ends later
        metrics = request_metrics(self.account)
        if not self.tells_usage:
            return [self._chunk(last, metrics)]
        told = self._chunk_of(choices=(), usage=usage(self.account), metrics=metrics)
        return [self._chunk(last), told]

    def _logprobs(self, piece: Piece) -> ChoiceLogprobs | None:
        has_logprobs = self.account.prepared.has_logprobs
        return ChoiceLogprobs(content=piece.logprobs) if has_logprobs else None

    def _delta(self, piece: Piece) -> ChunkChoice:
        return ChunkChoice(
            index=piece.choice,
            delta=Delta(content=piece.text or None),
            logprobs=self._logprobs(piece) if piece.logprobs else None,
            finish_reason=None if piece.finish_reason is None else piece.finish_reason.value,
        )

    def _chunk(self, choice: ChunkChoice, metrics: RequestMetrics | None = None) -> str:
        return self._chunk_of(choices=(choice,), metrics=metrics)

    def _chunk_of(self, **fields: object) -> str:
        prepared = self.account.prepared
        head = {"id": prepared.request.id, "created": self.created, "model": prepared.model}
        return event(ChatChunk.model_validate(head | fields).model_dump_json())
