"""The form of `POST /v1/chat/completions`: to a question, and from an answer's pieces to JSON."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from skipserve.api.forms.shared import begin_question, check_openai, openai_sampling
from skipserve.api.forms.structures import structure_of, tools_of
from skipserve.api.streaming import DataEvents, event
from skipserve.api.usage import request_metrics, usage
from skipserve.api.wire import (
    AnswerMessage,
    CallDelta,
    ChatChunk,
    ChatForm,
    ChatReply,
    Choice,
    ChoiceLogprobs,
    ChunkChoice,
    Delta,
    FunctionDelta,
    ShownCall,
    ShownFunction,
)
from skipserve.asking.account import Account
from skipserve.asking.answer import Piece, WholeAnswer
from skipserve.asking.messages import Role, image_uris, template_messages
from skipserve.asking.question import Generation, Question
from skipserve.asking.tools import CallPiece
from skipserve.engine.request import MAX_PROMPT_LOGPROBS
from skipserve.errors import InvalidRequestError
from skipserve.prompt.template import Ending


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
        structure=structure_of(form),
        tools=tools_of(form),
    )


def _check_supported(form: ChatForm) -> None:
    check_openai(form)
    both = form.max_tokens, form.max_completion_tokens
    if None not in both and both[0] != both[1]:
        raise InvalidRequestError(
            f"max_tokens is {both[0]} and max_completion_tokens is {both[1]}; send one of them",
            param="max_tokens",
        )
    if form.continue_final_message and form.add_generation_prompt is not False:
        raise InvalidRequestError(
            "continue_final_message needs add_generation_prompt: false: an answer begins anew or "
            "goes on",
            param="continue_final_message",
        )
    if form.top_logprobs and not form.logprobs:
        raise InvalidRequestError("top_logprobs needs logprobs: true", param="top_logprobs")


def _generation(form: ChatForm) -> Generation:
    return replace(
        openai_sampling(form),
        ending=_ending(form),
        max_tokens=form.max_completion_tokens or form.max_tokens,
        num_top_logprobs=(form.top_logprobs or 0) if form.logprobs else None,
    )


def _ending(form: ChatForm) -> Ending:
    if form.continue_final_message:
        return Ending.CONTINUED
    return Ending.MESSAGE if form.add_generation_prompt is False else Ending.ANSWER


@dataclass(frozen=True)
class ChatWriter(DataEvents):
    """Writes one answer, whole or as the chunks of a stream.

    Attributes:
        account: of the question.
        created: when it came, in seconds since 1970.
        tells_usage: whether a stream ends with the usage.
        tells_usage_so_far: whether each chunk has it besides.
        tells_tokens: whether the ids of tokens are told.
    """

    account: Account
    created: int
    tells_usage: bool = False
    tells_usage_so_far: bool = False
    tells_tokens: bool = False

    @classmethod
    def of(cls, form: ChatForm, account: Account, created: int) -> Self:
        """Return what writes the answer that a form asks for."""
        options = form.stream_options
        tells_usage = bool(options and options.include_usage)
        return cls(
            account,
            created,
            tells_usage=tells_usage,
            tells_usage_so_far=bool(tells_usage and options and options.continuous_usage_stats),
            tells_tokens=bool(form.return_token_ids),
        )

    def reply(self, answers: Sequence[WholeAnswer]) -> ChatReply:
        """Return the reply that is a question's whole answers."""
        prompt = answers[0].prompt
        return ChatReply(
            id=self.account.prepared.request.id,
            created=self.created,
            model=self.account.prepared.model,
            choices=tuple(
                Choice(
                    index=answer.choice,
                    message=AnswerMessage(
                        content=answer.text if answer.text or not answer.calls else None,
                        tool_calls=tuple(map(_shown_call, answer.calls)) or None,
                    ),
                    logprobs=self._logprobs(answer),
                    finish_reason=_finish_reason(answer),
                    token_ids=self._token_ids(answer),
                )
                for answer in answers
            ),
            usage=usage(self.account),
            metrics=request_metrics(self.account),
            prompt_token_ids=self._prompt_ids,
            prompt_logprobs=None if prompt is None else prompt.entries(MAX_PROMPT_LOGPROBS),
        )

    def opening(self) -> list[str]:
        """Return the chunks that come before the answers."""
        opened = Delta(role=Role.ASSISTANT, content="")
        choices = range(len(self.account.choices))
        prompt_ids = {"prompt_token_ids": self._prompt_ids}
        return [self._chunk(ChunkChoice(index=it, delta=opened), **prompt_ids) for it in choices]

    def chunks(self, piece: Piece) -> list[str]:
        """Return the chunks that a piece of the answer becomes."""
        chunks = []
        if piece.text or piece.calls or piece.logprobs or (self.tells_tokens and piece.token_ids):
            chunks.append(self._chunk(self._delta(replace(piece, finish_reason=None))))
        if piece.finish_reason is not None:
            bare = replace(piece, text="", calls=(), logprobs=(), token_ids=())
            chunks += self._ending(self._delta(bare))
        return chunks

    def _ending(self, last: ChunkChoice) -> list[str]:
        if self.account.skip is None:
            return [self._chunk(last)]  # another answer ends later
        metrics = request_metrics(self.account)
        if not self.tells_usage:
            return [self._chunk(last, metrics=metrics)]
        told = self._chunk_of(choices=(), usage=usage(self.account), metrics=metrics)
        return [self._chunk(last), told]

    def _logprobs(self, piece: Piece) -> ChoiceLogprobs | None:
        has_logprobs = self.account.prepared.has_logprobs
        return ChoiceLogprobs(content=piece.logprobs) if has_logprobs else None

    def _delta(self, piece: Piece) -> ChunkChoice:
        return ChunkChoice(
            index=piece.choice,
            delta=Delta(
                content=piece.text or None, tool_calls=tuple(map(_call_delta, piece.calls)) or None
            ),
            logprobs=self._logprobs(piece) if piece.logprobs else None,
            finish_reason=_finish_reason(piece),
            token_ids=self._token_ids(piece) or None,
        )

    @property
    def _prompt_ids(self) -> tuple[int, ...] | None:
        return self.account.prepared.request.prompt_ids if self.tells_tokens else None

    def _token_ids(self, piece: Piece) -> tuple[int, ...] | None:
        return piece.token_ids if self.tells_tokens else None

    def _chunk(self, choice: ChunkChoice, **fields: object) -> str:
        if self.tells_usage_so_far:
            fields["usage"] = usage(self.account)
        return self._chunk_of(choices=(choice,), **fields)

    def _chunk_of(self, **fields: object) -> str:
        prepared = self.account.prepared
        head = {"id": prepared.request.id, "created": self.created, "model": prepared.model}
        return event(ChatChunk.model_validate(head | fields).model_dump_json())


def _finish_reason(piece: Piece) -> str | None:
    if piece.finish_reason is None:
        return None
    return "tool_calls" if piece.ends_with_calls else piece.finish_reason.value


def _shown_call(call: CallPiece) -> ShownCall:
    return ShownCall(id=call.id, function=ShownFunction(name=call.name, arguments=call.arguments))


def _call_delta(call: CallPiece) -> CallDelta:
    if not call.is_first:
        return CallDelta(index=call.index, function=FunctionDelta(arguments=call.arguments))
    function = FunctionDelta(name=call.name, arguments=call.arguments)
    return CallDelta(index=call.index, id=call.id, type="function", function=function)
