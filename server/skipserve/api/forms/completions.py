"""The form of `POST /v1/completions`: prompts without a template, and answers in the old form."""

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from skipserve.api.forms.shared import (
    begin_question,
    check_openai,
    not_supported,
    openai_sampling,
)
from skipserve.api.forms.structures import structure_of
from skipserve.api.forms.tables import COMPLETIONS
from skipserve.api.replies import Reply, Sparse
from skipserve.api.streaming import DataEvents, event
from skipserve.api.usage import request_metrics, usage
from skipserve.api.wire import (
    MAX_TOP_LOGPROBS,
    Flag,
    OpenAiFields,
    RequestMetrics,
    ShownPrompt,
    TokenId,
    Usage,
)
from skipserve.asking.account import Account
from skipserve.asking.answer import Piece, TopLogprob, WholeAnswer
from skipserve.asking.messages import Text
from skipserve.asking.prompt_logprobs import PromptEntries, PromptLogprobs
from skipserve.asking.question import Question, RawPrompt
from skipserve.errors import InvalidRequestError
from skipserve_policies.schema import MIN_ITEMS, NotEmpty

MAX_PROMPTS = 128
# So many tokens where a form does not say, as OpenAI's and vLLM's servers give.
_NUM_TOKENS = 16


def _prompt_kind(value: object) -> str | None:
    """Tell which form a prompt has, by its first item."""
    if isinstance(value, str):
        return "a text"
    if not isinstance(value, list | tuple):
        return None
    first = value[0] if value else ""
    if isinstance(first, list | tuple):
        return "lists of tokens"
    return "texts" if isinstance(first, str) else "tokens"


TokenIds = Annotated[
    tuple[TokenId, ...], Field(fail_fast=True, json_schema_extra=MIN_ITEMS), NotEmpty
]
_Several = Field(max_length=MAX_PROMPTS, fail_fast=True, json_schema_extra=MIN_ITEMS)
Prompt = Annotated[
    Annotated[Text, Tag("a text")]
    | Annotated[tuple[Text, ...], _Several, NotEmpty, Tag("texts")]
    | Annotated[TokenIds, Tag("tokens")]
    | Annotated[tuple[TokenIds, ...], _Several, NotEmpty, Tag("lists of tokens")],
    Discriminator(
        _prompt_kind,
        custom_error_type="prompt_form",
        custom_error_message="a prompt is a text, a list of texts, or a list of token ids",
    ),
]


