"""Asks a server every question under every policy, and hands the records on as they come."""

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field

from skipserve_client.client import AsyncSkipserveClient
from skipserve_client.command_group import CommandError
from skipserve_client.errors import ApiError, ClientError
from skipserve_client.evaluate.records import Conditions, Record
from skipserve_client.evaluate.sample import Sample
from skipserve_client.messages import Message
from skipserve_client.policy_choice import PolicyChoice
from skipserve_client.replies import Answer

# A policy's label, and a question's place in the data.
Place = tuple[str, int]

_SERVERS_FAULT = 500


@dataclass(frozen=True)
class Job:
    """One question under one policy."""

    sample: Sample
    messages: Sequence[Message]
    digest: str
    policy: PolicyChoice


@dataclass(frozen=True)
class Runner:
    """Asks greedily, the policies in turn for each question, so that all see the same machine.

    Each policy has a cache of its own: else the first one asked would compute a picture for those
    that come after it, and look slower than they do.

    Attributes:
        on_record: told of each answer.
        salt: sets this run's caches apart from those of other runs.
    """

    client: AsyncSkipserveClient
    conditions: Conditions
    on_record: Callable[[Record], None]
    salt: str = field(default_factory=lambda: secrets.token_hex(8))

    async def refusal(
        self, sample: Sample, policy: PolicyChoice, *, may_refuse: bool
    ) -> str | None:
        """Ask once, which warms the server up; return why it cannot run the policy, if it may.

        Raises:
            ClientError: the server cannot be reached, or refuses the request.
        """
        try:
            await self._ask(sample.messages(), policy, "warm-up")
        except ApiError as error:
            if may_refuse and error.param == "skip_policy":
                return error.message
            raise
        return None

    async def run(
        self, samples: Sequence[Sample], policies: Sequence[PolicyChoice], kept: Container[Place]
    ) -> None:
        """Ask what is not kept already.

        Raises:
            ClientError: the server cannot be reached, or refuses a request.
            CommandError: it refuses a question.
        """
        jobs = _jobs(samples, policies, kept)

        async def work() -> None:
            for job in jobs:
                self.on_record(await self._record(job))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.conditions.concurrency):
                    group.create_task(work())
        except* (ClientError, CommandError) as errors:
            raise errors.exceptions[0] from None

    async def _record(self, job: Job) -> Record:
        try:
            answer = await self._ask(job.messages, job.policy)
        except ApiError as error:
            if error.status >= _SERVERS_FAULT:
                raise
            raise CommandError(f"{job.sample.name}: {error}") from error
        return Record.of(job.sample, job.digest, job.policy.label, answer, self.conditions)

    async def _ask(
        self, messages: Sequence[Message], policy: PolicyChoice, purpose: str = ""
    ) -> Answer:
        cache = hashlib.sha256(f"{self.salt} {policy.label} {purpose}".encode()).hexdigest()
        return await self.client.chat(
            messages,
            skip_policy=policy.value,
            cache_salt=cache,
            temperature=0.0,
            max_tokens=self.conditions.max_tokens,
        )


def _jobs(
    samples: Sequence[Sample], policies: Sequence[PolicyChoice], kept: Container[Place]
) -> Iterator[Job]:
    """Yield every question under every policy, but for what is kept."""
    for sample in samples:
        missing = [policy for policy in policies if (policy.label, sample.index) not in kept]
        if missing:
            messages = sample.messages()
            digest = sample.digest(messages)
            for policy in missing:
                yield Job(sample, messages, digest, policy)
