"""The skip policies that can be asked for, resolved for the loaded model."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeVar

from skipserve.asking.policy_file import PolicyFile
from skipserve.errors import NotFoundError, PolicyFitError
from skipserve_policies.catalog import INLINE_NAME, nearest_names
from skipserve_policies.named import FULL, POLICIES_FILE, NamedPolicies, load_policies
from skipserve_policies.resolve import PolicyError, PolicyMisfitError, ResolvedPolicy, resolve_for
from skipserve_policies.schema import Quality, SkipPolicy
from skipserve_policies.sizes import ModelSizes

T = TypeVar("T")

_MAX_INLINE = 256
_MAX_ECHO = 100


@dataclass(frozen=True)
class PolicyFiles:
    """What adds policies to those that ship.

    Attributes:
        folder: the model's, which may hold a file of policies and of its default.
        own: the operator's own file; None for none.
        added: the file of those that were added at run time; None for none.
        keeps_misfits: whether a policy of these files may name layers that the model lacks.
    """

    folder: Path
    own: Path | None = None
    added: PolicyFile | None = None
    keeps_misfits: bool = False

    @property
    def of_model(self) -> Path:
        """The model's file, which need not be there."""
        return self.folder / POLICIES_FILE

    def by_name(self, named: NamedPolicies, added: Mapping[str, SkipPolicy]) -> dict[str, Path]:
        """Return the file of each policy that does not ship."""
        brought = {self.of_model: named.of_model}
        if self.own is not None:
            brought[self.own] = named.of_operator
        if self.added is not None:
            brought[self.added.path] = added
        return {name: path for path, policies in brought.items() for name in policies}


class PolicyRegistry:
    """Names to resolved policies, and a bounded memory of inline ones.

    It is changed by the event loop alone, and read by threads that prepare questions: a change
    makes new mappings, and leaves those alone that somebody may be reading.

    Attributes:
        resolved: the policies that can be asked for.
        misfits: why the others do not fit the model.
        added: of both, what was added at run time, as it was written.
        default: what the model runs where neither a request nor the operator says anything.
        sizes: the loaded model.

    Args:
        catalog: what is named; a policy that does not fit is kept with the reason.
        sizes: as above.
        listing: where whoever asks finds all names.
        measured: quality that was measured on the loaded model, by the digest of what ran.
        added: the same as the catalog, of policies that were added at run time.
        default: as above.
    """

    def __init__(
        self,
        catalog: Mapping[str, SkipPolicy],
        sizes: ModelSizes,
        listing: str,
        measured: Mapping[str, tuple[Quality, ...]] | None = None,
        added: Mapping[str, SkipPolicy] | None = None,
        default: str = FULL,
    ) -> None:
        self.default = default
        self.sizes = sizes
        self._measured = measured or {}
        self._listing = listing
        # Safe in the threads that convert requests, unlike a dictionary with an order of its own.
        self._resolve_inline = lru_cache(_MAX_INLINE)(
            partial(resolve_for, INLINE_NAME, sizes=sizes)
        )
        self.resolved: dict[str, ResolvedPolicy] = {}
        self.misfits: dict[str, PolicyError] = {}
        self.added = dict(added or {})
        self._holders: Counter[str] = Counter()
        for name, policy in {**catalog, **self.added}.items():
            try:
                self.resolved[name] = self._resolve(name, policy, is_added=name in self.added)
            except PolicyError as error:
                self.misfits[name] = error

    @classmethod
    def from_files(
        cls,
        files: PolicyFiles,
        sizes: ModelSizes,
        listing: str,
        measured: Mapping[str, tuple[Quality, ...]] | None = None,
    ) -> "PolicyRegistry":
        """Return the policies that ship, and those that files add.

        Args:
            files: what adds some.
            sizes: the loaded model.
            listing: as above.
            measured: as above.

        Raises:
            PolicyMisfitError: policies of a file name layers that the model lacks; a line each.
            PolicyError: a file cannot be used, one of its policies contradicts itself, or the
                model's default does not fit the model.
        """
        named = load_policies(files.folder, files.own)
        later = {} if files.added is None else files.added.read(named.by_name)
        registry = cls(named.by_name, sizes, listing, measured, later, named.default)
        registry._check(files.by_name(named, later), files)
        return registry

    def _check(self, file_of: Mapping[str, Path], files: PolicyFiles) -> None:
        """Refuse what of files does not fit the model, unless that is let be."""
        misfits = {name: self.misfits[name] for name in file_of if name in self.misfits}
        are_misfits = all(isinstance(error, PolicyMisfitError) for error in misfits.values())
        if misfits and not (are_misfits and files.keeps_misfits):
            lines = [f"{file_of[name]}: {_tell_misfit(name, it)}" for name, it in misfits.items()]
            raise (PolicyMisfitError if are_misfits else PolicyError)("\n".join(lines))
        if (misfit := self.misfits.get(self.default)) is not None:
            raise PolicyError(f"{files.of_model}: default: {_tell_misfit(self.default, misfit)}")

    def find(self, name: str) -> ResolvedPolicy:
        """Return a named policy.

        Raises:
            NotFoundError: there is none of that name.
            PolicyFitError: it does not fit the loaded model.
        """
        resolved, misfit = self.resolved, self.misfits.get(name)
        if name in resolved:
            return resolved[name]
        if misfit is not None:
            raise PolicyFitError(
                f"the skip policy {name} does not fit this model: {misfit}",
                param="skip_policy",
            )
        name = name[:_MAX_ECHO]
        nearest = ", ".join(nearest_names(name, resolved))
        raise NotFoundError(
            f"there is no skip policy {name!r}; the nearest are {nearest}; "
            f"{self._listing} lists them all",
            param="skip_policy",
        )

    @property
    def names(self) -> frozenset[str]:
        """All names that are taken, those of policies that do not fit too."""
        return frozenset({*self.resolved, *self.misfits})

    @contextmanager
    def hold(self, name: str) -> Iterator[None]:
        """Note that a request under a name is under way; there need be no such policy."""
        self._holders[name] += 1
        try:
            yield
        finally:
            self._holders[name] -= 1
            if not self._holders[name]:
                del self._holders[name]

    def num_holders(self, name: str) -> int:
        """Return how many requests under a name are under way."""
        return self._holders[name]

    def resolve_added(self, name: str, policy: SkipPolicy) -> ResolvedPolicy:
        """Return a policy as it would be if it were added.

        Raises:
            PolicyFitError: it contradicts itself or does not fit the loaded model.
        """
        try:
            return self._resolve(name, policy, is_added=True)
        except PolicyError as error:
            raise PolicyFitError(str(error), param="policy") from error

    def add(self, policy: ResolvedPolicy) -> None:
        """Let a policy be asked for from now on."""
        self.added = self.added | {policy.name: policy.policy}
        self.resolved = self.resolved | {policy.name: policy}

    def remove(self, name: str) -> None:
        """Let a policy that was added be asked for no more."""
        self.added = _without(self.added, name)
        self.resolved = _without(self.resolved, name)
        self.misfits = _without(self.misfits, name)

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

    def _resolve(self, name: str, policy: SkipPolicy, *, is_added: bool) -> ResolvedPolicy:
        return replace(resolve_for(name, policy, self.sizes), is_added=is_added)


def _without(mapping: Mapping[str, T], name: str) -> dict[str, T]:
    return {key: value for key, value in mapping.items() if key != name}


def _tell_misfit(name: str, error: PolicyError) -> str:
    relation = " does not fit this model" if isinstance(error, PolicyMisfitError) else ""
    return f"policy {name!r}{relation}: {error}"
