"""Asks a server every question under every policy, and hands the records on as they come."""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from skipserve_client.calls import ChatOptions
from skipserve_client.client import AsyncSkipserveClient
from skipserve_client.command_group import CommandError
from skipserve_client.errors import ApiError, ClientError
from skipserve_client.evaluate.records import Conditions, Record
from skipserve_client.evaluate.sample import Sample
from skipserve_client.messages import Message
from skipserve_client.policy_choice import PolicyChoice

# A policy's label, and a question's place in the data.
Place = tuple[str, int]

# What a server says of a question: not of a key, a route, its load or itself.
_OF_QUESTIONS = {400, 413, 422}
_POLICY = "skip_policy"


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
        model: the name to ask for; None for the server's only one.
        has_policies: whether the server knows skip policies; one that does not is sent no more
            than what every server of OpenAI's form takes, and the client measures how long it took.
        salt: sets this run's caches apart from those of other runs.
    """

    client: AsyncSkipserveClient
    conditions: Conditions
    on_record: Callable[[Record], None]
    model: str | None = None
    has_policies: bool = True
    salt: str = field(default_factory=lambda: secrets.token_hex(8))

    async def refusal(
        self, sample: Sample, policy: PolicyChoice, *, may_refuse: bool
    ) -> str | None:
        """Ask once, which warms the server up; return why it cannot run the policy, if it may.

        Raises:
            ClientError: the server cannot be reached, or refuses the request.
            CommandError: it refuses the question, or a policy that it may not.
        """
        messages = sample.messages()
        job = Job(sample, messages, sample.digest(messages), policy)
        with _naming(sample, policy):
            try:
                await self._record(job, "warm-up")
            except ApiError as error:
                if not may_refuse or error.param != _POLICY:
                    raise
                return error.message
        return None

    async def run(
        self, samples: Sequence[Sample], policies: Sequence[PolicyChoice], kept: Container[Place]
    ) -> None:
        """Ask what is not kept already.

        Raises:
            ClientError: the server cannot be reached, or refuses a request.
            CommandError: it refuses a question or a policy.
        """
        jobs = _jobs(samples, policies, kept)

        async def work() -> None:
            for job in jobs:
                self.on_record(await self._named_record(job))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.conditions.concurrency):
                    group.create_task(work())
        except* (ClientError, CommandError) as errors:
            raise errors.exceptions[0] from None

    async def _named_record(self, job: Job) -> Record:
        with _naming(job.sample, job.policy):
            return await self._record(job)

    async def _record(self, job: Job, purpose: str = "") -> Record:
        if not self.has_policies:
            return await self._plain_record(job)
        options = self._options
        options["skip_policy"] = job.policy.value
        salt = f"{self.salt} {job.policy.label} {purpose}"
        options["cache_salt"] = hashlib.sha256(salt.encode()).hexdigest()
        answer = await self.client.chat(job.messages, **options)
        return Record.of(job.sample, job.digest, job.policy.label, answer, self.conditions)

    async def _plain_record(self, job: Job) -> Record:
        begun = time.monotonic()
        answer = await self.client.plain_chat(job.messages, **self._options)
        seconds = time.monotonic() - begun
        return Record.of_plain(job.sample, job.digest, answer, seconds, self.conditions)

    @property
    def _options(self) -> ChatOptions:
        options = ChatOptions(temperature=0.0, max_tokens=self.conditions.max_tokens)
        if self.model is not None:
            options["model"] = self.model
        return options


@contextmanager
def _naming(sample: Sample, policy: PolicyChoice) -> Iterator[None]:
    """Name the question or the policy, where that is what the server refuses.

    Raises:
        CommandError: it is.
    """
    try:
        yield
    except ApiError as error:
        is_policy = error.param == _POLICY
        if error.status not in _OF_QUESTIONS or (is_policy and policy.label in error.message):
            raise
        raise CommandError(f"{policy.label if is_policy else sample.name}: {error}") from error


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
