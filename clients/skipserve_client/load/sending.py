"""Sends the requests of a load and notes when their answers come."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import perf_counter

import httpx
from httpx_retries import RetryTransport
from httpx_sse import EventSource

from skipserve_client.calls import (
    CHAT_PATH,
    checked_url,
    connection_errors,
    http_headers,
    retry_rule,
    server_root,
)
from skipserve_client.errors import ApiError, ClientError, ConnectionFailedError
from skipserve_client.load.asking import Job
from skipserve_client.load.records import TIMEOUT, Failure, Outcome, Record, Tokens
from skipserve_client.load.watch import Watch


class Lines:
    """Connections to a server, as many as requests are under way; each is used again.

    Each is a client of its own: a pool of many looks through all of them for each request.

    Args:
        url: the server's.
        api_key: sent as a bearer token.
        retries: how often a request that is refused is sent again, after `Retry-After`.
    """

    def __init__(self, url: str, api_key: str | None, retries: int = 0) -> None:
        self.url = checked_url(url)
        self._root = server_root(url)
        self._headers = http_headers(api_key)
        self._retries = retries
        self._certificates = ssl.create_default_context() if url.startswith("https") else False
        self._idle: list[httpx.AsyncClient] = []

    @asynccontextmanager
    async def take(self) -> AsyncIterator[httpx.AsyncClient]:
        """Yield a connection that nobody else has meanwhile."""
        client = self._idle.pop() if self._idle else self._new()
        try:
            yield client
        finally:
            self._idle.append(client)

    async def close(self) -> None:
        """Close those that nobody has."""
        for client in self._idle:
            await client.aclose()

    def _new(self) -> httpx.AsyncClient:
        transport: httpx.AsyncBaseTransport = httpx.AsyncHTTPTransport(verify=self._certificates)
        if self._retries:
            transport = RetryTransport(transport, retry=retry_rule(self._retries))
        return httpx.AsyncClient(
            base_url=self._root,
            headers=self._headers,
            timeout=None,
            transport=transport,
        )


@dataclass(frozen=True)
class Sender:
    """Sends requests.

    Attributes:
        timeout_seconds: a request that takes longer is given up.
        tells_tokens: whether the server says with each chunk how many tokens there are.
    """

    lines: Lines
    timeout_seconds: float
    tells_tokens: bool

    async def send(self, job: Job, begun: float) -> Record:
        """Send a request, and return what came of it.

        Args:
            job: the request.
            begun: when the load began, by `perf_counter`.
        """
        sent = perf_counter()
        # Who waits for an answer does so from when it was to be sent, not from when we could.
        due = sent if job.scheduled_seconds is None else begun + job.scheduled_seconds
        watch = Watch(tells_tokens=self.tells_tokens)
        failure: Failure | None = None
        tokens: Tokens | None = None
        try:
            async with asyncio.timeout(self.timeout_seconds):
                await self._read(job, watch)
            tokens = watch.tokens()
        except TimeoutError:
            told = f"no end after {self.timeout_seconds:g} seconds"
            failure = Failure(Outcome.FAILED, TIMEOUT, told)
        except ClientError as error:
            failure = Failure.of(error)
        end = perf_counter()
        first = end if watch.first is None else watch.first
        return Record(
            index=job.index,
            policy=job.policy,
            picture=job.picture,
            question=job.question,
            scheduled_seconds=job.scheduled_seconds,
            sent_seconds=sent - begun,
            e2e_seconds=end - due,
            ttft_seconds=None if failure else first - due,
            itl_seconds=() if failure else tuple(watch.gaps),
            tokens=tokens,
            finish_reason=watch.finish_reason,
            failure=failure,
        )

    async def _read(self, job: Job, watch: Watch) -> None:
        with connection_errors(self.lines.url):
            async with (
                self.lines.take() as client,
                client.stream("POST", CHAT_PATH, content=job.content) as response,
            ):
                if response.is_error:
                    await response.aread()
                    raise ApiError.from_response(response)
                async for event in EventSource(response).aiter_sse():
                    watch.take(event.data, perf_counter())
        if not watch.is_complete:
            raise ConnectionFailedError("the stream broke off before the end of the answer")
