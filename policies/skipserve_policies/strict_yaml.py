"""Reads YAML that people write: a key that stands twice is an error, and each error is one line."""

from collections.abc import Hashable
from typing import Any

import yaml


class YamlTextError(ValueError):
    """A text that is not valid YAML; the message says where and why."""


def load_yaml(text: str) -> Any:
    """Return what a text of plain YAML says.

    Raises:
        YamlTextError: it is not valid YAML, or a key stands twice in a mapping.
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise YamlTextError(f"is not valid YAML{_describe(error)}") from error


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


def _describe(error: Exception) -> str:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return f": {(str(error).splitlines() or ['it cannot be read'])[0]}"
    advice = "; indent with spaces, not with tabs" if r"'\t'" in (error.problem or "") else ""
    return f", line {error.problem_mark.line + 1}: {error.problem}{advice}"
