"""What goes over HTTP: OpenAI's request and reply forms with the fields that skipserve adds."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
)
from pydantic_core import PydanticCustomError

from skipserve.api.replies import Reply, Sparse
from skipserve.asking.answer import TokenLogprobs
from skipserve.asking.fields import CHAT, STREAM_OPTIONS, FieldTable
from skipserve.asking.messages import Form, Messages, Role, one_or_several
from skipserve.asking.report import SavedFor, SkipReport
from skipserve_policies.schema import Quality, SkipPolicy

MAX_STOPS = 4
MAX_STOP_LENGTH = 256
MAX_STOP_TOKENS = 64
MAX_TOP_LOGPROBS = 20
MAX_CHOICES = 16
MAX_BIASES = 1024
MAX_BAD_WORDS = 64
MAX_NAME_LENGTH = 200
_LARGEST_COUNT = 2**31 - 1
_SALT = r"^[!-~]+$"
# Without leading zeros: no token has two names.
_TOKEN_ID = r"^(0|[1-9][0-9]{0,9})$"


def _check_salt(value: str) -> str:
    if not re.fullmatch(_SALT, value):
        raise ValueError("this may hold printable ASCII characters, and no spaces")
    return value


def _check_number_of_biases(value: object) -> object:
    # Pydantic would tell the faults of all of them first.
    if isinstance(value, Mapping) and len(value) > MAX_BIASES:
        raise PydanticCustomError(
            "too_many_biases", "this may have at most {most} items", {"most": MAX_BIASES}
        )
    return value


def _check_token_id(value: str) -> str:
    if not re.fullmatch(_TOKEN_ID, value):
        raise ValueError("the names must be token ids, such as 13")
    return value


Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=1, le=_LARGEST_COUNT)]
TokenId = Annotated[int, Field(strict=True, ge=0, le=_LARGEST_COUNT)]
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_LENGTH)]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
Salt = Annotated[
    str,
    Field(min_length=1, max_length=128, json_schema_extra={"pattern": _SALT}),
    AfterValidator(_check_salt),
]
Stops = Annotated[tuple[Stop, ...], Field(max_length=MAX_STOPS, fail_fast=True)]


def _is_none(value: object) -> bool:
    return value is None


# Left out of a reply unless asked for.
ShownIds = Annotated[tuple[int, ...] | None, Field(exclude_if=_is_none)]


class StreamOptions(Form):
    """What a stream carries besides the answer."""

    model_config = ConfigDict(json_schema_extra=STREAM_OPTIONS.describe_ignored)

    include_usage: Flag = False
    continuous_usage_stats: Flag = Field(
        default=False, description="With include_usage: every chunk carries the usage so far."
    )


class ResponseFormatKind(StrEnum):
    """What shape the answer must have."""

    TEXT = "text"
    JSON_OBJECT = "json_object"
    JSON_SCHEMA = "json_schema"


class ResponseFormat(Form):
    """The shape of the answer; only free text works now."""

    type: ResponseFormatKind = ResponseFormatKind.TEXT
    json_schema: dict[str, Any] | None = None


def _policy_kind(value: object) -> str | None:
    if isinstance(value, str):
        return "a name"
    return "a policy" if isinstance(value, Mapping | SkipPolicy) else None


PolicyForm = Annotated[
    Annotated[Name, Tag("a name")] | Annotated[SkipPolicy, Tag("a policy")],
    Discriminator(
        _policy_kind,
        custom_error_type="policy_form",
        custom_error_message='a skip policy is a name, or is spelt out as {"rules": [...]}',
    ),
]


class VllmArguments(Form):
    """vLLM's place for arguments that OpenAI's form does not have."""

    skip_policy: PolicyForm | None = None


class BodyForm(Form):
    """The body of a request.

    Attributes:
        field_table: its fields, and those that are taken though it does not have them.
    """

    field_table: ClassVar[FieldTable]


class OwnFields(BodyForm):
    """What skipserve adds to every form that asks."""

    model: Name | None = Field(
        default=None,
        description="The served model, or NAME@POLICY to name a skip policy with it.",
        examples=[None],
    )
    skip_policy: PolicyForm | None = Field(
        default=None,
        description="A name from /v1/skip_policies, or a policy spelt out.",
        examples=["full"],
    )
    vllm_xargs: VllmArguments | None = None
    cache_salt: Salt | None = Field(
        default=None,
        description="Only requests with the same salt share cached work; printable ASCII.",
        examples=["team-7"],
    )
    timeout_seconds: Annotated[Number, Field(gt=0)] | None = Field(
        default=None,
        description="The request ends with status 408 after so long in the engine; the server's "
        "own limit holds too.",
        examples=[30],
    )


class SamplingFields(OwnFields):
    """How tokens are chosen, in every form that asks."""

    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(strict=True, ge=-1, le=_LARGEST_COUNT)] | None = None
    min_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    seed: Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)] | None = None


class OpenAiFields(SamplingFields):
    """What OpenAI's two older forms have in common."""

    max_tokens: Count | None = Field(default=None, examples=[16])
    stop: (
        Annotated[
            Annotated[Stop, Tag("one")] | Annotated[Stops, Tag("several")],
            Discriminator(one_or_several),
        ]
        | None
    ) = None
    stop_token_ids: (
        Annotated[tuple[TokenId, ...], Field(max_length=MAX_STOP_TOKENS, fail_fast=True)] | None
    ) = None
    stream: Flag | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(strict=True, ge=1, le=MAX_CHOICES)] | None = None
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[Number, Field(ge=0.01, le=10)] | None = None
    logit_bias: (
        Annotated[
            dict[
                Annotated[str, AfterValidator(_check_token_id)],
                Annotated[Number, Field(ge=-100, le=100)],
            ],
            Field(max_length=MAX_BIASES),
            BeforeValidator(_check_number_of_biases),
        ]
        | None
    ) = None
    bad_words: (
        Annotated[tuple[Stop, ...], Field(max_length=MAX_BAD_WORDS, fail_fast=True)] | None
    ) = None
    min_tokens: Annotated[int, Field(strict=True, ge=0, le=_LARGEST_COUNT)] | None = None
    ignore_eos: Flag | None = None
    priority: Annotated[int, Field(strict=True, ge=-(2**31), lt=2**31)] | None = None


