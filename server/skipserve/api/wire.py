"""What goes over HTTP: OpenAI's request and reply forms with the fields that skipserve adds."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)

from skipserve_policies.schema import MIN_ITEMS, NotEmpty, Quality, SkipPolicy

MAX_MESSAGES = 256
MAX_PARTS = 256
MAX_TEXT_LENGTH = 2**20
MAX_STOPS = 4
MAX_STOP_LENGTH = 256
MAX_STOP_TOKENS = 64
MAX_TOP_LOGPROBS = 20
MAX_CHOICES = 16
MAX_BIASES = 1024
MAX_NAME_LENGTH = 200
_LARGEST_COUNT = 2**31 - 1
_SALT = r"^[!-~]+$"
_TOKEN_ID = r"^[0-9]{1,10}$"


def _check_salt(value: str) -> str:
    if not re.fullmatch(_SALT, value):
        raise ValueError("this may hold printable ASCII characters, and no spaces")
    return value


def _check_token_id(value: str) -> str:
    if not re.fullmatch(_TOKEN_ID, value):
        raise ValueError("the names must be token ids, such as 13")
    return value


Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=1, le=_LARGEST_COUNT)]
TokenId = Annotated[int, Field(strict=True, ge=0, le=_LARGEST_COUNT)]
Text = Annotated[str, Field(max_length=MAX_TEXT_LENGTH)]
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_LENGTH)]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
Salt = Annotated[
    str,
    Field(min_length=1, max_length=128, json_schema_extra={"pattern": _SALT}),
    AfterValidator(_check_salt),
]
Stops = Annotated[tuple[Stop, ...], Field(max_length=MAX_STOPS)]


def _one_or_several(value: object) -> str:
    """Tell one text from a list, so that an error speaks of the form that was meant."""
    return "several" if isinstance(value, list | tuple) else "one"


class _Form(BaseModel):
    """What a client sends: a field that is not known is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Reply(BaseModel):
    model_config = ConfigDict(frozen=True)


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class TextContent(_Form):
    """A piece of text; URLs in it are not looked at."""

    type: Literal["text"]
    text: Text


class ImageUrl(_Form):
    """Where an image is. `detail` changes nothing: the vision tower has one resolution."""

    url: str = Field(
        description="A data URI: data:image/png;base64,...",
        examples=[
            "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4z8AA"
            "AAMBAQAY3Y2wAAAAAElFTkSuQmCC"
        ],
    )
    detail: Literal["auto", "low", "high"] = "auto"


class ImageContent(_Form):
    """An image in a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


def _part_kind(value: object) -> str | None:
    """Tell which part is meant, in words that are no field's name: those would stand in errors."""
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return {"text": "a text", "image_url": "an image"}.get(str(kind))


Content = Annotated[
    Annotated[TextContent, Tag("a text")] | Annotated[ImageContent, Tag("an image")],
    Discriminator(
        _part_kind,
        custom_error_type="part_type",
        custom_error_message=(
            'a part is {"type": "text", "text": ...} or '
            '{"type": "image_url", "image_url": {"url": ...}}'
        ),
    ),
]
Parts = Annotated[
    tuple[Content, ...], Field(max_length=MAX_PARTS, json_schema_extra=MIN_ITEMS), NotEmpty
]


class ChatMessage(_Form):
    """One turn of a conversation; a field that is null counts as absent."""

    role: Role
    content: Annotated[
        Annotated[Text, Tag("one")] | Annotated[Parts, Tag("several")],
        Discriminator(_one_or_several),
    ]

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: field for key, field in value.items() if field is not None}
        return value


class StreamOptions(_Form):
    """What a stream carries besides the answer."""

    include_usage: Flag = False


class ResponseFormatKind(StrEnum):
    """What shape the answer must have."""

    TEXT = "text"
    JSON_OBJECT = "json_object"
    JSON_SCHEMA = "json_schema"


class ResponseFormat(_Form):
    """The shape of the answer; only free text works now."""

    type: ResponseFormatKind = ResponseFormatKind.TEXT
    json_schema: dict[str, Any] | None = None


def _policy_kind(value: object) -> str | None:
    if isinstance(value, str):
        return "a name"
    return "a policy" if isinstance(value, Mapping | SkipPolicy) else None


PolicyChoice = Annotated[
    Annotated[Name, Tag("a name")] | Annotated[SkipPolicy, Tag("a policy")],
    Discriminator(
        _policy_kind,
        custom_error_type="policy_form",
        custom_error_message='a skip policy is a name, or is spelt out as {"rules": [...]}',
    ),
]


class VllmArguments(_Form):
    """vLLM's place for arguments that OpenAI's form does not have."""

    skip_policy: PolicyChoice | None = None


