"""The policies that have a name beside one model: what ships, the model's own, the operator's.

A model's folder may hold `skip-policies.yaml`: policies of its own, in the catalog's form, and
which policy it runs where nobody names one.

    default: half
    policies:
      half:
        rules:
          - {action: skip_block, layers: {start: 0, interval: 2}, scope: all}
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from skipserve_policies.catalog import (
    check_free,
    load_added,
    load_catalog,
    nearest_names,
    parse_policies,
    read_yaml,
    stanzas_of,
    yaml_text,
)
from skipserve_policies.faults import faults_of
from skipserve_policies.resolve import PolicyError
from skipserve_policies.schema import SkipPolicy

POLICIES_FILE = "skip-policies.yaml"

# What runs where neither a request, nor the operator, nor the model says anything.
FULL = "full"


@dataclass(frozen=True)
class NamedPolicies:
    """The policies that can be named, by who brings them; no name is brought by two.

    Attributes:
        shipped: those of the catalog.
        of_model: those of the model's folder.
        of_operator: those of the operator's file.
        default: what the model runs where nobody says anything: a name of the first two.
    """

    shipped: Mapping[str, SkipPolicy]
    of_model: Mapping[str, SkipPolicy] = field(default_factory=dict)
    of_operator: Mapping[str, SkipPolicy] = field(default_factory=dict)
    default: str = FULL

    @property
    def by_name(self) -> dict[str, SkipPolicy]:
        """All of them, in this order."""
        return {**self.shipped, **self.of_model, **self.of_operator}


class _ModelFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    default: str | None = None
    policies: Any = None


def load_policies(folder: Path | None = None, path: Path | None = None) -> NamedPolicies:
    """Return the policies that can be named beside a model.

    Args:
        folder: the model's; None for one of which no folder is at hand.
        path: the operator's file, of the catalog's form; None for none.

    Raises:
        PolicyError: a file cannot be read, is not of its form, or takes a name that another has,
            or the model's default is not there; names file and field, a line each.
    """
    shipped = load_catalog()
    default, of_model = _load_model_file(folder, shipped)
    taken_by = "a policy that ships" + (f", or of {POLICIES_FILE} of the model" if of_model else "")
    of_operator = {} if path is None else load_added(path, {**shipped, **of_model}, taken_by)
    return NamedPolicies(shipped, of_model, of_operator, default)


def _load_model_file(
    folder: Path | None, shipped: Mapping[str, SkipPolicy]
) -> tuple[str, dict[str, SkipPolicy]]:
    """Return a model's default and its own policies."""
    file = None if folder is None else folder / POLICIES_FILE
    if file is None or not file.exists():
        return FULL, {}
    said = _parse_model_file(file)
    own = parse_policies(said.policies, f"{file}: policies")
    check_free(own, shipped, "a policy that ships", f"{file}: policies")
    default = FULL if said.default is None else said.default
    names = [*shipped, *own]
    if default not in names:
        nearest = ", ".join(nearest_names(default, names))
        raise PolicyError(
            f"{file}: default: there is no skip policy {default[:100]!r} that ships or stands in "
            f"this file; the nearest are {nearest}"
        )
    return default, own


def _parse_model_file(file: Path) -> _ModelFile:
    given = read_yaml(file)
    try:
        return _ModelFile.model_validate({} if given is None else given)
    except ValidationError as error:
        faults = "; ".join(map(str, faults_of(error, _ModelFile, given)))
        raise PolicyError(f"{file}: {faults}") from error


def model_file_text(default: str, own: Mapping[str, SkipPolicy]) -> str:
    """Return `skip-policies.yaml` as `load_policies` reads it from a model's folder."""
    return yaml_text({"default": default} | ({"policies": stanzas_of(own)} if own else {}))