class CompletionForm(OpenAiFields):
    """The body of `POST /v1/completions`."""

    model_config = ConfigDict(json_schema_extra=COMPLETIONS.describe_ignored)
    field_table = COMPLETIONS

    prompt: Prompt = Field(
        description="A text, a list of texts, a list of token ids, or a list of such lists. Texts "
        "go through no chat template; what spells a special token in them is one.",
        examples=["The sky is"],
    )
    echo: Flag | None = Field(default=None, description="Whether the prompt begins the text.")
    logprobs: Annotated[int, Field(strict=True, ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    add_special_tokens: Flag | None = Field(
        default=None,
        description="Whether a text gets the tokens that the tokenizer puts around one.",
    )


class OldLogprobs(Reply):
    """Log-probabilities in the old form, an item a token; null for the first of a prompt.

    A token that is no whole character is called `bytes:` with its bytes behind.
    """

    tokens: tuple[str, ...]
    token_logprobs: tuple[float | None, ...]
    top_logprobs: tuple[dict[str, float] | None, ...]
    text_offset: tuple[int, ...]


class CompletionChoice(Sparse):
    """The answer to one prompt, or a piece of it."""

    index: int
    text: str
    logprobs: OldLogprobs | None = None
    finish_reason: str | None = None
    metrics: RequestMetrics | None = Field(
        default=None, description="Of its prompt, where there are several."
    )
    prompt_logprobs: ShownPrompt = None


class CompletionReply(Sparse):
    """The reply of `POST /v1/completions`, and an event of its stream.

    In a stream the last event before `[DONE]` carries `metrics`: the one with the usage where that
    is asked for, else the one with the finish reason.
    """

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: tuple[CompletionChoice, ...]
    usage: Usage | None = None
    metrics: RequestMetrics | None = Field(default=None, description="Where there is one prompt.")


def read_completion(form: CompletionForm, policy_header: str | None = None) -> list[Question]:
    """Return the questions that a form asks, one a prompt.

    Args:
        form: the body.
        policy_header: the header `X-Skip-Policy`.

    Raises:
        InvalidRequestError: the form asks for what does not work yet, or contradicts itself.
    """
    _check_supported(form)
    generation = replace(
        openai_sampling(form),
        max_tokens=form.max_tokens,
        open_tokens=_NUM_TOKENS,
        num_top_logprobs=form.logprobs,
        num_prompt_logprobs=_num_prompt_logprobs(form),
    )
    begun = begin_question(form, policy_header, "cmpl-")
    return [
        replace(
            begun,
            id=begun.id if index == 0 else f"{begun.id}.{index}",
            prompt=prompt,
            prompt_param="prompt",
            adds_special=form.add_special_tokens is not False,
            generation=generation,
            priority=form.priority or 0,
            structure=structure_of(form),
        )
        for index, prompt in enumerate(_prompts(form.prompt))
    ]


def _num_prompt_logprobs(form: CompletionForm) -> int | None:
    """Return how many alternatives to tell of a prompt's tokens, in either place of the reply."""
    asked = (form.prompt_logprobs, form.logprobs if form.echo else None)
    return max((it for it in asked if it is not None), default=None)


def _prompts(given: RawPrompt | tuple[RawPrompt, ...]) -> Sequence[RawPrompt]:
    if isinstance(given, str) or isinstance(given[0], int):
        return (given,)
    return given


def _check_supported(form: CompletionForm) -> None:
    check_openai(form)
    if form.stream_options is not None and form.stream_options.continuous_usage_stats:
        raise not_supported("stream_options.continuous_usage_stats")
    if form.echo and form.logprobs is not None and form.stream:
        raise InvalidRequestError(
            "echo with logprobs asks for log-probabilities of the prompt, which are not available "
            "in a stream; leave one of the three out",
            param="echo",
        )


@dataclass(frozen=True)
class _Told:
    """What is told of a prompt.

    Attributes:
        entries: its tokens in vLLM's form; None unless asked for.
        echoed: the same in the old form, before those of an answer; None unless asked for.
    """

    entries: PromptEntries | None
    echoed: OldLogprobs | None


class _Offsets:
    """Where the tokens of one answer begin in its text, which may begin with the prompt's."""

    def __init__(self, echo: str = "") -> None:
        self._at = len(echo)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def next(self, token: TopLogprob) -> int:
        """Return where the next token begins."""
        begin = self._at
        self._at += len(self._decoder.decode(bytes(token.bytes)))
        return begin


@dataclass(frozen=True)
class CompletionWriter(DataEvents):
    """Writes the answers to prompts, whole or as the events of a stream.

    Attributes:
        accounts: of the questions.
        created: when they came, in seconds since 1970.
        echoes: the prompts' texts, where they begin the answers.
        tells_usage: whether a stream ends with the usage.
        num_top: how many alternatives to each of the prompts' tokens are told apart from the
            answers; None for none, nor the tokens.
    """

    accounts: Sequence[Account]
    created: int
    echoes: Sequence[str] = ()
    tells_usage: bool = False
    num_top: int | None = None
    _offsets: dict[int, _Offsets] = field(default_factory=dict, init=False)
    _ended: set[int] = field(default_factory=set, init=False)

    def reply(self, answers: Sequence[WholeAnswer]) -> CompletionReply:
        """Return the reply that is whole answers."""
        self._ended.update(range(self._num_answers))
        told = {it.index: self._told(it.prompt, it.index) for it in answers if it.prompt}
        return self._reply(
            choices=tuple(self._whole(answer, told.get(answer.index)) for answer in answers),
            usage=usage(*self.accounts),
            metrics=self._metrics_of_one(),
        )

    def opening(self) -> list[str]:
        """Return the events that come before the answers: the prompts, where they are wanted."""
        return [
            self._event(choices=(CompletionChoice(index=place, text=self._echo(place)),))
            for place in range(self._num_answers)
            if self.echoes
        ]

    def chunks(self, piece: Piece) -> list[str]:
        """Return the events that a piece of an answer becomes."""
        if not (piece.text or piece.logprobs or piece.finish_reason):
            return []
        if piece.finish_reason is not None:
            self._ended.add(self._place(piece))
        choices, is_last = (self._choice(piece),), len(self._ended) == self._num_answers
        metrics = self._metrics_of_one() if is_last else None
        if not (is_last and self.tells_usage):
            return [self._event(choices=choices, metrics=metrics)]
        told = self._event(choices=(), usage=usage(*self.accounts), metrics=metrics)
        return [self._event(choices=choices), told]

    def _choice(self, piece: Piece, echo: str = "") -> CompletionChoice:
        account, reason = self.accounts[piece.index], piece.finish_reason
        return CompletionChoice(
            index=self._place(piece),
            text=echo + piece.text,
            logprobs=self._logprobs(piece) if account.prepared.has_logprobs else None,
            finish_reason=None if reason is None else reason.value,
            metrics=request_metrics(account) if self._ends_prompt(piece) else None,
        )

    def _told(self, prompt: PromptLogprobs, index: int) -> _Told:
        """Return what is told of a prompt, in the places where it is wanted."""
        entries = None if self.num_top is None else prompt.entries(self.num_top)
        num_top = self.accounts[index].prepared.generation.num_top_logprobs
        if not self.echoes or num_top is None:
            return _Told(entries, None)
        return _Told(entries, _of_prompt(prompt, num_top, self.echoes[index]))

    def _whole(self, answer: WholeAnswer, told: _Told | None) -> CompletionChoice:
        """Return an answer with what is told of its prompt."""
        echo = self._echo(self._place(answer))
        if told is None:
            return self._choice(answer, echo)
        if told.echoed is not None:
            self._offsets[self._place(answer)] = _Offsets(echo)
        choice = self._choice(answer, echo)
        more: dict[str, object] = {"prompt_logprobs": told.entries}
        if told.echoed is not None and choice.logprobs is not None:
            more["logprobs"] = _joined(told.echoed, choice.logprobs)
        return choice.model_copy(update=more)

    def _ends_prompt(self, piece: Piece) -> bool:
        """Whether the metrics of a prompt go with a piece: it has others, and its answers ended."""
        first = self._place(piece) - piece.choice
        answers = {*range(first, first + self._num_choices)}
        return len(self.accounts) > 1 and piece.finish_reason is not None and answers <= self._ended

    def _logprobs(self, piece: Piece) -> OldLogprobs:
        offsets = self._offsets.setdefault(self._place(piece), _Offsets())
        tokens = piece.logprobs
        return OldLogprobs(
            tokens=tuple(map(_name, tokens)),
            token_logprobs=tuple(token.logprob for token in tokens),
            top_logprobs=tuple(
                {_name(each): each.logprob for each in (token, *token.top_logprobs)}
                for token in tokens
            ),
            text_offset=tuple(map(offsets.next, tokens)),
        )

    @property
    def _num_choices(self) -> int:
        return len(self.accounts[0].choices)

    @property
    def _num_answers(self) -> int:
        return len(self.accounts) * self._num_choices

    def _place(self, piece: Piece) -> int:
        """Return the number of an answer: all to the first prompt come first."""
        return piece.index * self._num_choices + piece.choice

    def _echo(self, place: int) -> str:
        return self.echoes[place // self._num_choices] if self.echoes else ""

    def _metrics_of_one(self) -> RequestMetrics | None:
        return request_metrics(self.accounts[0]) if len(self.accounts) == 1 else None

    def _reply(self, **fields: object) -> CompletionReply:
        prepared = self.accounts[0].prepared
        head = {"id": prepared.request.id, "created": self.created, "model": prepared.model}
        return CompletionReply.model_validate(head | fields)

    def _event(self, **fields: object) -> str:
        return event(self._reply(**fields).model_dump_json())


def _of_prompt(prompt: PromptLogprobs, num_top: int, text: str) -> OldLogprobs:
    """Return the log-probabilities of a prompt's tokens, and where they begin in its text."""
    tokens = tuple(prompt.tokens(num_top))
    names = {
        token_id: _spelt(prompt.tokenizer.token_bytes(token_id), prompt.text(token_id))
        for token in tokens
        for token_id in (token.token_id, *(other for other, _ in token.top))
    }
    return OldLogprobs(
        tokens=tuple(names[token.token_id] for token in tokens),
        token_logprobs=tuple(token.logprob for token in tokens),
        top_logprobs=tuple(
            None
            if token.logprob is None
            else {names[it]: value for it, value in ((token.token_id, token.logprob), *token.top)}
            for token in tokens
        ),
        text_offset=tuple(_places(prompt, text)),
    )


def _places(prompt: PromptLogprobs, text: str) -> Iterator[int]:
    """Yield where the tokens of a prompt begin in its text.

    What the tokenizer has put around it, a space before its first word among that, takes no room.
    """
    decoder, at = codecs.getincrementaldecoder("utf-8")("replace"), 0
    for token_id in prompt.request.prompt_ids:
        yield at
        content = prompt.tokenizer.token_bytes(token_id)
        piece = decoder.decode(content) if content else prompt.text(token_id)
        if not text.startswith(piece, at):
            piece = piece.removeprefix(" ")
        at += len(piece) if text.startswith(piece, at) else 0


def _joined(first: OldLogprobs, second: OldLogprobs) -> OldLogprobs:
    return OldLogprobs(
        tokens=first.tokens + second.tokens,
        token_logprobs=first.token_logprobs + second.token_logprobs,
        top_logprobs=first.top_logprobs + second.top_logprobs,
        text_offset=first.text_offset + second.text_offset,
    )


def _name(token: TopLogprob) -> str:
    """Return what a token is called."""
    return _spelt(bytes(token.bytes), token.token)


def _spelt(content: bytes, text: str) -> str:
    """Return what a token is called: its text, or its bytes where they are no text."""
    try:
        return content.decode() or text
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)
