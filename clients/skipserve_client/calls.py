"""The calls of the HTTP interface: what is sent and how the reply is read. Sends nothing itself."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypedDict, TypeVar
from urllib.parse import quote

import httpx
from httpx_retries import Retry
from httpx_sse import SSEError

from skipserve_client.errors import (
    ApiError,
    ConnectionFailedError,
    ProtocolError,
    UnsendableError,
)
from skipserve_client.messages import Message
from skipserve_client.replies import (
    Answer,
    ModelInfo,
    Page,
    PlainAnswer,
    PolicyInfo,
    StreamedReply,
)
from skipserve_policies.schema import SkipPolicy

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:8000"
CHAT_PATH = "/v1/chat/completions"
_POLICIES = "/v1/skip_policies"
_DONE = "[DONE]"
_LAST_PORT = 65535


class ChatOptions(TypedDict, total=False):
    """What a chat may set besides its messages; the server fills in what is left out.

    Attributes:
        model: needed only where the server carries several names.
        skip_policy: a name, or a policy of one's own where the server allows inline ones; "auto",
            or {"auto": {"min_quality": 0.97, "max_latency_ms": 500}}, has the server choose.
        max_tokens: at most so many tokens are answered.
        temperature: 0 takes the most probable token each time.
        top_k: keep so many of the most probable tokens; 0 keeps all.
        top_p: then keep the smallest set of tokens that holds this much probability.
        min_p: then keep tokens at least this many times as probable as the best one.
        seed: makes sampling repeatable.
        stop: the answer ends before any of these.
        stop_token_ids: the answer ends before any of these tokens.
        ignore_eos: whether the model's end tokens do not end the answer.
        min_tokens: nothing ends the answer before it has so many tokens.
        presence_penalty: is taken off the logit of each token that the answer has.
        frequency_penalty: the same, as often as the answer has it.
        repetition_penalty: makes tokens of prompt and answer less probable, if it is above 1.
        logit_bias: token ids, as texts, and what is added to their logits.
        bad_words: texts that the answer may not have.
        priority: of requests that wait the one with the lowest starts first.
        logprobs: whether to report the log-probability of each token.
        top_logprobs: how many alternatives to report with it.
        prompt_logprobs: how many alternatives to report with the log-probability of each token of
            the prompt; not in a stream.
        cache_salt: requests share what the server has computed only with those of the same salt.
    """

    model: str
    skip_policy: str | SkipPolicy | Mapping[str, Any]
    max_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    seed: int
    stop: str | Sequence[str]
    stop_token_ids: Sequence[int]
    ignore_eos: bool
    min_tokens: int
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    logit_bias: Mapping[str, float]
    bad_words: Sequence[str]
    priority: int
    logprobs: bool
    top_logprobs: int
    prompt_logprobs: int
    cache_salt: str


@dataclass(frozen=True)
class Call(Generic[T]):
    """One call.

    Attributes:
        read: turns the JSON of the reply into what the caller gets.
        body: sent as JSON; None for a GET.
    """

    method: str
    path: str
    read: Callable[[Any], T]
    body: dict[str, Any] | None = None

    @property
    def content(self) -> bytes | None:
        """The body as it is sent.

        Raises:
            UnsendableError: a field of it cannot be written as JSON.
        """
        if self.body is None:
            return None
        fields = [_field_as_json(name, value) for name, value in self.body.items()]
        return b"{" + b",".join(fields) + b"}"


def _field_as_json(name: str, value: object) -> bytes:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return f"{json.dumps(name)}:{text}".encode()
    except UnicodeEncodeError as error:
        raise UnsendableError(f"{name}: a text in it is not valid Unicode") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise UnsendableError(f"{name}: this cannot be written as JSON: {error}") from error


def chat_call(messages: Sequence[Message], options: ChatOptions) -> Call[Answer]:
    """Return the call that answers a chat in one piece."""
    return Call("POST", CHAT_PATH, Answer.model_validate, _chat_body(messages, options))


def plain_chat_call(messages: Sequence[Message], options: ChatOptions) -> Call[PlainAnswer]:
    """Return the call that answers a chat, read as any server of OpenAI's form sends it."""
    return Call("POST", CHAT_PATH, PlainAnswer.model_validate, _chat_body(messages, options))


def chat_stream_call(messages: Sequence[Message], options: ChatOptions) -> Call[Answer]:
    """Return the call that answers a chat as a stream."""
    body = _chat_body(messages, options)
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    return Call("POST", CHAT_PATH, Answer.model_validate, body)


def skip_policies_call() -> Call[tuple[PolicyInfo, ...]]:
    """Return the call that lists the skip policies."""
    return Call("GET", _POLICIES, lambda reply: Page[PolicyInfo].model_validate(reply).data)


