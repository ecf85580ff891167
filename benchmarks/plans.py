"""The catalog's policies, resolved for a model, or as plans for a depth."""

from functools import cache

from skipserve_policies.catalog import load_catalog
from skipserve_policies.plan import Plan
from skipserve_policies.resolve import PolicyMisfitError, ResolvedPolicy, resolve, resolve_for
from skipserve_policies.schema import SkipPolicy
from skipserve_policies.sizes import ModelSizes

# Four policies whose generated rows do four different things; each runs layers of `full` alone.
FOUR_POLICIES = (
    "full",
    "skip-block-every-3-from-16",
    "skip-ffn-every-3-from-16",
    "skip-attention-every-3-from-16",
)


@cache
def plan_of(policy: str, num_layers: int) -> Plan:
    """Return the trimmed plan of a policy of the catalog.

    Raises:
        KeyError: there is no such policy.
        PolicyMisfitError: the model is not deep enough for it.
    """
    return resolve(policy, _catalog()[policy], num_layers).plan


def fitting_policies(num_layers: int) -> list[str]:
    """Return the policies that skip in a model of so many layers, in the catalog's order."""
    return [policy for policy in _catalog() if _fits(policy, num_layers)]


@cache
def resolved(policy: str, sizes: ModelSizes) -> ResolvedPolicy:
    """Return a policy of the catalog for a model.

    Raises:
        KeyError: there is no such policy.
        PolicyMisfitError: the model has not what it needs.
    """
    return resolve_for(policy, _catalog()[policy], sizes)


def policies_for(sizes: ModelSizes) -> list[str]:
    """Return the policies that a model can run, in the catalog's order."""
    return [policy for policy in _catalog() if _goes_with(policy, sizes)]


def _goes_with(policy: str, sizes: ModelSizes) -> bool:
    try:
        resolved(policy, sizes)
    except PolicyMisfitError:
        return False
    return True


@cache
def _catalog() -> dict[str, SkipPolicy]:
    return load_catalog()


def _fits(policy: str, num_layers: int) -> bool:
    try:
        plan_of(policy, num_layers)
    except PolicyMisfitError:
        return False
    return True
