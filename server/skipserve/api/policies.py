"""The skip policies that requests can ask for, resolved for the loaded model."""

from collections.abc import Mapping
from functools import lru_cache, partial

from skipserve.errors import NotFoundError, PolicyFitError
from skipserve_policies.catalog import INLINE_NAME, nearest_names
from skipserve_policies.resolve import PolicyError, ResolvedPolicy, resolve
from skipserve_policies.schema import Quality, SkipPolicy

_MAX_INLINE = 256
_MAX_ECHO = 100


class PolicyRegistry:
    """Names to resolved policies, and a bounded memory of inline ones.

    Args:
        catalog: what is named; a policy that does not fit is kept with the reason.
        num_layers: the depth of the loaded model.
        measured: quality that was measured on the loaded model, by the digest of what ran.
    """

    def __init__(
        self,
        catalog: Mapping[str, SkipPolicy],
        num_layers: int,
        measured: Mapping[str, tuple[Quality, ...]] | None = None,
    ) -> None:
        self._measured = measured or {}
        # Safe in the threads that convert requests, unlike a dictionary with an order of its own.
        self._resolve_inline = lru_cache(_MAX_INLINE)(
            partial(resolve, INLINE_NAME, num_layers=num_layers)
        )
        self.resolved: dict[str, ResolvedPolicy] = {}
        self.misfits: dict[str, str] = {}
        for name, policy in catalog.items():
            try:
                self.resolved[name] = resolve(name, policy, num_layers)
            except PolicyError as error:
                self.misfits[name] = str(error)

    def find(self, name: str) -> ResolvedPolicy:
        """Return a named policy.

        Raises:
            NotFoundError: there is none of that name.
            PolicyFitError: it does not fit the loaded model.
        """
        if name in self.resolved:
            return self.resolved[name]
        if name in self.misfits:
            raise PolicyFitError(
                f"the skip policy {name} does not fit this model: {self.misfits[name]}",
                param="skip_policy",
            )
        name = name[:_MAX_ECHO]
        nearest = ", ".join(nearest_names(name, self.resolved))
        raise NotFoundError(
            f"there is no skip policy {name!r}; the nearest are {nearest}; "
            "/v1/skip_policies lists them all",
            param="skip_policy",
        )

    def quality(self, policy: ResolvedPolicy) -> tuple[Quality, ...]:
        """Return what was measured of a policy on the loaded model, then what is published."""
        return (*self.measured(policy), *policy.policy.quality)

    def measured(self, policy: ResolvedPolicy) -> tuple[Quality, ...]:
        """Return what was measured of a policy on the loaded model."""
        return self._measured.get(policy.digest, ())

    def resolve_inline(self, policy: SkipPolicy) -> ResolvedPolicy:
        """Return a policy that a request spelt out.

        Raises:
            PolicyFitError: it contradicts itself or does not fit the loaded model.
        """
        try:
            return self._resolve_inline(policy)
        except PolicyError as error:
            raise PolicyFitError(str(error), param="skip_policy") from error
