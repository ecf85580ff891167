"""One HTTP request and all that becomes known of it: what logs, traces and replies tell."""

import re
import time
import uuid
from functools import cached_property
from typing import Annotated

from fastapi import Depends
from starlette.datastructures import Headers
from starlette.requests import Request as HttpRequest
from starlette.types import Scope

from skipserve.api.auth import client_of
from skipserve.asking.account import Account
from skipserve.budgets.client import Client, Use
from skipserve.errors import SkipserveError

_CLIENT_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_MAX_PATH_LENGTH = 200
_MAX_METHOD_LENGTH = 20
_STATE_NAME = "exchange"


class Exchange(Account):
    """A request on its way through the server, and the account of the question that it may ask.

    A client's `X-Request-Id` is echoed where it is harmless, and used for nothing else.

    Attributes:
        request_id: told to the client, and in every line of the log about it.
        headers: those of the request.
        method, path: what is asked for; harmless to print.
        address: where it comes from.
        arrived: when, on the clock of `perf_counter`.
        arrived_at: the same in nanoseconds since 1970.
        status: of the reply; None until it begins.
        error: the kind of the error that the client was told, in the reply or in a stream.
        reason: why, in the words of the metrics; None where they have none.
        wants_stream: whether the answer is to be streamed.
        ignored_fields: fields of the request that were taken and change nothing, sorted.
        others: the accounts of further questions, where it asks several at once.

    Args:
        scope: the request, which remembers its exchange.
    """

    def __init__(self, scope: Scope) -> None:
        super().__init__()
        self.arrived = time.perf_counter()
        self.arrived_at = time.time_ns()
        self.headers = Headers(scope=scope)
        self.request_id = request_id_of(self.headers.get("x-request-id", ""))
        self.method: str = scope["method"][:_MAX_METHOD_LENGTH]
        self.address: str = (scope.get("client") or ("",))[0]
        self.path = ascii(scope["path"])[1:-1][:_MAX_PATH_LENGTH]
        self.status: int | None = None
        self.error: type[SkipserveError] | None = None
        self.reason: str | None = None
        self.wants_stream = False
        self.ignored_fields: tuple[str, ...] = ()
        self.others: list[Account] = []
        self._state: dict[str, object] = scope.setdefault("state", {})
        self._state[_STATE_NAME] = self

    def __str__(self) -> str:
        words = [self.method, self.path, str(self.status or "cut off")]
        if self.has_started:
            words.append(self.prepared.policy.name)
        words.append(f"{self.duration_seconds:.3f} s")
        # A stream that fails has begun with a 200.
        words.extend(filter(None, (self.error_type, self.reason)))
        return " ".join(words)

    @cached_property
    def client(self) -> Client:
        """Whose it is: known when its key was looked at."""
        return client_of(self._state, self.address)

    @property
    def duration_seconds(self) -> float:
        """Time since the request came."""
        return time.perf_counter() - self.arrived

    @property
    def error_type(self) -> str | None:
        """The name of that kind, as the client was told it."""
        return None if self.error is None else self.error.type

    @property
    def accounts(self) -> tuple[Account, ...]:
        """Those of all its questions that run, its own first."""
        return tuple(account for account in (self, *self.others) if account.has_started)

    @property
    def total_use(self) -> Use | None:
        """What all its questions have taken that the engine has had; None where it had none."""
        uses = [account.use for account in self.accounts if account.use is not None]
        return sum(uses, start=Use()) if uses else None

    def fail(self, error: SkipserveError) -> None:
        """Note the error that the client is told; not itself, which would keep the body alive."""
        self.error, self.reason = type(error), error.reason

    def describe(self) -> dict[str, object]:
        """Return the fields of its line in the log: never a prompt, an answer or a key."""
        fields: dict[str, object] = {
            "method": self.method,
            "path": self.path,
            "status": self.status,
            "duration_seconds": round(self.duration_seconds, 6),
            "error": self.error_type,
            "reason": self.reason,
        }
        if self.client.name is not None:
            fields["key"] = self.client.name
        return fields | self._describe_answer() if self.has_started else fields

    def _describe_answer(self) -> dict[str, object]:
        policy, accounts = self.prepared.policy, self.accounts
        requests = [account.prepared.request for account in accounts]
        chosen = self.prepared.chosen
        reason = {"skip_policy_reason": chosen.because.reason} if chosen else {}
        engine = {"engine": self.engine} if self.engine else {}
        return engine | {
            "stream": self.wants_stream,
            "skip_policy": policy.name,
            "skip_policy_digest": policy.digest,
            **reason,
            "finish_reason": self.finish_reason,
            "prompts": len(accounts),
            "prompt_tokens": sum(request.num_prompt for request in requests),
            "cached_tokens": sum(account.num_cached for account in accounts),
            "completion_tokens": sum(account.num_generated for account in accounts),
            "images": sum(len(request.images) for request in requests),
            "queue_seconds": _rounded(self.queue_seconds),
            "time_to_first_token_seconds": _rounded(self.time_to_first_token_seconds),
            "inter_token_latency_seconds": _rounded(self.inter_token_latency_seconds),
        }


def request_id_of(given: str) -> str:
    """Return the id of a request whose client gives one: that, where it is harmless."""
    return given if _CLIENT_ID.fullmatch(given) else f"req-{uuid.uuid4().hex}"


def _rounded(seconds: float | None) -> float | None:
    """Return a time in whole microseconds."""
    return None if seconds is None else round(seconds, 6)


def exchange_of(scope: Scope) -> Exchange:
    """Return the exchange of a request."""
    exchange: Exchange = scope["state"][_STATE_NAME]
    return exchange


async def get_exchange(request: HttpRequest) -> Exchange:
    """Return the exchange of a request; for FastAPI's `Depends`."""
    return exchange_of(request.scope)


TheExchange = Annotated[Exchange, Depends(get_exchange)]
