"""What the server answers, as frozen models. Fields that a newer server adds are ignored."""

from typing import Any, Generic, TypeVar

from pydantic import AliasPath, BaseModel, ConfigDict, Field, field_validator

from skipserve_policies.schema import Quality

T = TypeVar("T")


class Reply(BaseModel):
    """A part of an answer of the server."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class SavedFor(Reply):
    """The request that a saving is counted for, in the notation of `skipserve flops`.

    Attributes:
        prompt: tokens of text and of pictures in turn, text first, such as "35+576+25".
        cached_tokens: leading prompt tokens that were computed before: in neither count.
        generated_tokens: tokens of the answer, its end token too.
        scored_tokens: tokens of the prompt whose log-probabilities were asked for.
    """

    prompt: str
    cached_tokens: int
    generated_tokens: int
    scored_tokens: int = 0


class ImageRows(Reply):
    """How many rows of an image went on to the language model, of how many."""

    kept: int
    of: int


class ChosenBecause(Reply):
    """Why the server chose the policy of a request.

    Attributes:
        reason: in a word, such as "cheapest", "warm", "pressure" or "unmeasured".
        min_quality: the share of what the full model reaches that had to be kept; None where
            nothing was measured.
        quality: the share that the policy keeps at least, as measured.
        max_latency_ms: what the request asked for.
        expected_latency_ms: what was expected of the policy; None where nothing was measured yet.
        expected_cached_tokens: leading tokens that were expected to be computed before.
        under_pressure: whether requests waited for so long that the server's floor counted.
    """

    reason: str
    min_quality: float | None = None
    quality: float | None = None
    max_latency_ms: float | None = None
    expected_latency_ms: float | None = None
    expected_cached_tokens: int = 0
    under_pressure: bool = False


class SkipReport(Reply):
    """What the skip policy meant for one request.

    Attributes:
        policy: its name; "inline" for one that came with the request.
        requested: "auto" where the server has chosen it; None where it was named.
        chosen_because: why, where the server has chosen it.
        digest: equal for policies that compute the same.
        layers: for each action, the layers that it touched.
        image_rows: what is left of each image; None where that is all of it.
        planned_flops: what the request costs under the policy.
        full_flops: what the same request costs under the full model.
        saved_ratio: 1 - planned_flops / full_flops.
        saved_for: the request that both are counted for.
    """

    policy: str
    requested: str | None = None
    chosen_because: ChosenBecause | None = None
    digest: str
    layers: dict[str, tuple[int, ...]]
    planned_flops: int
    full_flops: int
    saved_ratio: float
    saved_for: SavedFor | None = None
    image_rows: ImageRows | None = None


class Timings(Reply):
    """How long the server took.

    Attributes:
        inter_token_latency_seconds: the mean; None for an answer of one token.
    """

    queue_seconds: float
    time_to_first_token_seconds: float | None
    inter_token_latency_seconds: float | None
    duration_seconds: float


def _detail(name: str) -> AliasPath:
    return AliasPath("prompt_tokens_details", name)


class Usage(Reply):
    """Tokens of a request.

    Attributes:
        completion_tokens: those of the answer, its end token among them.
        image_tokens: those of the prompt that stand for pictures.
        cached_tokens: those of the prompt that were not computed again.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    image_tokens: int = Field(0, validation_alias=_detail("multimodal_tokens"))
    cached_tokens: int = Field(0, validation_alias=_detail("cached_tokens"))


class TopLogprob(Reply):
    """A token that could have come, with the model's own log-probability."""

    token: str
    logprob: float


class TokenLogprob(TopLogprob):
    """A token of the answer, with the most probable ones at its place, best first."""

    top_logprobs: tuple[TopLogprob, ...] = ()


class PromptLogprob(Reply):
    """A token that stands in a prompt, or could.

    Attributes:
        logprob: the model's own log-probability, after the tokens before.
        rank: its place among all tokens; the most probable one's is 1.
        decoded_token: its text; a special token's name.
    """

    logprob: float
    rank: int
    decoded_token: str


