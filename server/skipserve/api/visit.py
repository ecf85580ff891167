"""One request that asks the model: what it holds in the server until its reply is sent."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Header
from starlette.responses import Response

from skipserve.api.exchange import Exchange, TheExchange
from skipserve.api.serving import AnswerWriter, Case, Serving, TheServing
from skipserve.asking.account import Account
from skipserve.asking.auto.chosen import Chosen
from skipserve.asking.question import Question

MakeWriter = Callable[[Sequence[Account], int], AnswerWriter]


@dataclass(frozen=True)
class Visit:
    """A request that was let in, whichever form it has.

    Attributes:
        serving: the server.
        exchange: the request.
        policy_header: the header `X-Skip-Policy`.
        first: the case of its first question.
        permits: where those of further questions are held.
    """

    serving: Serving
    exchange: Exchange
    policy_header: str | None
    first: Case
    permits: ExitStack

    async def answer(
        self, questions: Sequence[Question], *, wants_stream: bool, make_writer: MakeWriter
    ) -> Response:
        """Return the reply to a request's questions, or the stream that will be it.

        Args:
            questions: what the request asks, at least one.
            wants_stream: whether the answer is to be streamed.
            make_writer: makes what writes the reply of the questions' accounts, and of the time at
                which they came, in seconds since 1970.

        Raises:
            SkipserveError: any of those that a client can be told of.
        """
        self.exchange.wants_stream = wants_stream
        cases = [self.first, *(self._further_case() for _ in questions[1:])]
        processor = self.serving.processor
        for question, case in zip(questions, cases, strict=True):
            # From here on nobody removes its policy.
            if (name := processor.policy_name(question.policy, question.model)) is not None:
                self.permits.enter_context(processor.policies.hold(name))
            # One policy for all that a request asks, where the server chooses it.
            settled = replace(question, chosen=self._chosen) if self._chosen else question
            await self.serving.prepare(settled, case, self.exchange.client)
        await self.serving.line_up(self.exchange, cases)
        accounts = [case.account for case in cases]
        writer = make_writer(accounts, self.exchange.arrived_at // 10**9)
        return await self.serving.respond(self.exchange, cases, writer)

    @property
    def _chosen(self) -> Chosen | None:
        """What was chosen for the first question; None where nothing was, or not yet."""
        return self.exchange.prepared.chosen if self.exchange.has_started else None

    def _further_case(self) -> Case:
        account = self.exchange.sibling()
        self.exchange.others.append(account)
        return Case(
            account, self.permits.enter_context(self.serving.admission.admit(self.exchange.client))
        )


async def _visit(
    serving: TheServing,
    exchange: TheExchange,
    x_skip_policy: Annotated[str | None, Header()] = None,
) -> AsyncIterator[Visit]:
    """Let a request in until its reply is sent.

    Not a plain generator: that would be left in a thread, which a cancelled request never awaits.
    """
    exchange.ask()
    with ExitStack() as permits:
        permit = permits.enter_context(serving.admission.admit(exchange.client))
        yield Visit(serving, exchange, x_skip_policy, Case(exchange, permit), permits)


TheVisit = Annotated[Visit, Depends(_visit)]
