"""The catalog's policies as plans for a model of a given depth."""

from functools import cache

from skipserve_policies.catalog import load_catalog
from skipserve_policies.plan import Plan
from skipserve_policies.resolve import PolicyMisfitError, resolve
from skipserve_policies.schema import SkipPolicy

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
    """Return the policies that a model of so many layers can run, in the catalog's order."""
    return [policy for policy in _catalog() if _fits(policy, num_layers)]


@cache
def _catalog() -> dict[str, SkipPolicy]:
    return load_catalog()


def _fits(policy: str, num_layers: int) -> bool:
    try:
        plan_of(policy, num_layers)
    except PolicyMisfitError:
        return False
    return True
