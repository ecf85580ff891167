"""How a command line says which policy: by its name, or spelt out as JSON."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from skipserve_client.command_group import CommandError
from skipserve_policies.catalog import INLINE_NAME, load_catalog

_DECODER = json.JSONDecoder()
_JSON_BEGINS = ("{", "[", '"')


@dataclass(frozen=True)
class PolicyChoice:
    """A policy that was asked for.

    Attributes:
        label: its name, or for one that was spelt out a name that is made of what it says.
        value: what a request carries: the name, or the policy.
    """

    label: str
    value: str | dict[str, Any]


def read_policy(text: str, flag: str) -> PolicyChoice:
    """Read one policy; `flag` is where it stands.

    Raises:
        CommandError: it is neither a name nor a JSON object, or there are several.
    """
    found = list(_choices(text, flag))
    if len(found) != 1:
        raise CommandError(f"{flag} takes one policy, not {len(found)}")
    return found[0]


def read_policies(texts: Iterable[str], flag: str) -> tuple[PolicyChoice, ...]:
    """Read policies with commas between them, from a flag that may be repeated; each once.

    Raises:
        CommandError: one is neither a name nor a JSON object.
    """
    found = {choice.label: choice for text in texts for choice in _choices(text, flag)}
    return tuple(found.values())


def policy_names(incomplete: str) -> list[str]:
    """Return the names that a shell may complete to, those that ship; commas may stand between."""
    done, comma, begun = incomplete.rpartition(",")
    return [f"{done}{comma}{name}" for name in load_catalog() if name.startswith(begun)]


def _choices(text: str, flag: str) -> Iterator[PolicyChoice]:
    rest, is_more = text.strip(), True
    while is_more:
        values, rest = _next(rest, flag)
        for value in values:
            yield _choice(value, flag)
        if rest and not rest.startswith(","):
            raise CommandError(f"{flag}: a comma is missing before {rest[:40]!r}")
        is_more, rest = rest.startswith(","), rest[1:].lstrip()


def _next(text: str, flag: str) -> tuple[list[Any], str]:
    """Return what the text begins with, a list's items apart, and what follows it."""
    if not text.startswith(_JSON_BEGINS):
        name, comma, rest = text.partition(",")
        return [name.strip()], comma + rest
    try:
        value, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{flag} is neither a name nor valid JSON: {error}") from error
    return value if isinstance(value, list) else [value], text[end:].lstrip()


def _choice(value: object, flag: str) -> PolicyChoice:
    if isinstance(value, str) and value:
        if not value.isprintable():  # such as half of a character, which nothing could be sent with
            raise CommandError(f"{flag}: {value!r} cannot name a policy")
        return PolicyChoice(value, value)
    if not isinstance(value, dict):
        raise CommandError(
            f"{flag} takes names of policies, or policies as JSON such as "
            '{"rules": [{"action": "skip_block", "layers": [18, 21]}]}, with commas between them'
        )
    digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
    return PolicyChoice(f"{INLINE_NAME}-{digest[:8]}", value)
