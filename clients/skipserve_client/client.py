"""The Python client, synchronous and asynchronous: the same calls, sent in either way."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, Self, TypeVar, Unpack

import httpx
from httpx_retries import RetryTransport
from httpx_sse import EventSource

from skipserve_client.calls import (
    DEFAULT_URL,
    Call,
    ChatOptions,
    StreamReader,
    add_skip_policy_call,
    chat_call,
    chat_stream_call,
    checked_url,
    connection_errors,
    http_headers,
    models_call,
    plain_chat_call,
    read_reply,
    remove_skip_policy_call,
    retry_rule,
    server_root,
    skip_policies_call,
    version_call,
)
from skipserve_client.errors import ApiError
from skipserve_client.messages import (
    ImageSource,
    Message,
    may_move,
    media_data_uri,
    question_messages,
)
from skipserve_client.replies import Answer, ModelInfo, PlainAnswer, PolicyInfo
from skipserve_policies.schema import SkipPolicy

T = TypeVar("T")

_CONNECT_SECONDS = 5.0


class AnswerStream(Iterator[str]):
    """The pieces of an answer as they come; `answer` is there after the last one."""

    def __init__(self, events: EventSource, reader: StreamReader, url: str) -> None:
        self._reader = reader
        self._pieces = self._read(events, url)

    def __next__(self) -> str:
        return next(self._pieces)

    @property
    def answer(self) -> Answer:
        """The whole answer.

        Raises:
            ConnectionFailedError: the stream has not been read to its end, or broke off.
        """
        return self._reader.answer

    def _read(self, events: EventSource, url: str) -> Iterator[str]:
        with connection_errors(url):
            for event in events.iter_sse():
                if text := self._reader.text_of(event.data):
                    yield text


class AsyncAnswerStream(AsyncIterator[str]):
    """The pieces of an answer as they come; `answer` is there after the last one."""

    def __init__(self, events: EventSource, reader: StreamReader, url: str) -> None:
        self._reader = reader
        self._pieces = self._read(events, url)

    async def __anext__(self) -> str:
        return await anext(self._pieces)

    @property
    def answer(self) -> Answer:
        """The whole answer.

        Raises:
            ConnectionFailedError: the stream has not been read to its end, or broke off.
        """
        return self._reader.answer

    async def aclose(self) -> None:
        """Read no further."""
        await self._pieces.aclose()

    async def _read(self, events: EventSource, url: str) -> AsyncGenerator[str, None]:
        with connection_errors(url):
            async with aclosing(events.aiter_sse()) as received:
                async for event in received:
                    if text := self._reader.text_of(event.data):
                        yield text


class SkipserveClient:
    """Talks to a skipserve server. Use it as a context manager, or call `close`.

    Every method raises `ConnectionFailedError`, `ApiError` or `ProtocolError`; those that take a
    picture also `PictureError`.

    Args:
        url: where the server listens; `/v1` at its end, as clients of OpenAI's write it, is taken.
        api_key: sent as a bearer token.
        timeout_seconds: the longest wait for the next bytes of a reply.
        max_retries: how often a call is sent again when the connection is refused or the server
            answers 429 or 503; as long as `Retry-After` says lies between.
        transport: sends the requests in place of httpx's own.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        api_key: str | None = None,
        *,
        timeout_seconds: float = 120.0,
        max_retries: int = 3,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = checked_url(url)
        self._http = httpx.Client(
            base_url=server_root(url),
            headers=http_headers(api_key),
            timeout=httpx.Timeout(timeout_seconds, connect=_CONNECT_SECONDS),
            transport=RetryTransport(
                transport or httpx.HTTPTransport(), retry=retry_rule(max_retries)
            ),
        )

    def ask(self, image: ImageSource, question: str, **options: Unpack[ChatOptions]) -> Answer:
        """Answer a question about a picture: a path, the bytes of a file, or a PIL image.

        Where the model takes sounds, that is a WAV file; where it takes videos, an animated GIF,
        WebP or PNG. The server is asked which it takes, where a file can be either.
        """
        return self.chat(self._messages(image, question), **options)

    def chat(self, messages: Sequence[Message], **options: Unpack[ChatOptions]) -> Answer:
        """Answer a chat in OpenAI's form."""
        return self._run(chat_call(messages, options))

    def plain_chat(
        self, messages: Sequence[Message], **options: Unpack[ChatOptions]
    ) -> PlainAnswer:
        """Answer a chat of any server of OpenAI's form, which says nothing of skip policies."""
        return self._run(plain_chat_call(messages, options))

    @contextmanager
    def stream_ask(
        self, image: ImageSource, question: str, **options: Unpack[ChatOptions]
    ) -> Iterator[AnswerStream]:
        """Answer a question as `ask` does, piece by piece; leaving the block cancels the rest."""
        with self.stream_chat(self._messages(image, question), **options) as stream:
            yield stream

    @contextmanager
    def stream_chat(
        self, messages: Sequence[Message], **options: Unpack[ChatOptions]
    ) -> Iterator[AnswerStream]:
        """Answer a chat piece by piece; leaving the block cancels the rest."""
        call = chat_stream_call(messages, options)
        with connection_errors(self.url):
            request = self._http.build_request(call.method, call.path, content=call.content)
            response = self._http.send(request, stream=True)
        try:
            if response.is_error:
                with connection_errors(self.url):
                    response.read()
                raise ApiError.from_response(response)
            yield AnswerStream(EventSource(response), StreamReader(call), self.url)
        finally:
            response.close()

    def skip_policies(self) -> tuple[PolicyInfo, ...]:
        """List the skip policies, resolved for the loaded model."""
        return self._run(skip_policies_call())

    def add_skip_policy(self, name: str, policy: SkipPolicy | Mapping[str, Any]) -> PolicyInfo:
        """Add a skip policy, which may be asked for at once; wants an admin key."""
        return self._run(add_skip_policy_call(name, policy))

    def remove_skip_policy(self, name: str) -> None:
        """Remove a skip policy that was added so; wants an admin key."""
        self._run(remove_skip_policy_call(name))

    def models(self) -> tuple[ModelInfo, ...]:
        """List the model names that requests may use."""
        return self._run(models_call())

    def version(self) -> str:
        """Return the server's version."""
        return self._run(version_call())

    def _messages(self, image: ImageSource, question: str) -> list[Message]:
        uri = media_data_uri(image)
        is_video = may_move(uri) and _take_videos(self.models())
        return question_messages(uri, question, is_video=is_video)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, call: Call[T]) -> T:
        with connection_errors(self.url):
            response = self._http.request(call.method, call.path, content=call.content)
        return read_reply(call, response)


