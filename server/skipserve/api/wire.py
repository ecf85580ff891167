"""What goes over HTTP: OpenAI's request and reply forms with the fields that skipserve adds."""

import re
from collections.abc import Mapping
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
from skipserve.asking.auto.form import AutoPolicy
from skipserve.asking.auto.terms import Unmet
from skipserve.asking.fields import (
    CHAT,
    FUNCTION,
    JSON_SCHEMA,
    STREAM_OPTIONS,
    STRUCTURED_OUTPUTS,
    TOOL,
    FieldTable,
)
from skipserve.asking.messages import (
    Form,
    FunctionName,
    Messages,
    Role,
    Text,
    by_type,
    one_or_several,
)
from skipserve.asking.prompt_logprobs import PromptEntries
from skipserve.asking.report import SavedFor, SkipReport
from skipserve.engine.request import MAX_PROMPT_LOGPROBS
from skipserve_policies.catalog import AUTO_NAME
from skipserve_policies.schema import Quality, SkipPolicy

MAX_STOPS = 4
MAX_STOP_LENGTH = 256
MAX_STOP_TOKENS = 64
MAX_TOP_LOGPROBS = 20
# Of the prompts of one request, with alternatives: 16 MB of a reply.
MAX_TOLD_OF_PROMPTS = 2**18
MAX_CHOICES = 16
MAX_BIASES = 1024
MAX_BAD_WORDS = 64
MAX_TOOLS = 128
MAX_CHOICE_TEXTS = 1024
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
ShownPrompt = Annotated[
    PromptEntries | None,
    Field(
        exclude_if=_is_none,
        description="For each token of the prompt the log-probabilities of itself and of the most "
        "probable ones, by their ids; null for the first token and for rows of images.",
    ),
]


def word_or_form(value: object) -> str:
    """Tell a form from a word, so that an error speaks of the one that was meant."""
    return "several" if isinstance(value, Mapping | Form) else "one"


class StreamOptions(Form):
    """What a stream carries besides the answer."""

    model_config = ConfigDict(json_schema_extra=STREAM_OPTIONS.describe_ignored)

    include_usage: Flag = False
    continuous_usage_stats: Flag = Field(
        default=False, description="With include_usage: every chunk carries the usage so far."
    )


class JsonSchema(Form):
    """A schema, with the name that whoever asks gives it."""

    model_config = ConfigDict(json_schema_extra=JSON_SCHEMA.describe_ignored)

    name: Name
    described: dict[str, Any] = Field(alias="schema", examples=[{"type": "object"}])


class PlainFormat(Form):
    """A text, or any JSON object."""

    type: Literal["text", "json_object"]


