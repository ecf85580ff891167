"""How long requests take, learnt from those that have ended. Knows no request."""

import time
from collections.abc import Callable
from dataclasses import dataclass

# The weight of what came last.
_WEIGHT = 0.2
# Tokens of an answer, before there was one.
_FIRST_GUESS = 16
# What nobody has seen for so long says nothing of now.
_FRESH_SECONDS = 30.0
# What a wait may be mistaken by.
_LEAST_BIAS, _MOST_BIAS = 0.2, 5.0
# Policies that are remembered: those that have a name, and some.
_MAX_POLICIES = 1024


@dataclass(frozen=True)
class Work:
    """FLOPs of a request, or the seconds that they took, by phase.

    Attributes:
        prompt: up to the first token.
        answer: from there to the last.
        rest: what takes time besides, whatever the policy.
    """

    prompt: float
    answer: float
    rest: float = 0.0


class Mean:
    """A mean in which what came last weighs most, and of which nothing is left after a while.

    Args:
        clock: the time in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._value = 0.0
        self._taken_at: float | None = None

    @property
    def value(self) -> float | None:
        """The mean; None while there is none."""
        if self._taken_at is None or self._clock() - self._taken_at > _FRESH_SECONDS:
            return None
        return self._value

    def take(self, value: float) -> None:
        """Count a value."""
        mean = self.value
        self._value = value if mean is None else mean + _WEIGHT * (value - mean)
        self._taken_at = self._clock()


class _Pace:
    """Seconds for each FLOP, by phase."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.prompt, self.answer = Mean(clock), Mean(clock)

    def take(self, flops: Work, seconds: Work) -> None:
        if flops.prompt:
            self.prompt.take(seconds.prompt / flops.prompt)
        if flops.answer and seconds.answer:
            self.answer.take(seconds.answer / flops.answer)


class Speeds:
    """Seconds for each FLOP under each policy, and how long answers are.

    Both phases have a pace of their own: a prompt is bound by what is computed, an answer by what
    is read. A policy that nobody has run of late is taken to be as fast for each FLOP as all
    together. Where no request has ended of late nothing is expected: a server that refuses whatever
    it expects to be late would else never learn that it has become quick again.

    Args:
        clock: the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._all = _Pace(clock)
        self._of: dict[str, _Pace] = {}
        self._num_tokens = Mean(clock)
        self._rest = Mean(clock)
        self._bias = Mean(clock)

    def expected_tokens(self, most: int) -> int:
        """Return how many tokens an answer is expected to have that may have so many at most."""
        usual = self._num_tokens.value
        return max(1, min(most, _FIRST_GUESS if usual is None else round(usual)))

    def learn(self, digest: str, flops: Work, seconds: Work, num_tokens: int) -> None:
        """Count a request that has ended.

        Args:
            digest: of its policy.
            flops: what was computed for it.
            seconds: what that took.
            num_tokens: of its answer.
        """
        self._num_tokens.take(num_tokens)
        self._rest.take(seconds.rest)
        self._all.take(flops, seconds)
        if digest in self._of or len(self._of) < _MAX_POLICIES:
            self._of.setdefault(digest, _Pace(self._clock)).take(flops, seconds)

    def learn_bias(self, expected: float, actual: float) -> None:
        """Count how long a request took of which something was expected, before it was corrected.

        Under load what waits is counted twice: in the wait, and in the pace of those that share
        their steps with others.
        """
        self._bias.take(min(max(actual / expected, _LEAST_BIAS), _MOST_BIAS))

    def corrected(self, expected: float) -> float:
        """Return how long a request should take by what came of others that were expected."""
        return expected * (self._bias.value or 1.0)

    def seconds(self, digest: str, flops: Work) -> float | None:
        """Return how long a request should take but for its wait; None if nobody knows."""
        prompt = self._pace(digest, lambda it: it.prompt)
        answer = self._pace(digest, lambda it: it.answer)
        if prompt is None:
            return None
        return flops.prompt * prompt + flops.answer * (answer or 0.0) + (self._rest.value or 0.0)

    def _pace(self, digest: str, phase: Callable[[_Pace], Mean]) -> float | None:
        own = self._of.get(digest)
        value = None if own is None else phase(own).value
        return phase(self._all).value if value is None else value