class AsyncSkipserveClient:
    """`SkipserveClient` for asyncio: the same arguments, methods and errors."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        api_key: str | None = None,
        *,
        timeout_seconds: float = 120.0,
        max_retries: int = 3,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = checked_url(url)
        self._http = httpx.AsyncClient(
            base_url=server_root(url),
            headers=http_headers(api_key),
            timeout=httpx.Timeout(timeout_seconds, connect=_CONNECT_SECONDS),
            transport=RetryTransport(
                transport or httpx.AsyncHTTPTransport(), retry=retry_rule(max_retries)
            ),
        )

    async def ask(
        self, image: ImageSource, question: str, **options: Unpack[ChatOptions]
    ) -> Answer:
        """Answer a question about a picture or, where the model takes it, an animation or a sound.

        Each is a path, the bytes of a file, or a PIL image; as `SkipserveClient.ask` takes it.
        """
        return await self.chat(await self._messages(image, question), **options)

    async def chat(self, messages: Sequence[Message], **options: Unpack[ChatOptions]) -> Answer:
        """Answer a chat in OpenAI's form."""
        return await self._run(chat_call(messages, options))

    async def plain_chat(
        self, messages: Sequence[Message], **options: Unpack[ChatOptions]
    ) -> PlainAnswer:
        """Answer a chat of any server of OpenAI's form, which says nothing of skip policies."""
        return await self._run(plain_chat_call(messages, options))

    @asynccontextmanager
    async def stream_ask(
        self, image: ImageSource, question: str, **options: Unpack[ChatOptions]
    ) -> AsyncIterator[AsyncAnswerStream]:
        """Answer a question as `ask` does, piece by piece; leaving the block cancels the rest."""
        messages = await self._messages(image, question)
        async with self.stream_chat(messages, **options) as stream:
            yield stream

    @asynccontextmanager
    async def stream_chat(
        self, messages: Sequence[Message], **options: Unpack[ChatOptions]
    ) -> AsyncIterator[AsyncAnswerStream]:
        """Answer a chat piece by piece; leaving the block cancels the rest."""
        call = chat_stream_call(messages, options)
        with connection_errors(self.url):
            request = self._http.build_request(call.method, call.path, content=call.content)
            response = await self._http.send(request, stream=True)
        try:
            if response.is_error:
                with connection_errors(self.url):
                    await response.aread()
                raise ApiError.from_response(response)
            stream = AsyncAnswerStream(EventSource(response), StreamReader(call), self.url)
            async with aclosing(stream):
                yield stream
        finally:
            await response.aclose()

    async def skip_policies(self) -> tuple[PolicyInfo, ...]:
        """List the skip policies, resolved for the loaded model."""
        return await self._run(skip_policies_call())

    async def add_skip_policy(
        self, name: str, policy: SkipPolicy | Mapping[str, Any]
    ) -> PolicyInfo:
        """Add a skip policy, which may be asked for at once; wants an admin key."""
        return await self._run(add_skip_policy_call(name, policy))

    async def remove_skip_policy(self, name: str) -> None:
        """Remove a skip policy that was added so; wants an admin key."""
        await self._run(remove_skip_policy_call(name))

    async def models(self) -> tuple[ModelInfo, ...]:
        """List the model names that requests may use."""
        return await self._run(models_call())

    async def version(self) -> str:
        """Return the server's version."""
        return await self._run(version_call())

    async def _messages(self, image: ImageSource, question: str) -> list[Message]:
        uri = media_data_uri(image)
        is_video = may_move(uri) and _take_videos(await self.models())
        return question_messages(uri, question, is_video=is_video)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self, call: Call[T]) -> T:
        with connection_errors(self.url):
            response = await self._http.request(call.method, call.path, content=call.content)
        return read_reply(call, response)


def _take_videos(models: Sequence[ModelInfo]) -> bool:
    return any("video" in model.input_modalities for model in models)
