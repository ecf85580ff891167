"""Chooses a policy for a request: what may be chosen, what it costs now, what is remembered."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from skipserve.asking.account import Account
from skipserve.asking.auto.candidates import Candidates, MeasuredPolicy, may_have
from skipserve.asking.auto.choice import Candidate, Needs, Reason, nearest, pick
from skipserve.asking.auto.chosen import Chosen, ChosenBecause, Trace
from skipserve.asking.auto.costs import Costs, Estimate, Shape
from skipserve.asking.auto.memory import Conversations
from skipserve.asking.auto.terms import AutoTerms, Surroundings, Unmet
from skipserve.asking.auto.wish import AutoWish
from skipserve.asking.policies import PolicyRegistry
from skipserve.budgets.client import Rights
from skipserve.errors import KeyScopeError, PolicyFitError, SkipserveError, UnavailableError
from skipserve_policies.resolve import ResolvedPolicy
from skipserve_policies.sizes import ModelSizes

_MAX_RETRY_SECONDS = 60
_ALL = Rights()


@dataclass(frozen=True)
class Occasion:
    """A request for which a policy is to be chosen.

    Attributes:
        wish: what it asks of the policy.
        rights: what whoever asks may ask for.
        shape: the request.
        trace: what it is remembered by.
        elapsed_seconds: since it was asked.
    """

    wish: AutoWish
    rights: Rights
    shape: Shape
    trace: Trace
    elapsed_seconds: float = 0.0


@dataclass(frozen=True)
class _Option:
    """A policy that may be chosen for a request, and what it would cost there."""

    policy: ResolvedPolicy
    candidate: Candidate
    estimate: Estimate

    def without_limit(self) -> "_Option":
        """Return the same as if nobody knew how long it takes."""
        return replace(self, candidate=replace(self.candidate, seconds=None))


class AutoChooser:
    """Chooses policies, and learns from requests that have ended. Safe in any thread.

    Attributes:
        terms: how policies are chosen.
        is_asked: whether anybody has left it the choice: until then it need learn nothing.

    Args:
        policies: all there are.
        sizes: the model's.
        terms: as above.
        clock: the time in seconds.
    """

    def __init__(
        self,
        policies: PolicyRegistry,
        sizes: ModelSizes,
        terms: AutoTerms,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.terms = terms
        self.is_asked = False
        self._candidates = Candidates(policies, terms)
        self._policies = policies
        self._costs = Costs(sizes, clock)
        self._conversations = Conversations()
        self._is_pressed = False
        self._look: Callable[[], Surroundings] = Surroundings
        self._lock = threading.Lock()

    def watch(self, look: Callable[[], Surroundings]) -> None:
        """Ask how the server stands whenever a policy is chosen."""
        self._look = look

    def measured(self, rights: Rights = _ALL) -> tuple[MeasuredPolicy, ...]:
        """Return the policies that may be chosen for whoever has these rights.

        None where none was measured on the weights that run.
        """
        return self._candidates.of(self._look().weights_digest, rights)

    @property
    def fallback(self) -> ResolvedPolicy:
        """What runs where nothing was measured: the model's own default."""
        return self._policies.resolved[self._policies.default]

    def can_choose(self, rights: Rights) -> bool:
        """Whether whoever has these rights can leave the choice to the server."""
        return bool(self.measured(rights)) or may_have(rights, self.fallback.name)

    def check(self, wish: AutoWish, rights: Rights) -> None:
        """Find what is wrong with a wish before there is anything to choose for.

        Raises:
            KeyScopeError: whoever asks may have none of the policies.
            PolicyFitError: none keeps what is asked for, and such requests are refused.
        """
        found = self.measured(rights)
        needs = self._needs(wish)
        if not found:
            self._allowed_fallback(rights)
        elif self.terms.unmet is Unmet.ERROR and all(it.quality < needs.floor for it in found):
            raise _too_good(wish, needs, found)

    def choose(self, occasion: Occasion) -> Chosen:
        """Return the policy of a request.

        Raises:
            KeyScopeError: whoever asks may have none of the policies.
            PolicyFitError: nothing meets what is asked for, and such requests are refused.
            UnavailableError: the same, for as long as others wait.
        """
        self.is_asked = True
        wish, rights = occasion.wish, occasion.rights
        self.check(wish, rights)
        around = self._look()
        found = self._candidates.of(around.weights_digest, rights)
        if not found:
            return Chosen(self._allowed_fallback(rights), _unmeasured(wish))
        needs = self._needs(wish)
        with self._lock:
            is_pressed = self._is_pressed = self.terms.pressure.is_pressed(
                around.wait_seconds, was_pressed=self._is_pressed
            )
            kept = self._conversations.find(occasion.trace.conversation.earlier)
            usable = self._usable(found, needs, occasion.shape)
            options = self._options(usable, occasion, around.wait_seconds)
        choose = partial(pick, needs=needs, is_pressed=is_pressed, kept=kept)
        picked = choose([it.candidate for it in options.values()])
        if picked is None and self._takes_probe():
            options = {name: it.without_limit() for name, it in options.items()}
            picked = choose([it.candidate for it in options.values()])
        if picked is None:
            return self._unmet(occasion, options, around.wait_seconds, is_pressed=is_pressed)
        floor = needs.floor if picked.reason in _BY_FLOOR else min(needs.quality, _best(found))
        option = options[picked.candidate.name]
        told = _because(picked.reason, wish, floor, option, is_pressed=is_pressed)
        return Chosen(option.policy, told)

    def settle(self, account: Account) -> None:
        """Learn from a request that has been answered."""
        prepared = account.prepared
        if prepared.trace is None:
            return
        max_rows = self._look().num_cache_rows if self.terms.reuses_pages else 0
        with self._lock:
            self._costs.learn(account, prepared.trace, max_rows)
            turn = prepared.trace.conversation.own
            if prepared.chosen is not None and turn is not None:
                self._conversations.note(turn, prepared.policy.name)

    def _takes_probe(self) -> bool:
        if self.terms.unmet is not Unmet.ERROR:
            return False
        with self._lock:
            return self._costs.take_probe()

    def _needs(self, wish: AutoWish) -> Needs:
        """Return what a policy must keep to: a request's own word for the quality is no target."""
        floor = self.terms.min_quality
        if wish.min_quality is None:
            return Needs(self.terms.quality, floor, wish.max_seconds)
        own = max(wish.min_quality, floor)
        return Needs(own, own, wish.max_seconds)

    def _usable(
        self, found: Sequence[MeasuredPolicy], needs: Needs, shape: Shape
    ) -> Sequence[MeasuredPolicy]:
        """Return those whose cost is of interest: of the others none is worth the count.

        If none can score a prompt that is to be scored, the engine says so.
        """
        if shape.is_scored:
            found = [it for it in found if _can_score(it.policy)] or found
        good = [it for it in found if it.quality >= needs.floor]
        fallback = [it for it in found if it.policy is self.fallback and it not in good]
        return [*good, *fallback] if good else found

    def _options(
        self, found: Sequence[MeasuredPolicy], occasion: Occasion, wait_seconds: float
    ) -> dict[str, _Option]:
        options = (self._option(it, occasion, wait_seconds) for it in found)
        return {it.policy.name: it for it in options}

    def _option(self, measured: MeasuredPolicy, occasion: Occasion, wait_seconds: float) -> _Option:
        policy = measured.policy
        estimate = self._costs.estimate(policy, occasion.shape, occasion.trace)
        seconds = estimate.seconds
        if seconds is not None:
            seconds += occasion.elapsed_seconds + wait_seconds
        candidate = Candidate(
            policy.name, measured.quality, estimate.flops, estimate.cold_flops, seconds
        )
        return _Option(policy, candidate, estimate)

    def _unmet(
        self,
        occasion: Occasion,
        options: dict[str, _Option],
        wait_seconds: float,
        *,
        is_pressed: bool,
    ) -> Chosen:
        """Do as the operator set where nothing meets a request."""
        wish, needs = occasion.wish, self._needs(occasion.wish)
        candidates = [it.candidate for it in options.values()]
        if self.terms.unmet is Unmet.ERROR:
            raise _refusal(wish, needs, candidates, wait_seconds)
        if self.terms.unmet is Unmet.FULL:
            policy = self._allowed_fallback(occasion.rights)
            option = options.get(policy.name)
        else:
            option = options[nearest(candidates, needs).name]
            policy = option.policy
        told = _because(Reason.UNMET, wish, needs.floor, option, is_pressed=is_pressed)
        return Chosen(policy, told)

    def _allowed_fallback(self, rights: Rights) -> ResolvedPolicy:
        if not may_have(rights, self.fallback.name):
            raise KeyScopeError(
                f"auto can give this API key no skip policy: none that it may use, "
                f"{', '.join(sorted(rights.policies or ()))}, was measured to keep what is asked "
                f"for, and {self.fallback.name!r}, which runs instead, is not among them",
                param="skip_policy",
            )
        return self.fallback


