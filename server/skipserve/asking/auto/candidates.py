"""The policies that may be chosen, by what was measured of them on the weights that run."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from skipserve.asking.auto.terms import AutoTerms
from skipserve.asking.policies import PolicyRegistry
from skipserve.budgets.client import Rights
from skipserve_policies.catalog import AUTO_NAME
from skipserve_policies.cost import trimmed_full
from skipserve_policies.resolve import ResolvedPolicy


@dataclass(frozen=True)
class MeasuredPolicy:
    """A policy, and the share of what the full model reaches that it keeps at least."""

    policy: ResolvedPolicy
    quality: float


class Candidates:
    """Finds the policies that may be chosen, once for the weights that run.

    Args:
        policies: all there are.
        terms: which of them may be chosen.
    """

    def __init__(self, policies: PolicyRegistry, terms: AutoTerms) -> None:
        self._policies = policies
        self._terms = terms
        self._measured = lru_cache(maxsize=2)(self._find_measured)

    def of(self, weights_digest: str | None, rights: Rights) -> tuple[MeasuredPolicy, ...]:
        """Return those that may be chosen for whoever has these rights.

        Args:
            weights_digest: the weights that run; None until they are loaded.
            rights: what whoever asks may ask for.
        """
        measured = self._measured(weights_digest)
        return tuple(it for it in measured if may_have(rights, it.policy.name))

    def _find_measured(self, weights_digest: str | None) -> tuple[MeasuredPolicy, ...]:
        """Return those that were measured on these weights; none where none was.

        Of several data sets the one on which a policy keeps least counts. What computes the same as
        `full` keeps all, unless it was measured beside another model.
        """
        if weights_digest is None:
            return ()
        found = {it.name: self._lowest(it, weights_digest) for it in self._allowed()}
        if all(quality is None for quality in found.values()):
            return ()
        full = trimmed_full(self._policies.sizes.decoder.num_layers).digest
        resolved = self._policies.resolved
        return tuple(
            MeasuredPolicy(resolved[name], 1.0 if quality is None else quality)
            for name, quality in found.items()
            if quality is not None or resolved[name].digest == full
        )

    def _allowed(self) -> Iterator[ResolvedPolicy]:
        resolved, named = self._policies.resolved, self._terms.policies
        if named:
            return (resolved[name] for name in named)
        # One that was added can be removed at any time.
        return (it for it in resolved.values() if not it.is_added)

    def _lowest(self, policy: ResolvedPolicy, weights_digest: str) -> float | None:
        lows = [
            quality.retention_low
            for quality in self._policies.quality(policy)
            if quality.retention_low is not None and quality.model_digest == weights_digest
        ]
        return min(lows, default=None)


def may_have(rights: Rights, policy_name: str) -> bool:
    """Whether the server may choose a policy for whoever has these rights.

    A key that may use some policies gets one of those, unless `auto` is one of them: then any.
    """
    return rights.has(policy_name) or rights.has(AUTO_NAME)
