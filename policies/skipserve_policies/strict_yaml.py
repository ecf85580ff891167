"""Reads YAML that people write: what they may not have meant is an error, and each is one line."""

import re
from collections.abc import Hashable
from typing import Any

import yaml


class YamlTextError(ValueError):
    """A text that is not valid YAML; the message says where and why."""


def load_yaml(text: str) -> Any:
    """Return what a text of plain YAML says.

    Raises:
        YamlTextError: it is not valid YAML, a key stands twice in a mapping, or a number is not
            in plain decimal.
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

    def construct_whole_number(self, node: yaml.ScalarNode) -> int:
        """Return a number in decimal: YAML reads 010 as 8, and 1:30 as 90."""
        if not re.fullmatch(r"[-+]?(0|[1-9][0-9]*)", node.value):
            raise yaml.constructor.ConstructorError(
                None,
                None,
                f"{node.value} is no plain decimal number; a text stands in quotes",
                node.start_mark,
            )
        return int(node.value)


_StrictLoader.add_constructor("tag:yaml.org,2002:int", _StrictLoader.construct_whole_number)


def _describe(error: Exception) -> str:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return f": {(str(error).splitlines() or ['it cannot be read'])[0]}"
    advice = "; indent with spaces, not with tabs" if r"'\t'" in (error.problem or "") else ""
    return f", line {error.problem_mark.line + 1}: {error.problem}{advice}"
