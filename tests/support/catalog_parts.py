"""The policies that ship, by what it takes to know what they run."""

from skipserve_policies.catalog import load_catalog
from skipserve_policies.schema import SkipPolicy


def skipping_policies() -> dict[str, SkipPolicy]:
    """Return those that reduce no images: the model's depth tells what they run."""
    return {name: policy for name, policy in load_catalog().items() if not policy.removes_rows}
