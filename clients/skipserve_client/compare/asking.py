"""Asks one question under several policies, so that their times can be held side by side."""

import asyncio
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter

from skipserve_client.calls import ChatOptions
from skipserve_client.client import AsyncSkipserveClient
from skipserve_client.messages import Message
from skipserve_client.policy_choice import PolicyChoice
from skipserve_client.replies import Answer

# The forward of a prompt, and one of decoding.
_WARM_UP_TOKENS = 2


@dataclass(frozen=True)
class TimedAnswer:
    """An answer with the times that the client saw.

    Attributes:
        first_token_seconds: to the first text; to the end where there is none.
        seconds: to the end.
    """

    answer: Answer
    first_token_seconds: float
    seconds: float


# The answers of each policy, by its label, a repeat after the other.
Answers = dict[str, list[TimedAnswer]]


@dataclass(frozen=True)
class Comparison:
    """What to ask.

    Attributes:
        options: of each request, but for the policy and the salt.
        policies: in the order in which they are told.
        repeats: so many answers of each.
        is_warm: whether what was computed for one answer may serve another. Else each answer has
            a cache of its own, so that none is quicker for coming later.
        is_at_once: whether the policies of a repeat are asked together. Else they take turns,
            and in each repeat another one begins.
        salt: sets the caches of this comparison apart from those of others.
    """

    messages: Sequence[Message]
    options: ChatOptions
    policies: Sequence[PolicyChoice]
    repeats: int = 1
    is_warm: bool = False
    is_at_once: bool = False
    salt: str = field(default_factory=lambda: secrets.token_hex(8))

    async def ask(self, client: AsyncSkipserveClient) -> Answers:
        """Ask, after each policy has answered two tokens that do not count.

        Raises:
            ClientError: the server cannot be reached, or refuses a request.
        """
        for policy in self.policies:
            await self._answer(client, policy, "warm-up", _WARM_UP_TOKENS)
        answers: Answers = {policy.label: [] for policy in self.policies}
        for number in range(self.repeats):
            for label, answer in zip(*await self._round(client, number), strict=True):
                answers[label].append(answer)
        return answers

    async def _round(
        self, client: AsyncSkipserveClient, number: int
    ) -> tuple[list[str], list[TimedAnswer]]:
        first = number % len(self.policies)
        order = [*self.policies[first:], *self.policies[:first]]
        asking = [self._answer(client, policy, str(number)) for policy in order]
        if self.is_at_once:
            answers = list(await asyncio.gather(*asking))
        else:
            answers = [await each for each in asking]
        return [policy.label for policy in order], answers

    async def _answer(
        self,
        client: AsyncSkipserveClient,
        policy: PolicyChoice,
        purpose: str,
        max_tokens: int | None = None,
    ) -> TimedAnswer:
        options = self.options.copy()
        options["skip_policy"] = policy.value
        if max_tokens is not None:
            options["max_tokens"] = max_tokens
        if not self.is_warm:
            salt = f"{self.salt} {policy.label} {purpose}"
            options["cache_salt"] = hashlib.sha256(salt.encode()).hexdigest()
        begun = perf_counter()
        first: float | None = None
        async with client.stream_chat(self.messages, **options) as stream:
            async for _ in stream:
                if first is None:
                    first = perf_counter() - begun
            seconds = perf_counter() - begun
        return TimedAnswer(stream.answer, seconds if first is None else first, seconds)
