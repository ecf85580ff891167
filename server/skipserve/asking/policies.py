"""The skip policies that can be asked for, resolved for the loaded model."""

from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path

from skipserve.errors import NotFoundError, PolicyFitError
from skipserve_policies.catalog import INLINE_NAME, load_added, load_catalog, nearest_names
from skipserve_policies.resolve import PolicyError, PolicyMisfitError, ResolvedPolicy, resolve_for
from skipserve_policies.schema import Quality, SkipPolicy
from skipserve_policies.sizes import ModelSizes

_MAX_INLINE = 256
_MAX_ECHO = 100


class PolicyRegistry:
    """Names to resolved policies, and a bounded memory of inline ones.

    Args:
        catalog: what is named; a policy that does not fit is kept with the reason.
        sizes: the loaded model.
        listing: where whoever asks finds all names.
        measured: quality that was measured on the loaded model, by the digest of what ran.
    """

    def __init__(
        self,
        catalog: Mapping[str, SkipPolicy],
        sizes: ModelSizes,
        listing: str,
        measured: Mapping[str, tuple[Quality, ...]] | None = None,
    ) -> None:
        self._measured = measured or {}
        self._listing = listing
        # Safe in the threads that convert requests, unlike a dictionary with an order of its own.
        self._resolve_inline = lru_cache(_MAX_INLINE)(
            partial(resolve_for, INLINE_NAME, sizes=sizes)
        )
        self.resolved: dict[str, ResolvedPolicy] = {}
        self.misfits: dict[str, PolicyError] = {}
        for name, policy in catalog.items():
            try:
                self.resolved[name] = resolve_for(name, policy, sizes)
            except PolicyError as error:
                self.misfits[name] = error

    @classmethod
    def from_file(
        cls,
        path: Path | None,
        sizes: ModelSizes,
        listing: str,
        measured: Mapping[str, tuple[Quality, ...]] | None = None,
        *,
        keeps_misfits: bool = False,
    ) -> "PolicyRegistry":
        """Return the policies that ship, and those that an operator's file adds.

        Args:
            path: the file, where there is one.
            sizes: the loaded model.
            listing: as above.
            measured: as above.
            keeps_misfits: whether a policy of the file may name layers that the model lacks.

        Raises:
            PolicyMisfitError: policies of the file name layers that the model lacks; a line each.
            PolicyError: the file cannot be used, or one of its policies contradicts itself.
        """
        shipped = load_catalog()
        added = {} if path is None else load_added(path, shipped)
        registry = cls(shipped | added, sizes, listing, measured)
        misfits = {name: registry.misfits[name] for name in added if name in registry.misfits}
        are_misfits = all(isinstance(error, PolicyMisfitError) for error in misfits.values())
        if misfits and not (are_misfits and keeps_misfits):
            lines = [f"{path}: {_tell_misfit(name, error)}" for name, error in misfits.items()]
            raise (PolicyMisfitError if are_misfits else PolicyError)("\n".join(lines))
        return registry

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
            f"{self._listing} lists them all",
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


def _tell_misfit(name: str, error: PolicyError) -> str:
    relation = " does not fit this model" if isinstance(error, PolicyMisfitError) else ""
    return f"policy {name!r}{relation}: {error}"
