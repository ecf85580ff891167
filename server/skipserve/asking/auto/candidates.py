"""The policies that may be chosen, by what was measured of them on the weights that run."""

from collections.abc import Iterator
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Candidates:
    """Finds the policies that may be chosen.

    Attributes:
        policies: all there are.
        terms: which of them may be chosen.
    """

    policies: PolicyRegistry
    terms: AutoTerms

    def _measured(self, weights_digest: str | None) -> tuple[MeasuredPolicy, ...]:
        """Return those that were measured on these weights; none where none was.

        Of several data sets the one on which a policy keeps least counts. What computes the same as
        `full` keeps all, unless it was measured beside another model.
        """
        if weights_digest is None:
            return ()
        found = {it.name: self._lowest(it, weights_digest) for it in self._allowed()}
        if all(quality is None for quality in found.values()):
            return ()
        full = trimmed_full(self._num_layers).digest
        resolved = self.policies.resolved
        return tuple(
            MeasuredPolicy(resolved[name], 1.0 if quality is None else quality)
            for name, quality in found.items()
            if quality is not None or resolved[name].digest == full
        )

    def of(self, weights_digest: str | None, rights: Rights) -> tuple[MeasuredPolicy, ...]:
        """Return those that may be chosen for whoever has these rights."""
        measured = self._measured(weights_digest)
        return tuple(it for it in measured if may_have(rights, it.policy.name))

    def _allowed(self) -> Iterator[ResolvedPolicy]:
        resolved, named = self.policies.resolved, self.terms.policies
        if named:
            return (resolved[name] for name in named)
        # One that was added can be removed at any time.
        return (it for it in resolved.values() if not it.is_added)

    def _lowest(self, policy: ResolvedPolicy, weights_digest: str) -> float | None:
        lows = [
            quality.retention_low
            for quality in self.policies.quality(policy)
            if quality.retention_low is not None and quality.model_digest == weights_digest
        ]
        return min(lows, default=None)

    @property
    def _num_layers(self) -> int:
        return self.policies.sizes.decoder.num_layers


def may_have(rights: Rights, policy_name: str) -> bool:
    """Whether the server may choose a policy for whoever has these rights.

    A key that may use some policies gets one of those, unless `auto` is one of them: then any.
    """
    return rights.has(policy_name) or rights.has(AUTO_NAME)