# Reasons for which less than the usual quality is kept.
_BY_FLOOR = (Reason.PRESSURE, Reason.LATENCY, Reason.CONVERSATION)


def _can_score(policy: ResolvedPolicy) -> bool:
    """Whether tokens of a prompt can be scored under a policy."""
    return policy.narrowing is None or not policy.narrowing.is_ranked


def _best(found: Sequence[MeasuredPolicy]) -> float:
    return max(it.quality for it in found)


def _unmeasured(wish: AutoWish) -> ChosenBecause:
    return _because(Reason.UNMEASURED, wish, None, None, is_pressed=False)


def _because(
    reason: Reason,
    wish: AutoWish,
    min_quality: float | None,
    option: _Option | None,
    *,
    is_pressed: bool,
) -> ChosenBecause:
    seconds = None if option is None else option.candidate.seconds
    return ChosenBecause(
        reason=reason,
        min_quality=min_quality,
        quality=None if option is None else option.candidate.quality,
        max_latency_ms=wish.max_latency_ms,
        expected_latency_ms=None if seconds is None else round(1000 * seconds, 1),
        expected_cached_tokens=0 if option is None else option.estimate.num_cached,
        under_pressure=is_pressed,
    )


def _too_good(wish: AutoWish, needs: Needs, found: Sequence[MeasuredPolicy]) -> PolicyFitError:
    best = max(found, key=lambda it: it.quality)
    asked = "the request asks for" if wish.min_quality == needs.floor else "the server wants"
    return PolicyFitError(
        f"{asked} a skip policy that keeps at least {needs.floor:g} of what the full model "
        f"reaches, and none that auto may choose was measured to: the best, {best.policy.name!r}, "
        f"keeps {best.quality:g}",
        param="skip_policy",
    )


def _refusal(
    wish: AutoWish, needs: Needs, candidates: Sequence[Candidate], wait_seconds: float
) -> SkipserveError:
    """Return the error of a request that no policy that keeps its quality answers in time."""
    best = nearest(candidates, needs)
    seconds = best.seconds or 0.0
    message = (
        f"no skip policy that keeps at least {needs.floor:g} of what the full model reaches is "
        f"expected to answer in {wish.max_latency_ms:g} ms: {best.name!r} would take "
        f"{1000 * seconds:.0f} ms"
    )
    if needs.max_seconds is not None and seconds - wait_seconds <= needs.max_seconds:
        return UnavailableError(
            f"{message}, of which {1000 * wait_seconds:.0f} ms behind others; try again later, or "
            "ask for more with max_latency_ms",
            param="skip_policy",
            retry_after_seconds=min(max(math.ceil(wait_seconds), 1), _MAX_RETRY_SECONDS),
        )
    return PolicyFitError(
        f"{message}; ask for more with max_latency_ms, or for less with min_quality or max_tokens",
        param="skip_policy",
    )
