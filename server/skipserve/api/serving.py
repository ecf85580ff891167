"""What the routes work with: everything that was built once for the served model."""

import asyncio
import contextlib
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Annotated, Protocol

from fastapi import Depends
from prometheus_client import CollectorRegistry
from pydantic import BaseModel
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Scope

from skipserve.api.admission import Admission, Arrival, Permit
from skipserve.api.exchange import Exchange, exchange_of
from skipserve.api.streaming import EventStream, StreamWriter, Taking
from skipserve.api.wire import MAX_TOLD_OF_PROMPTS
from skipserve.asking.account import Account
from skipserve.asking.answer import AnswerText, Piece, WholeAnswer
from skipserve.asking.asker import Asker
from skipserve.asking.auto.terms import Surroundings
from skipserve.asking.merging import merged
from skipserve.asking.policy_changes import PolicyChanges
from skipserve.asking.preparation import Preparation
from skipserve.asking.processor import QuestionProcessor
from skipserve.asking.question import Prepared, Question
from skipserve.asking.report import num_visual
from skipserve.budgets.accounts import Accounts, OwnAccounts
from skipserve.budgets.client import Client, Cost, Resource
from skipserve.budgets.clients import Clients
from skipserve.budgets.usage_log import UsageLog
from skipserve.engine.reports import FailureKind, FinishReason, Stage, StepOutput
from skipserve.engine.request import Request
from skipserve.errors import InvalidRequestError, RequestTimeoutError
from skipserve.metrics.registry import ServerMetrics
from skipserve.service.service import Service
from skipserve_policies.catalog import AUTO_NAME


class AnswerWriter(StreamWriter, Protocol):
    """Puts an answer into the form of a route, whole or as a stream."""

    def reply(self, answers: Sequence[WholeAnswer]) -> BaseModel:
        """Return the reply to a request whose answers are whole."""


@dataclass(frozen=True)
class Case:
    """A question of a request with what it holds, on its way.

    Attributes:
        account: of the question.
        permit: its own.
    """

    account: Account
    permit: Permit