def add_skip_policy_call(name: str, policy: SkipPolicy | Mapping[str, Any]) -> Call[PolicyInfo]:
    """Return the call that adds a skip policy."""
    body = {"name": name, "policy": _plain_policy(policy)}
    return Call("POST", _POLICIES, PolicyInfo.model_validate, body)


def remove_skip_policy_call(name: str) -> Call[None]:
    """Return the call that removes a skip policy."""
    return Call("DELETE", f"{_POLICIES}/{quote(name, safe='')}", lambda _: None)


def version_call() -> Call[str]:
    """Return the call that tells the server's version."""
    return Call("GET", "/version", lambda reply: str(reply["version"]))


def models_call() -> Call[tuple[ModelInfo, ...]]:
    """Return the call that lists the model names."""
    return Call("GET", "/v1/models", lambda reply: Page[ModelInfo].model_validate(reply).data)


def _chat_body(messages: Sequence[Message], options: ChatOptions) -> dict[str, Any]:
    body: dict[str, Any] = {"messages": list(messages), **options}
    if "skip_policy" in options:
        body["skip_policy"] = _plain_policy(options["skip_policy"])
    return body


def _plain_policy(policy: str | SkipPolicy | Mapping[str, Any]) -> Any:
    if isinstance(policy, SkipPolicy):
        return policy.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return policy


def read_reply(call: Call[T], response: httpx.Response) -> T:
    """Read a complete reply.

    Raises:
        ApiError: the server answered with an error.
        ProtocolError: the reply is not in skipserve's form.
    """
    if response.is_error:
        raise ApiError.from_response(response)
    with _known_form():
        return call.read(response.json())


class StreamReader:
    """Reads the events of one stream."""

    def __init__(self, call: Call[Answer]) -> None:
        self._call = call
        self._reply = StreamedReply()
        self._is_done = False

    def text_of(self, event: str) -> str:
        """Return the text that an event brings.

        Raises:
            ApiError: the event says that the request failed.
            ProtocolError: the event is not in skipserve's form.
        """
        if event == _DONE:
            self._is_done = True
            return ""
        with _known_form():
            chunk = json.loads(event)
            if "error" in chunk:
                raise ApiError.from_body(event, status=500)
            return self._reply.add(chunk)

    @property
    def answer(self) -> Answer:
        """The whole answer, once the stream has been read to its end."""
        if not self._is_done:
            raise ConnectionFailedError("the stream has not been read to its end, or broke off")
        with _known_form():
            return self._call.read(self._reply.whole())


@contextmanager
def _known_form() -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise ProtocolError("the reply is not in the form of a skipserve server") from error


@contextmanager
def connection_errors(url: str) -> Iterator[None]:
    """Turn what httpx raises into the client's own errors."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise ConnectionFailedError(f"the server at {url} did not answer in time") from error
    except httpx.ConnectError as error:
        raise ConnectionFailedError(f"no server answers at {url}") from error
    except (SSEError, httpx.DecodingError) as error:
        raise ProtocolError(f"what {url} sends is not a stream of skipserve's") from error
    except httpx.TransportError as error:
        raise ConnectionFailedError(f"the connection to {url} failed: {error}") from error


def checked_url(url: str) -> str:
    """Return the address of a server as it may be shown: without a user's name and password.

    Raises:
        ConnectionFailedError: it is not an address that HTTP can be sent to.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    is_http = parsed.scheme in {"http", "https"} and bool(parsed.host)
    if not is_http or (parsed.port or 0) > _LAST_PORT:
        raise ConnectionFailedError(f"{url!r} is not an address such as {DEFAULT_URL}")
    return url if not parsed.userinfo else str(parsed.copy_with(username=None, password=None))


def server_root(url: str) -> str:
    """Return the address that paths are put behind: without `/v1`, which the paths begin with."""
    return url.rstrip("/").removesuffix("/v1")


def retry_rule(max_retries: int) -> Retry:
    """Return which failures are tried again: nothing was computed, or the server asks for it.

    Between attempts it waits as long as `Retry-After` says, else twice as long each time.
    """
    return Retry(
        total=max_retries,
        allowed_methods=["GET", "POST"],
        status_forcelist=[429, 503],
        retry_on_exceptions=[httpx.ConnectError, httpx.ConnectTimeout],
        backoff_factor=0.25,
        max_backoff_wait=30.0,
    )


def http_headers(api_key: str | None) -> dict[str, str]:
    """Return the headers of every call.

    Raises:
        UnsendableError: no header can hold the key.
    """
    headers = {"Content-Type": "application/json"}
    if api_key:
        if not api_key.isascii() or not api_key.isprintable():
            raise UnsendableError(
                "the API key holds characters that cannot be sent: it may have letters, digits and "
                "signs of ASCII alone, and no line break"
            )
        headers["Authorization"] = f"Bearer {api_key}"
    return headers
