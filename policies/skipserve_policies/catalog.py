"""The named policies: those that ship, and those that an operator's file adds."""

import difflib
import re
from collections.abc import Hashable, Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from skipserve_policies.resolve import PolicyError
from skipserve_policies.schema import SkipPolicy

# What a policy without a name is called in replies and metrics.
INLINE_NAME = "inline"

# A name is part of "MODEL@POLICY", so it holds no "@".
NAME_PATTERN = r"[a-z0-9][a-z0-9.-]{0,63}"


def load_catalog(path: Path | None = None) -> dict[str, SkipPolicy]:
    """Return the policies that ship, in the catalog's order, then those of an operator's file.

    Args:
        path: a YAML file of the same form: a mapping from names to policies.

    Raises:
        PolicyError: the file cannot be read, is not of that form, or takes a name that ships.
    """
    shipped = files("skipserve_policies").joinpath("catalog.yaml").read_text("utf-8")
    catalog = _parse(shipped, "catalog.yaml")
    if path is None:
        return catalog
    added = _parse(_read(path), str(path))
    if taken := sorted(catalog.keys() & added.keys()):
        raise PolicyError(
            f"{path}: {', '.join(taken)}: the name is taken by a policy that ships; choose another"
        )
    return catalog | added


def parse_inline(stanza: object, origin: str) -> SkipPolicy:
    """Return a policy that was spelt out; `origin` is where, for messages.

    Raises:
        PolicyError: it is not of a policy's form.
    """
    return _parse_policy(INLINE_NAME, stanza, origin)


def nearest_names(name: str, names: Iterable[str]) -> list[str]:
    """Return the three names that look most like one that is unknown, the nearest first."""
    return difflib.get_close_matches(name.lower(), list(names), n=3, cutoff=0)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise PolicyError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise PolicyError(f"{path}: is not UTF-8 text") from error


def _parse(text: str, origin: str) -> dict[str, SkipPolicy]:
    try:
        stanzas = yaml.load(text, Loader=_StrictLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise PolicyError(f"{origin}: is not valid YAML: {error}") from error
    if stanzas is None:
        return {}
    if not isinstance(stanzas, dict):
        raise PolicyError(f"{origin}: must be a mapping from names to policies")
    return {
        _check_name(name, origin): _parse_policy(name, stanza, origin)
        for name, stanza in stanzas.items()
    }


class _StrictLoader(yaml.SafeLoader):
    """YAML's safe loader, but a key that stands twice is an error: the first would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        first_places = {key.value: key for key in reversed(keys)}
        for key in keys:
            if first_places[key.value] is not key:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value!r} stands twice", key.start_mark
                )
        return super().construct_mapping(node, deep=deep)


def _check_name(name: object, origin: str) -> str:
    if not isinstance(name, str) or not re.fullmatch(NAME_PATTERN, name):
        raise PolicyError(
            f"{origin}: {name!r} cannot name a policy: a name is up to 64 lower-case letters, "
            "digits, dots and hyphens, and begins with a letter or a digit"
        )
    if name == INLINE_NAME:
        raise PolicyError(f"{origin}: {name!r} is reserved for policies that have no name")
    return name


def _parse_policy(name: str, stanza: object, origin: str) -> SkipPolicy:
    try:
        return SkipPolicy.model_validate(stanza)
    except ValidationError as error:
        faults = "; ".join(_describe(fault["loc"], fault["msg"]) for fault in error.errors())
        raise PolicyError(f"{origin}: policy {name!r}: {faults}") from error


def _describe(place: tuple[int | str, ...], message: str) -> str:
    field = ".".join(map(str, place))
    return f"{field}: {message}" if field else message
