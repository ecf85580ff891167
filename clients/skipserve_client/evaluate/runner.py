"""Asks a server every question under every policy, and gathers the answers."""

import asyncio
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from skipserve_client.client import AsyncSkipserveClient
from skipserve_client.errors import ApiError, ClientError
from skipserve_client.evaluate.dataset import Example
from skipserve_client.evaluate.results import Answered, Evaluation, PolicyResult
from skipserve_client.messages import Message, question_messages
from skipserve_client.replies import Answer


@dataclass(frozen=True)
class Job:
    """One question under one policy."""

    example: Example
    messages: Sequence[Message]
    policy: str


@dataclass(frozen=True)
class Runner:
    """Asks greedily, the policies in turn for each question, so that all see the same machine.

    Each policy has a cache of its own: else the first one asked would compute a picture for those
    that come after it, and look slower than they do.

    Attributes:
        concurrency: requests under way at a time.
        max_tokens: at most so many tokens are answered.
        on_progress: told of each answer.
        salt: sets this run's caches apart from those of other runs.
    """

    client: AsyncSkipserveClient
    concurrency: int
    max_tokens: int
    on_progress: Callable[[], None]
    salt: str = field(default_factory=lambda: secrets.token_hex(8))

    async def run(
        self, examples: Iterable[Example], policies: Sequence[str], *, keeps_misfits_out: bool
    ) -> Evaluation:
        """Evaluate some policies.

        Args:
            examples: at least one question.
            policies: names.
            keeps_misfits_out: leave out a policy that the model cannot run, rather than fail.

        Raises:
            ClientError: the server cannot be reached, or refuses a request.
        """
        remaining = iter(examples)
        first = next(remaining)
        messages = question_messages(first.image, first.question)
        left_out: dict[str, str] = {}
        for policy in policies:
            if reason := await self._refusal(Job(first, messages, policy), keeps_misfits_out):
                left_out[policy] = reason
        fitting = [policy for policy in policies if policy not in left_out]
        by_policy: dict[str, list[Answered]] = {policy: [] for policy in fitting}
        for item in await self._ask_all(_jobs(chain([first], remaining), fitting)):
            by_policy[item.policy].append(item)
        results = {name: PolicyResult.from_answers(items) for name, items in by_policy.items()}
        return Evaluation(results, left_out)

    async def _refusal(self, job: Job, keeps_misfits_out: bool) -> str | None:
        """Ask once, which warms the server up; return why it refuses, if it may."""
        try:
            await self._ask(job)
        except ApiError as error:
            if keeps_misfits_out and error.param == "skip_policy":
                return error.message
            raise
        return None

    async def _ask_all(self, jobs: Iterator[Job]) -> list[Answered]:
        answered: list[Answered] = []

        async def work() -> None:
            for job in jobs:
                answered.append(Answered(job.policy, job.example, await self._ask(job)))
                self.on_progress()

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.concurrency):
                    group.create_task(work())
        except* ClientError as errors:
            raise errors.exceptions[0] from None
        return answered

    async def _ask(self, job: Job) -> Answer:
        return await self.client.chat(
            job.messages,
            skip_policy=job.policy,
            cache_salt=f"{self.salt}-{job.policy}",
            temperature=0.0,
            max_tokens=self.max_tokens,
        )


def _jobs(examples: Iterable[Example], policies: Sequence[str]) -> Iterator[Job]:
    """Yield every question under every policy."""
    for example in examples:
        messages = question_messages(example.image, example.question)
        for policy in policies:
            yield Job(example, messages, policy)
