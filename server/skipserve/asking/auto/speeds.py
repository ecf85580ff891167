"""How long requests take, learnt from those that have ended. Knows no request."""

from collections.abc import Callable
from dataclasses import dataclass

# The weight of what came last; of what was slower than before it is less.
_WEIGHT, _SLOWER_WEIGHT = 0.2, 0.05
# Tokens of an answer, before there was one.
_FIRST_GUESS = 16
# What nobody has seen for so long says nothing of now.
_FRESH_SECONDS = 600.0
# After so long without an answer one request is let through, whatever is expected of it.
_PROBE_SECONDS = 5.0
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
        self._value = value if mean is None else self._joined(mean, value)
        self._taken_at = self._clock()

    def _joined(self, mean: float, value: float) -> float:
        return mean + _WEIGHT * (value - mean)


class Pace(Mean):
    """Seconds for each FLOP of those that had the engine to themselves, as far as some had of late.

    What takes longer has shared its steps with others. For those there is the wait: to count them
    here too would have a server refuse for long what it could answer again.
    """

    def _joined(self, mean: float, value: float) -> float:
        return value if value < mean else mean + _SLOWER_WEIGHT * (value - mean)


class _Paces:
    """Those of both phases."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.prompt, self.answer = Pace(clock), Pace(clock)

    def take(self, flops: Work, seconds: Work) -> None:
        if flops.prompt:
            self.prompt.take(seconds.prompt / flops.prompt)
        if flops.answer and seconds.answer:
            self.answer.take(seconds.answer / flops.answer)


class Speeds:
    """Seconds for each FLOP under each policy, and how long answers are.

    Both phases have a pace of their own: a prompt is bound by what is computed, an answer by what
    is read. A policy that nobody has run of late is taken to be as fast for each FLOP as all
    together.

    Args:
        clock: the time in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._all = _Paces(clock)
        self._of: dict[str, _Paces] = {}
        self._num_tokens = Mean(clock)
        self._rest = Pace(clock)
        self._tried_at = clock()

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
        self._tried_at = self._clock()
        self._num_tokens.take(num_tokens)
        self._rest.take(seconds.rest)
        self._all.take(flops, seconds)
        if digest in self._of or len(self._of) < _MAX_POLICIES:
            self._of.setdefault(digest, _Paces(self._clock)).take(flops, seconds)

    def take_probe(self) -> bool:
        """Return whether a request is to be let through that is expected to be late; one at a time.

        A server that refuses all that it expects to be late learns nothing more, and would never
        find that it has become quick again.
        """
        if self._clock() - self._tried_at <= _PROBE_SECONDS:
            return False
        self._tried_at = self._clock()
        return True

    def seconds(self, digest: str, flops: Work) -> float | None:
        """Return how long a request should take but for its wait; None if nobody knows."""
        prompt = self._pace(digest, lambda it: it.prompt)
        answer = self._pace(digest, lambda it: it.answer)
        if prompt is None:
            return None
        return flops.prompt * prompt + flops.answer * (answer or 0.0) + (self._rest.value or 0.0)

    def _pace(self, digest: str, phase: Callable[[_Paces], Mean]) -> float | None:
        own = self._of.get(digest)
        value = None if own is None else phase(own).value
        return phase(self._all).value if value is None else value