class ChatForm(_Form):
    """The body of `POST /v1/chat/completions`."""

    messages: Annotated[
        tuple[ChatMessage, ...],
        Field(max_length=MAX_MESSAGES, json_schema_extra=MIN_ITEMS),
        NotEmpty,
    ] = Field(examples=[[{"role": "user", "content": "How many red squares are there?"}]])
    model: Name | None = Field(
        default=None,
        description="The served model, or NAME@POLICY to name a skip policy with it.",
        examples=[None],
    )
    skip_policy: PolicyChoice | None = Field(
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
    max_completion_tokens: Count | None = Field(default=None, examples=[16])
    max_tokens: Count | None = Field(default=None, examples=[16])
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)] | None = None
    stop: (
        Annotated[
            Annotated[Stop, Tag("one")] | Annotated[Stops, Tag("several")],
            Discriminator(_one_or_several),
        ]
        | None
    ) = None
    stop_token_ids: Annotated[tuple[TokenId, ...], Field(max_length=MAX_STOP_TOKENS)] | None = None
    logprobs: Flag | None = None
    top_logprobs: Annotated[int, Field(strict=True, ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    stream: Flag | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(strict=True, ge=1, le=MAX_CHOICES)] | None = None
    top_k: Annotated[int, Field(strict=True, ge=-1, le=_LARGEST_COUNT)] | None = None
    min_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[Number, Field(gt=0, le=10)] | None = None
    logit_bias: (
        Annotated[
            dict[Annotated[str, AfterValidator(_check_token_id)], Number],
            Field(max_length=MAX_BIASES),
        ]
        | None
    ) = None
    response_format: ResponseFormat | None = None


class TokenDetails(_Reply):
    """Prompt rows that were not computed, and those that show an image."""

    cached_tokens: int
    multimodal_tokens: int


class Usage(_Reply):
    """Tokens read and written; `completion_tokens` counts the end token too."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: TokenDetails


class SavedFor(_Reply):
    """The request that a saving is counted for, in the notation of `skipserve flops`."""

    prompt: str = Field(
        description="Tokens of text and of images in turn, text first.", examples=["35+576+25"]
    )
    cached_tokens: int = Field(
        description="Leading prompt tokens that were computed before: neither count holds them."
    )
    generated_tokens: int = Field(description="Tokens of the answer, its end token too.")


class SkipReport(_Reply):
    """Which policy ran, and what it computed beside what the full model would have.

    Both counts are of this request alone, without the prompt tokens that were cached. So the same
    question asked again may save another share, and a list's `saved_ratio` is another request's.
    """

    policy: str
    digest: str
    layers: dict[str, tuple[int, ...]]
    planned_flops: int = Field(description="What this request costs under the policy.")
    full_flops: int = Field(
        description="What the same request costs under the full model, with the same tokens cached."
    )
    saved_ratio: float = Field(description="1 - planned_flops / full_flops.")
    saved_for: SavedFor


class RequestMetrics(_Reply):
    """How long a request took; `inter_token_latency_seconds` is the mean, null for one token."""

    queue_seconds: float
    time_to_first_token_seconds: float | None
    inter_token_latency_seconds: float | None
    duration_seconds: float
    skip: SkipReport


class TopLogprob(_Reply):
    """A token that could have come, with the model's own log-probability."""

    token: str
    logprob: float
    bytes: tuple[int, ...]


class TokenLogprobs(TopLogprob):
    """A token of the answer and its alternatives."""

    top_logprobs: tuple[TopLogprob, ...]


class ChoiceLogprobs(_Reply):
    """Log-probabilities of the tokens of an answer."""

    content: tuple[TokenLogprobs, ...]


class AnswerMessage(_Reply):
    """The answer."""

    role: Role = Role.ASSISTANT
    content: str


class Choice(_Reply):
    """The one answer of a reply."""

    index: int = 0
    message: AnswerMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: str


class ChatReply(_Reply):
    """The reply of `POST /v1/chat/completions`."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: tuple[Choice, ...]
    usage: Usage
    metrics: RequestMetrics


class _Sparse(_Reply):
    """A reply that leaves out fields which are null."""

    @model_serializer(mode="wrap")
    def _drop_nulls(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in serialize(self).items() if value is not None}


class Delta(_Sparse):
    """What a chunk adds to the answer."""

    role: Role | None = None
    content: str | None = None


class ChunkChoice(_Reply):
    """A piece of the one answer."""

    index: int = 0
    delta: Delta
    logprobs: ChoiceLogprobs | None = None
    finish_reason: str | None = None


class ChatChunk(_Sparse):
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


class ErrorBody(_Reply):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: int


class ErrorReply(_Reply):
    """The one shape of every error."""

    error: ErrorBody


class ModelEntry(_Reply):
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


class ModelList(_Reply):
    """The reply of `GET /v1/models`."""

    object: Literal["list"] = "list"
    data: tuple[ModelEntry, ...]


class PolicyEntry(_Reply):
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


class PolicyList(_Reply):
    """The reply of `GET /v1/skip_policies`."""

    object: Literal["list"] = "list"
    data: tuple[PolicyEntry, ...]


class Health(_Reply):
    """The reply of `GET /health` and `GET /ready`."""

    status: str


class Version(_Reply):
    """The reply of `GET /version`."""

    version: str
