"""How long requests take, learnt from those that have ended. Knows no request and no clock."""

from collections.abc import Callable
from dataclasses import dataclass

# The weight of what came last.
_WEIGHT = 0.2
# Tokens of an answer, before there was one.
_FIRST_GUESS = 16
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
    """A mean in which what came last weighs most.

    Attributes:
        value: the mean; None while there is none.
    """

    def __init__(self) -> None:
        self.value: float | None = None

    def take(self, value: float) -> None:
        """Count a value."""
        self.value = value if self.value is None else self.value + _WEIGHT * (value - self.value)


class _Pace:
    """Seconds for each FLOP, by phase."""

    def __init__(self) -> None:
        self.prompt, self.answer = Mean(), Mean()

    def take(self, flops: Work, seconds: Work) -> None:
        if flops.prompt:
            self.prompt.take(seconds.prompt / flops.prompt)
        if flops.answer and seconds.answer:
            self.answer.take(seconds.answer / flops.answer)


class Speeds:
    """Seconds for each FLOP under each policy, and how long answers are.

    Both phases have a pace of their own: a prompt is bound by what is computed, an answer by what
    is read. A policy that nobody has run yet is taken to be as fast for each FLOP as all together.
    """

    def __init__(self) -> None:
        self._all = _Pace()
        self._of: dict[str, _Pace] = {}
        self._num_tokens = Mean()
        self._rest = Mean()

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
            self._of.setdefault(digest, _Pace()).take(flops, seconds)

    def seconds(self, digest: str, flops: Work) -> float | None:
        """Return how long a request should take but for its wait; None before any has ended."""
        prompt = self._pace(digest, lambda it: it.prompt)
        answer = self._pace(digest, lambda it: it.answer)
        if prompt is None:
            return None
        return flops.prompt * prompt + flops.answer * (answer or 0.0) + (self._rest.value or 0.0)

    def _pace(self, digest: str, phase: Callable[[_Pace], Mean]) -> float | None:
        own = self._of.get(digest)
        value = None if own is None else phase(own).value
        return phase(self._all).value if value is None else value
