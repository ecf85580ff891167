"""The form of `POST /v1/completions`: prompts without a template, and answers in the old form."""

import codecs
from collections.abc import Sequence
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
    TokenId,
    Usage,
)
from skipserve.asking.account import Account
from skipserve.asking.answer import Piece, TopLogprob, WholeAnswer
from skipserve.asking.messages import Text
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
    """Log-probabilities in the old form, an item a token.

    A token that is no whole character is called `bytes:` with its bytes behind.
    """

    tokens: tuple[str, ...]
    token_logprobs: tuple[float, ...]
    top_logprobs: tuple[dict[str, float], ...]
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


def _prompts(given: RawPrompt | tuple[RawPrompt, ...]) -> Sequence[RawPrompt]:
    if isinstance(given, str) or isinstance(given[0], int):
        return (given,)
    return given


def _check_supported(form: CompletionForm) -> None:
    check_openai(form)
    if form.stream_options is not None and form.stream_options.continuous_usage_stats:
        raise not_supported("stream_options.continuous_usage_stats")
    if form.echo and form.logprobs is not None:
        raise InvalidRequestError(
            "echo with logprobs asks for log-probabilities of the prompt, which are not supported "
            "yet; leave one of them out",
            param="echo",
        )


class _Offsets:
    """Where the tokens of one answer begin in its text."""

    def __init__(self) -> None:
        self._at = 0
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
    """

    accounts: Sequence[Account]
    created: int
    echoes: Sequence[str] = ()
    tells_usage: bool = False
    _offsets: dict[int, _Offsets] = field(default_factory=dict, init=False)
    _ended: set[int] = field(default_factory=set, init=False)

    def reply(self, answers: Sequence[WholeAnswer]) -> CompletionReply:
        """Return the reply that is whole answers."""
        self._ended.update(range(self._num_answers))
        return self._reply(
            choices=tuple(
                self._choice(answer, self._echo(self._place(answer))) for answer in answers
            ),
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


def _name(token: TopLogprob) -> str:
    """Return what a token is called: its text, or its bytes where they are no text."""
    content = bytes(token.bytes)
    try:
        return content.decode() or token.token
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)