class PlainAnswer(Reply):
    """The answer of any server that speaks OpenAI's form.

    Attributes:
        usage: None where the server does not count.
    """

    id: str = ""
    model: str = ""
    text: str = Field(validation_alias=AliasPath("choices", 0, "message", "content"))
    finish_reason: str | None = Field(
        None, validation_alias=AliasPath("choices", 0, "finish_reason")
    )
    usage: Usage | None = None

    @field_validator("text", mode="before")
    @classmethod
    def _take_nothing(cls, text: object) -> object:
        """Take no text as an empty one: a model that ends at once has none for some servers."""
        return "" if text is None else text


class Answer(PlainAnswer):
    """The answer to one request, read from a reply in OpenAI's form.

    Attributes:
        prompt_logprobs: for each token of the prompt, tokens by their ids: the one that stands
            there first, then the most probable ones; None at what is not scored, as the first one
            and rows of pictures. Empty where they were not asked for.
    """

    id: str
    model: str
    finish_reason: str = Field(validation_alias=AliasPath("choices", 0, "finish_reason"))
    usage: Usage
    skip: SkipReport = Field(validation_alias=AliasPath("metrics", "skip"))
    timings: Timings = Field(validation_alias="metrics")
    logprobs: tuple[TokenLogprob, ...] = Field(
        (), validation_alias=AliasPath("choices", 0, "logprobs", "content")
    )
    prompt_logprobs: tuple[dict[int, PromptLogprob] | None, ...] = ()


class PolicyInfo(Reply):
    """A skip policy of the catalog, resolved for the loaded model.

    Attributes:
        saved_ratio: the share of the full model's FLOPs that it saves on one standard request.
        saved_for: that request.
        quality: what was measured; empty where nothing was.
        added: whether it was added at run time, and can be removed.
        default: whether requests that name no policy run it.
    """

    name: str
    description: str = ""
    source: str = ""
    digest: str
    layers: dict[str, tuple[int, ...]]
    scope: str | None
    saved_ratio: float
    saved_for: SavedFor | None = None
    added: bool = False
    default: bool = False
    quality: tuple[Quality, ...] = ()


class ModelInfo(Reply):
    """A model name that requests may use; NAME@POLICY names carry a policy.

    Attributes:
        root: the model's own name.
        input_modalities: what a prompt may hold: text, and image, video or audio; empty where the
            server does not tell.
        weights_digest: of its weights; None until they are loaded.
        dtype: the number type that it runs in, once it is loaded.
        device: what it runs on, once it is loaded.
    """

    id: str
    root: str | None = None
    input_modalities: tuple[str, ...] = ()
    weights_digest: str | None = None
    dtype: str | None = None
    device: str | None = None


class Page(Reply, Generic[T]):
    """A list reply."""

    data: tuple[T, ...]


class StreamedReply:
    """Puts the chunks of a stream together to the reply that it would have been in one piece."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._logprobs: list[Any] = []
        self._finish_reason: str | None = None
        self._fields: dict[str, Any] = {}

    def add(self, chunk: dict[str, Any]) -> str:
        """Take one chunk and return the text that it brought."""
        self._fields |= {key: value for key, value in chunk.items() if value is not None}
        text = ""
        for choice in chunk.get("choices", ()):
            text += choice.get("delta", {}).get("content") or ""
            self._logprobs += (choice.get("logprobs") or {}).get("content") or ()
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
        self._text.append(text)
        return text

    def whole(self) -> dict[str, Any]:
        """Return the reply as OpenAI's form has it without streaming."""
        choice = {
            "message": {"content": "".join(self._text)},
            "finish_reason": self._finish_reason,
            "logprobs": {"content": self._logprobs},
        }
        return self._fields | {"choices": [choice]}