class ChatForm(OpenAiFields):
    """The body of `POST /v1/chat/completions`."""

    model_config = ConfigDict(json_schema_extra=CHAT.describe_ignored)
    field_table = CHAT

    messages: Messages = Field(
        examples=[[{"role": "user", "content": "How many red squares are there?"}]]
    )
    max_completion_tokens: Count | None = Field(default=None, examples=[16])
    logprobs: Flag | None = None
    top_logprobs: Annotated[int, Field(strict=True, ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    add_generation_prompt: Flag | None = None
    continue_final_message: Flag | None = None
    return_token_ids: Flag | None = None
    response_format: ResponseFormat | None = None


class TokenDetails(Reply):
    """Prompt rows that were not computed, and those that show an image."""

    cached_tokens: int
    multimodal_tokens: int


class Usage(Reply):
    """Tokens read and written; `completion_tokens` are those of all answers, end tokens too."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: TokenDetails


class RequestMetrics(Reply):
    """How long a request took; `inter_token_latency_seconds` is the mean, null for one token."""

    queue_seconds: float
    time_to_first_token_seconds: float | None
    inter_token_latency_seconds: float | None
    duration_seconds: float
    skip: SkipReport


class ChoiceLogprobs(Reply):
    """Log-probabilities of the tokens of an answer."""

    content: tuple[TokenLogprobs, ...]


class AnswerMessage(Reply):
    """The answer."""

    role: Role = Role.ASSISTANT
    content: str


class Choice(Reply):
    """One answer of a reply."""

    index: int = 0
    message: AnswerMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: str
    token_ids: ShownIds = None


class ChatReply(Reply):
    """The reply of `POST /v1/chat/completions`."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: tuple[Choice, ...]
    usage: Usage
    metrics: RequestMetrics
    prompt_token_ids: ShownIds = None


class Delta(Sparse):
    """What a chunk adds to the answer."""

    role: Role | None = None
    content: str | None = None


class ChunkChoice(Reply):
    """A piece of an answer."""

    index: int = 0
    delta: Delta
    logprobs: ChoiceLogprobs | None = None
    finish_reason: str | None = None
    token_ids: ShownIds = None


class ChatChunk(Sparse):
    """One event of a stream.

    The last chunk before `[DONE]` carries `metrics`: the one with the usage where that is asked
    for, else the one with the finish reason.
    """

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: tuple[ChunkChoice, ...]
    usage: Usage | None = None
    metrics: RequestMetrics | None = None
    prompt_token_ids: ShownIds = None


class ErrorBody(Reply):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: int


class ErrorReply(Reply):
    """The one shape of every error."""

    error: ErrorBody


class ModelEntry(Reply):
    """A name that `model` may have."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["skipserve"] = "skipserve"
    root: str
    max_model_len: int
    skip_policy: str
    weights_digest: str | None
    dtype: str | None
    device: str | None


class ModelList(Reply):
    """The reply of `GET /v1/models`."""

    object: Literal["list"] = "list"
    data: tuple[ModelEntry, ...]


class PolicyEntry(Reply):
    """A named policy, resolved for the loaded model."""

    name: str
    description: str
    source: str
    digest: str
    layers: dict[str, tuple[int, ...]]
    scope: str | None
    saved_ratio: float = Field(
        description="The share of the full model's FLOPs that is saved on the request `saved_for`; "
        "a reply has the share of its own request."
    )
    saved_for: SavedFor
    quality: tuple[Quality, ...]
    added: bool = Field(description="Whether it was added at run time, and can be removed.")


class PolicyList(Reply):
    """The reply of `GET /v1/skip_policies`."""

    object: Literal["list"] = "list"
    data: tuple[PolicyEntry, ...]


class UsageEntry(Reply):
    """What a key has used since the server started, or was named in the keys file."""

    key: str | None = Field(description="Its name in the keys file; null for other keys.")
    requests: int = Field(description="Requests that were let in, those that failed too.")
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    computed_flops: int
    full_flops: int


class UsageList(Reply):
    """The reply of `GET /v1/usage`."""

    object: Literal["list"] = "list"
    data: tuple[UsageEntry, ...]


class Health(Reply):
    """The reply of `GET /health` and `GET /ready`."""

    status: str


class Version(Reply):
    """The reply of `GET /version`."""

    version: str
