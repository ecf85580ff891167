"""The named policies that ship, and how files of policies are read and written."""

import difflib
import re
from collections.abc import Container, Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from skipserve_policies.faults import faults_of
from skipserve_policies.resolve import ADDED_LABEL, PolicyError
from skipserve_policies.schema import SkipPolicy
from skipserve_policies.strict_yaml import YamlTextError, load_yaml

# What a policy without a name is called in replies and metrics.
INLINE_NAME = "inline"
# What is asked for by whoever leaves the choice of a policy to the server.
AUTO_NAME = "auto"

# A name is part of "MODEL@POLICY", so it holds no "@".
NAME_PATTERN = r"[a-z0-9][a-z0-9.-]{0,63}"


def load_catalog() -> dict[str, SkipPolicy]:
    """Return the policies that ship, in the catalog's order."""
    shipped = files("skipserve_policies").joinpath("catalog.yaml").read_text("utf-8")
    return parse_policies(_load(shipped, "catalog.yaml"), "catalog.yaml")


def load_added(
    path: Path, taken: Container[str], taken_by: str = "a policy that ships"
) -> dict[str, SkipPolicy]:
    """Return the policies of a file that adds some to those that there are.

    Args:
        path: a YAML file of the catalog's form.
        taken: names that it may not take.
        taken_by: what has those names, for messages.

    Raises:
        PolicyError: the file cannot be read, is not of that form, or takes a name; a line each.
    """
    added = parse_policies(read_yaml(path), str(path))
    check_free(added, taken, taken_by, str(path))
    return added


def check_free(names: Iterable[str], taken: Container[str], taken_by: str, origin: str) -> None:
    """Make sure that a file takes no name that something else has.

    Raises:
        PolicyError: it does; a line each.
    """
    if shadows := [name for name in names if name in taken]:
        raise PolicyError(
            "\n".join(
                f"{origin}: policy {name!r}: the name is taken by {taken_by}; choose another"
                for name in shadows
            )
        )


def parse_inline(stanza: object, origin: str) -> SkipPolicy:
    """Return a policy that was spelt out; `origin` is where, for messages.

    Raises:
        PolicyError: it is not of a policy's form.
    """
    try:
        return _parse_policy(INLINE_NAME, stanza)
    except PolicyError as error:
        raise PolicyError(f"{origin}: {error}") from error


def check_name(name: object) -> str:
    """Return what can name a policy.

    Raises:
        PolicyError: it cannot.
    """
    if not isinstance(name, str) or not re.fullmatch(NAME_PATTERN, name):
        raise PolicyError(
            f"{name!r} cannot name a policy: a name is up to 64 lower-case letters, "
            "digits, dots and hyphens, and begins with a letter or a digit"
        )
    if name == INLINE_NAME:
        raise PolicyError(f"{name!r} is reserved for policies that have no name")
    if name == AUTO_NAME:
        raise PolicyError(f"{name!r} is reserved: it leaves the choice of a policy to the server")
    if name == ADDED_LABEL:
        raise PolicyError(f"{name!r} is reserved: metrics call all so that are added at run time")
    return name


def policies_text(policies: Mapping[str, SkipPolicy]) -> str:
    """Return policies as `load_added` reads them from a file."""
    return yaml_text(stanzas_of(policies))


def stanzas_of(policies: Mapping[str, SkipPolicy]) -> dict[str, Any]:
    """Return policies as `parse_policies` takes them, without what goes without saying."""
    return {
        name: policy.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        for name, policy in policies.items()
    }


def yaml_text(value: Mapping[str, Any]) -> str:
    """Return plain data as `read_yaml` reads it from a file."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


# libyaml's, where PyYAML was built with it: ten times as fast.
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def nearest_names(name: str, names: Iterable[str]) -> list[str]:
    """Return the three names that look most like one that is unknown, the nearest first."""
    return difflib.get_close_matches(name.lower(), list(names), n=3, cutoff=0)


def read_yaml(path: Path) -> Any:
    """Return what a file of plain YAML says; None where it says nothing.

    Raises:
        PolicyError: it cannot be read, or is not valid.
    """
    try:
        return _load(path.read_text("utf-8"), str(path))
    except OSError as error:
        raise PolicyError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise PolicyError(f"{path}: is not UTF-8 text") from error


def parse_policies(stanzas: object, origin: str) -> dict[str, SkipPolicy]:
    """Return the policies of a mapping from names to what they say; None holds none.

    Args:
        stanzas: what stands in a file.
        origin: where it stands, for messages.

    Raises:
        PolicyError: it is not of that form; a line for each policy at fault.
    """
    if stanzas is None:
        return {}
    if not isinstance(stanzas, dict):
        raise PolicyError(f"{origin}: must be a mapping from names to policies")
    policies: dict[str, SkipPolicy] = {}
    faults: list[str] = []
    for name, stanza in stanzas.items():
        try:
            policies[check_name(name)] = _parse_policy(name, stanza)
        except PolicyError as error:
            faults.append(f"{origin}: {error}")
    if faults:
        raise PolicyError("\n".join(faults))
    return policies


def _load(text: str, origin: str) -> Any:
    try:
        return load_yaml(text)
    except YamlTextError as error:
        raise PolicyError(f"{origin}: {error}") from error


def _parse_policy(name: str, stanza: object) -> SkipPolicy:
    try:
        return SkipPolicy.model_validate(stanza)
    except ValidationError as error:
        faults = "; ".join(map(str, faults_of(error, SkipPolicy, stanza)))
        raise PolicyError(f"policy {name!r}: {faults}") from error