@dataclass(frozen=True)
class Serving:
    """The server behind the routes.

    Attributes:
        service: the engine.
        preparation: questions to requests.
        admission: who may come in.
        metrics: where requests are counted.
        registry: what `/metrics` shows.
        clients: those who have keys.
        usage_log: where their use is written; None for nowhere.
        changes: adds policies and removes them; None where that is switched off.
        accounts: where what clients use is counted.
        show_metrics: returns what `/metrics` shows instead; None where that is the registry.
        keep_alive_seconds: between signs of life in a stream.
        created: when the server started, in seconds since 1970.
    """

    service: Service
    preparation: Preparation
    admission: Admission
    metrics: ServerMetrics
    registry: CollectorRegistry
    clients: Clients
    keep_alive_seconds: float
    usage_log: UsageLog | None = None
    changes: PolicyChanges | None = None
    accounts: Accounts = field(default_factory=OwnAccounts)
    show_metrics: Callable[[], Awaitable[bytes]] | None = None
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def processor(self) -> QuestionProcessor:
        """What questions are prepared with, and answers put together."""
        return self.preparation.processor

    def surroundings(self) -> Surroundings:
        """Return how the server stands, for the choice of a policy."""
        ready, wait_seconds = self.service.ready, self.admission.wait_seconds
        if ready is None:
            return Surroundings(wait_seconds=wait_seconds)
        return Surroundings(ready.weights_digest, ready.num_cache_tokens, wait_seconds)

    async def reload(self) -> None:
        """Read the keys file again, and open the usage log again."""
        await self.clients.reload()
        self.metrics.know_keys(self.clients.names)
        if self.usage_log is not None:
            self.usage_log.reopen()

    async def prepare(self, question: Question, case: Case, client: Client) -> None:
        """Make a question ready for the engine.

        Args:
            question: what is asked.
            case: its own.
            client: who asks.

        Raises:
            SkipserveError: any of those that a client can be told of, but for the engine's.
        """
        ready = self.service.ready
        num_cache_tokens = ready.num_cache_tokens if ready else None
        account = case.account
        account.tells_cached = self.clients.tells_cached(client)
        asker = Asker(client, self.clients.isolation(client), account.asked)
        account.start(await self.preparation.prepare(question, asker, num_cache_tokens))

    async def line_up(self, exchange: Exchange, cases: Sequence[Case]) -> None:
        """Reserve what a request's prepared questions may cost, and let them wait for the engine.

        Raises:
            InvalidRequestError: whoever asks can never pay for them, or a reply could not tell all
                that is asked of their prompts.
            RateLimitError: it cannot now.
            UnavailableError: too much waits there.
        """
        _check_told(case.account.prepared for case in cases)
        if exchange.spending is not None:
            await exchange.spending.reserve(*(_bound(case.account.prepared) for case in cases))
        for case in cases:
            prepared = case.account.prepared
            num_choices = prepared.generation.num_choices
            case.permit.join_queue(prepared.request.num_prompt * num_choices, num_choices)

    async def respond(
        self, exchange: Exchange, cases: Sequence[Case], writer: AnswerWriter
    ) -> Response:
        """Return the reply to prepared questions, or the stream that will be it.

        Raises:
            SkipserveError: the engine refused a request, failed or died; not for a stream, which
                raises itself until all its questions have been taken.
        """
        headers = _policy_headers(exchange.prepared)
        taking = Taking(sum(len(case.account.choices) for case in cases))
        pieces = _together([self._answer(cases, index, taking) for index in range(len(cases))])
        if exchange.wants_stream:
            seconds = self.keep_alive_seconds
            return EventStream(pieces, writer, headers, seconds, exchange.fail, taking.wait)
        async with contextlib.aclosing(pieces):
            whole = WholeAnswer.join_all([piece async for piece in pieces])
        # The tokens of a prompt may be thousands.
        is_long = any(answer.prompt is not None for answer in whole)
        reply = (
            await asyncio.to_thread(_written, writer, whole) if is_long else _written(writer, whole)
        )
        return Response(reply, 200, headers, media_type="application/json")

    async def _answer(
        self, cases: Sequence[Case], index: int, taking: Taking
    ) -> AsyncGenerator[Piece, None]:
        """Run a question and yield its answers; closing the generator cancels it.

        Args:
            cases: those of the request's questions. The account of its own grows with each step,
                the permit leaves the queue with the first token.
            index: which of the questions it is.
            taking: hears that an engine has taken it.

        Raises:
            SkipserveError: the engine refused the request, failed or died.
        """
        account, permit = cases[index].account, cases[index].permit
        prepared = account.prepared
        self._record_start(prepared)
        permit.hand_over()
        texts = [self.processor.answer_text(prepared, it) for it in range(len(account.choices))]
        answers = [
            self._choice(request, cases[index], text, taking)
            for request, text in zip(prepared.requests, texts, strict=True)
        ]
        try:
            async with contextlib.aclosing(_together(answers)) as pieces:
                async for piece in pieces:
                    if piece.finish_reason is not None:
                        reporter = self.processor.reporter
                        account.finish(piece.finish_reason, reporter, piece.choice)
                    yield replace(piece, index=index) if index else piece
        except Exception as error:
            account.is_given_up = _is_out_of_time(error)
            account.has_failed = not account.is_given_up
            raise
        except (asyncio.CancelledError, GeneratorExit):
            # One that fails ends the others.
            account.is_given_up = not any(case.account.has_failed for case in cases)
            account.finish_reason = account.finish_reason or FinishReason.CANCELLED
            raise
        finally:
            detokenize = sum(text.seconds for text in texts)
            account.stage_seconds |= prepared.stage_seconds | {Stage.DETOKENIZE: detokenize}
            self._record_end(account)

    async def _choice(
        self, request: Request, case: Case, text: AnswerText, taking: Taking
    ) -> AsyncGenerator[Piece, None]:
        """Yield one answer of a question."""
        account, permit, choice = case.account, case.permit, request.sampling.choice

        def note(engine: str) -> None:
            account.engine = engine
            taking.note(request.id)

        async with contextlib.aclosing(self.service.stream(request, note)) as outputs:
            async for output in outputs:
                permit.leave_queue()
                self._count(output, account, choice)
                piece = text.push(output)
                yield piece
                if piece.finish_reason is not None:
                    break

    def _count(self, output: StepOutput, account: Account, choice: int) -> None:
        answer = account.choices[choice]
        last_token = answer.last_token
        is_first = last_token is None and account.first_token is None
        account.take(output, choice)
        if output.token_id is None or answer.last_token is None:
            return
        request, metrics = account.prepared.request, self.metrics
        name = request.policy_name
        if is_first:
            metrics.record_first_token(name, answer.last_token - account.asked)
        if last_token is not None:
            metrics.record_inter_token(name, answer.last_token - last_token)
        else:
            metrics.record_prefix_use(name, request.num_prompt, output.num_cached_tokens)

    def _record_start(self, prepared: Prepared) -> None:
        request, num_rows = prepared.request, num_visual(prepared.request)
        self.metrics.record_prompt(
            request.policy_name, request.num_prompt - num_rows, num_rows, len(request.images)
        )
        if prepared.chosen is not None:
            self.metrics.record_choice(request.policy_name, prepared.chosen.because.reason)
        for stage, seconds in prepared.stage_seconds.items():
            self.metrics.record_stage(stage, seconds)

    def _record_end(self, account: Account) -> None:
        account.settle(self.processor.reporter)
        if account.skip is not None:
            self.processor.auto.settle(account)
        name = account.prepared.request.policy_name
        self.metrics.record_stage(Stage.DETOKENIZE, account.stage_seconds[Stage.DETOKENIZE])
        self.metrics.record_request(name, account.finish_reason, account.elapsed_seconds)


