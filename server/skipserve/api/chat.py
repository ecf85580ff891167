"""The form of `POST /v1/chat/completions`: to a question, and from an answer's pieces to JSON."""

import uuid
from dataclasses import dataclass, replace

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
from skipserve.asking.question import Generation, PolicyChoice, Question
from skipserve.errors import InvalidRequestError

# Fields that parse and do nothing yet, each with the value that changes nothing.
_WITHOUT_EFFECT = {
    "n": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "repetition_penalty": 1,
    "logit_bias": {},
    "response_format": ResponseFormat(),
}


def read_chat(form: ChatForm, policy_header: str | None = None) -> Question:
    """Return the question that a form asks.

    Args:
        form: the body.
        policy_header: the header `X-Skip-Policy`.

    Raises:
        InvalidRequestError: the form asks for what does not work yet, or contradicts itself.
    """
    _check_supported(form)
    return Question(
        id=f"chatcmpl-{uuid.uuid4().hex}",
        messages=template_messages(form.messages),
        image_uris=image_uris(form.messages),
        generation=_generation(form),
        policy=_policy(form, policy_header),
        model=form.model,
        cache_salt=form.cache_salt,
        timeout_seconds=form.timeout_seconds,
    )


def _check_supported(form: ChatForm) -> None:
    for name, neutral in _WITHOUT_EFFECT.items():
        if getattr(form, name) not in (None, neutral):
            raise InvalidRequestError(f"{name} is not supported yet; leave it out", param=name)
    both = form.max_tokens, form.max_completion_tokens
    if None not in both and both[0] != both[1]:
        raise InvalidRequestError(
            f"max_tokens is {both[0]} and max_completion_tokens is {both[1]}; send one of them",
            param="max_tokens",
        )
    if form.top_logprobs and not form.logprobs:
        raise InvalidRequestError("top_logprobs needs logprobs: true", param="top_logprobs")
    if form.stream_options is not None and not form.stream:
        raise InvalidRequestError("stream_options needs stream: true", param="stream_options")


def _generation(form: ChatForm) -> Generation:
    stop = form.stop or ()
    return Generation(
        max_tokens=form.max_completion_tokens or form.max_tokens,
        temperature=1.0 if form.temperature is None else form.temperature,
        top_k=max(form.top_k or 0, 0),  # -1 keeps all, as in vLLM
        top_p=1.0 if form.top_p is None else form.top_p,
        min_p=form.min_p or 0.0,
        seed=form.seed,
        num_top_logprobs=(form.top_logprobs or 0) if form.logprobs else None,
        stops=(stop,) if isinstance(stop, str) else stop,
        stop_token_ids=form.stop_token_ids or (),
    )


def _policy(form: ChatForm, header: str | None) -> PolicyChoice | None:
    """Return the policy that a request gives: in the body, in vllm_xargs, or in a header."""
    in_arguments = form.vllm_xargs.skip_policy if form.vllm_xargs else None
    places = (form.skip_policy, in_arguments, header)
    return next((given for given in places if given is not None), None)


@dataclass(frozen=True)
class ChatWriter:
    """Writes one answer, whole or as the chunks of a stream.

    Attributes:
        account: of the question.
        created: when it came, in seconds since 1970.
        tells_usage: whether a stream ends with the usage.
    """

    account: Account
    created: int
    tells_usage: bool = False

    def reply(self, answer: WholeAnswer) -> ChatReply:
        """Return the reply that is a whole answer."""
        return ChatReply(
            id=self.account.prepared.request.id,
            created=self.created,
            model=self.account.prepared.model,
            choices=(
                Choice(
                    message=AnswerMessage(content=answer.text),
                    logprobs=self._logprobs(answer),
                    finish_reason=answer.finish_reason.value,
                ),
            ),
            usage=usage(self.account),
            metrics=request_metrics(self.account),
        )

    def opening(self) -> list[str]:
        """Return the chunks, as JSON, that come before the answer."""
        return [self._chunk(ChunkChoice(delta=Delta(role=Role.ASSISTANT, content="")))]

    def chunks(self, piece: Piece) -> list[str]:
        """Return the chunks, as JSON, that a piece of the answer becomes."""
        chunks = []
        if piece.text or piece.logprobs:
            chunks.append(self._chunk(self._delta(replace(piece, finish_reason=None))))
        if piece.finish_reason is not None:
            chunks += self._ending(self._delta(Piece("", (), piece.finish_reason)))
        return chunks

    def _ending(self, last: ChunkChoice) -> list[str]:
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
            delta=Delta(content=piece.text or None),
            logprobs=self._logprobs(piece) if piece.logprobs else None,
            finish_reason=None if piece.finish_reason is None else piece.finish_reason.value,
        )

    def _chunk(self, choice: ChunkChoice, metrics: RequestMetrics | None = None) -> str:
        return self._chunk_of(choices=(choice,), metrics=metrics)

    def _chunk_of(self, **fields: object) -> str:
        prepared = self.account.prepared
        head = {"id": prepared.request.id, "created": self.created, "model": prepared.model}
        return ChatChunk.model_validate(head | fields).model_dump_json()