class JsonSchemaFormat(Form):
    """JSON that a schema describes."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[
    Annotated[PlainFormat, Tag("a kind")] | Annotated[JsonSchemaFormat, Tag("a schema")],
    Discriminator(
        by_type(text="a kind", json_object="a kind", json_schema="a schema"),
        custom_error_type="format_type",
        custom_error_message=(
            'a format is {"type": "text"}, {"type": "json_object"} or {"type": "json_schema", '
            '"json_schema": {"name": ..., "schema": ...}}'
        ),
    ),
]


class StructuredOutputs(Form):
    """What the answer is held to, as vLLM says it: one of the fields."""

    model_config = ConfigDict(json_schema_extra=STRUCTURED_OUTPUTS.describe_ignored)

    described: dict[str, Any] | Text | None = Field(default=None, alias="json")
    json_object: Flag | None = None
    regex: Text | None = None
    choice: (
        Annotated[tuple[Text, ...], Field(max_length=MAX_CHOICE_TEXTS, fail_fast=True)] | None
    ) = None
    grammar: Text | None = None


class FunctionForm(Form):
    """A function that the answer may call."""

    model_config = ConfigDict(json_schema_extra=FUNCTION.describe_ignored)

    name: FunctionName
    description: Text | None = None
    parameters: dict[str, Any] | None = Field(
        default=None,
        description="The JSON schema of its arguments.",
        examples=[{"type": "object", "properties": {"city": {"type": "string"}}}],
    )


class ToolForm(Form):
    """A tool: a function."""

    model_config = ConfigDict(json_schema_extra=TOOL.describe_ignored)

    type: Literal["function"]
    function: FunctionForm


class ChosenFunction(Form):
    """The function that must be called."""

    name: FunctionName


class FunctionChoice(Form):
    """A choice of one function."""

    type: Literal["function"] = "function"
    function: ChosenFunction


Tools = Annotated[tuple[ToolForm, ...], Field(max_length=MAX_TOOLS, fail_fast=True)]
ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("one")]
    | Annotated[FunctionChoice, Tag("several")],
    Discriminator(word_or_form),
]


def _policy_kind(value: object) -> str | None:
    if isinstance(value, str):
        return "a name"
    if isinstance(value, AutoPolicy) or (isinstance(value, Mapping) and AUTO_NAME in value):
        return "a choice"
    return "a policy" if isinstance(value, Mapping | SkipPolicy) else None


PolicyForm = Annotated[
    Annotated[Name, Tag("a name")]
    | Annotated[AutoPolicy, Tag("a choice")]
    | Annotated[SkipPolicy, Tag("a policy")],
    Discriminator(
        _policy_kind,
        custom_error_type="policy_form",
        custom_error_message='a skip policy is a name, or is spelt out as {"rules": [...]}, or is '
        'chosen by the server: "auto", {"auto": {"min_quality": 0.97}}',
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


AskedModel = Annotated[
    Name | None,
    Field(
        description="The served model, or NAME@POLICY to name a skip policy with it.",
        examples=[None],
    ),
]


class OwnFields(BodyForm):
    """What skipserve adds to every form that asks."""

    model: AskedModel = None
    skip_policy: PolicyForm | None = Field(
        default=None,
        description="A name from /v1/skip_policies, a policy spelt out, or `auto`: the server "
        "chooses one.",
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

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None

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
    prompt_logprobs: Annotated[int, Field(strict=True, ge=0, le=MAX_PROMPT_LOGPROBS)] | None = None
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
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: Flag | None = None


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


class ShownFunction(Reply):
    """The function that an answer calls."""

    name: str
    arguments: str = Field(description="A JSON object as text.")


class ShownCall(Reply):
    """A call that an answer makes; a later request may have it among its messages."""

    id: str
    type: Literal["function"] = "function"
    function: ShownFunction


class AnswerMessage(Reply):
    """The answer."""

    role: Role = Role.ASSISTANT
    content: str | None = Field(description="Null where the answer is calls alone.")
    tool_calls: Annotated[tuple[ShownCall, ...] | None, Field(exclude_if=_is_none)] = None


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
    prompt_logprobs: ShownPrompt = None


class FunctionDelta(Sparse):
    """What a chunk adds to a call: its function first, then arguments."""

    name: str | None = None
    arguments: str = ""


class CallDelta(Sparse):
    """What a chunk adds to one of an answer's calls."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionDelta


class Delta(Sparse):
    """What a chunk adds to the answer."""

    role: Role | None = None
    content: str | None = None
    tool_calls: tuple[CallDelta, ...] | None = None


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
    input_modalities: tuple[str, ...] = Field(
        description="What a prompt may hold: `text` and `image`, `video` or `audio`."
    )
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
    default: bool = Field(description="Whether requests that name no policy run it.")


class AutoEntry(Reply):
    """A policy that `auto` may choose."""

    name: str
    quality: float = Field(
        description="The share of what the full model reaches that it keeps at least, as measured."
    )


class AutoReply(Reply):
    """How the server chooses where a request leaves it the choice."""

    name: Literal["auto"] = "auto"
    quality: float = Field(description="What is kept where a request does not say.")
    min_quality: float = Field(description="No less is kept, whatever is asked for.")
    unmet: Unmet = Field(description="What is done where nothing meets a request.")
    fallback: str = Field(description="What runs where nothing was measured.")
    pressure_seconds: float = Field(
        description="From so long an expected wait on there is pressure: `min_quality` counts in "
        "the place of `quality`."
    )
    relief_seconds: float = Field(description="Down to so long a wait it lasts.")
    policies: tuple[AutoEntry, ...] = Field(
        description="Those that may be chosen, the best first; empty where none was measured on "
        "the weights that run."
    )


class PolicyList(Reply):
    """The reply of `GET /v1/skip_policies`."""

    object: Literal["list"] = "list"
    data: tuple[PolicyEntry, ...]
    auto: AutoReply


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