def _policy_headers(prepared: Prepared) -> dict[str, str]:
    """Return what a reply says of the policy that runs."""
    headers = {"X-Skip-Policy": prepared.policy.name}
    if prepared.chosen is not None:
        headers["X-Skip-Policy-Requested"] = AUTO_NAME
    return headers


def _written(writer: AnswerWriter, answers: Sequence[WholeAnswer]) -> str:
    return writer.reply(answers).model_dump_json()


def _is_out_of_time(error: Exception) -> bool:
    """Whether what ended a question is that it took longer than it was given."""
    return isinstance(error, RequestTimeoutError) and error.reason == FailureKind.DEADLINE


def _check_told(questions: Iterable[Prepared]) -> None:
    """Refuse to tell more of a request's prompts than a reply may hold.

    Raises:
        InvalidRequestError: it is too much.
    """
    num_told = sum(
        it.request.num_scored
        * (1 + (it.request.num_prompt_logprobs or 0))
        * it.generation.num_choices
        for it in questions
    )
    if num_told > MAX_TOLD_OF_PROMPTS:
        raise InvalidRequestError(
            f"{num_told} log-probabilities of prompts are asked for, at most "
            f"{MAX_TOLD_OF_PROMPTS} are told in a reply; send fewer prompts at once, or ask for "
            "fewer alternatives",
            param="prompt_logprobs",
        )


def _bound(prepared: Prepared) -> Cost:
    """Return the most that a question can cost whoever pays for it: nothing found in a cache."""
    request, num_choices = prepared.request, prepared.generation.num_choices
    num_tokens = request.num_prompt + request.sampling.max_tokens
    return {
        Resource.TOKENS: num_choices * num_tokens,
        Resource.FLOPS: num_choices * request.planned_flops,
    }


def _together(sources: Sequence[AsyncGenerator[Piece, None]]) -> AsyncGenerator[Piece, None]:
    return merged(sources) if len(sources) > 1 else sources[0]


@asynccontextmanager
async def arrive(scope: Scope) -> AsyncIterator[Arrival]:
    """Let a request in, count it as its client's, and yield what its body is counted in."""
    serving: Serving = scope["app"].state.serving
    exchange = exchange_of(scope)
    client = exchange.client
    with serving.admission.arrive(client) as arrival:
        async with serving.accounts.spend(client) as exchange.spending:
            yield arrival


async def get_serving(request: HttpRequest) -> Serving:
    """Return what the app was built with; for FastAPI's `Depends`."""
    serving: Serving = request.app.state.serving
    return serving


TheServing = Annotated[Serving, Depends(get_serving)]
