"""How a command line says which policy: by its name, or spelt out as JSON."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from skipserve_client.command_group import CommandError
from skipserve_policies.catalog import AUTO_NAME, INLINE_NAME, load_catalog

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

    @property
    def is_auto(self) -> bool:
        """Whether the server is to choose one for each request."""
        return self.value == AUTO_NAME or (isinstance(self.value, dict) and AUTO_NAME in self.value)

    @classmethod
    def inline(cls, policy: dict[str, Any]) -> "PolicyChoice":
        """Return the choice of a policy that is spelt out."""
        digest = hashlib.sha256(json.dumps(policy, sort_keys=True).encode()).hexdigest()
        return cls(f"{INLINE_NAME}-{digest[:8]}", policy)

    def __hash__(self) -> int:
        return hash(self.label)


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


def read_weighted_policies(texts: Iterable[str], flag: str) -> dict[PolicyChoice, float]:
    """Read policies as `read_policies` does, each with how often it is asked for, as in `full=3`.

    Raises:
        CommandError: one is neither a name nor a JSON object, or its weight no number above 0.
    """
    found: dict[PolicyChoice, float] = {}
    for text in texts:
        for choice, weight in _weighted(text, flag):
            if choice in found:
                raise CommandError(f"{flag}: {choice.label} is named twice")
            found[choice] = weight
    return found


def policy_names(incomplete: str) -> list[str]:
    """Return the names that a shell may complete to, those that ship; commas may stand between."""
    done, comma, begun = incomplete.rpartition(",")
    return [f"{done}{comma}{name}" for name in load_catalog() if name.startswith(begun)]


SkipPolicyFlag = Annotated[
    str | None,
    typer.Option(
        "--skip-policy",
        "--policy",
        metavar="POLICY",
        autocompletion=policy_names,
        help="A policy's name, auto, or a policy of your own as JSON.",
    ),
]


def _choices(text: str, flag: str) -> Iterator[PolicyChoice]:
    rest, is_more = text.strip(), True
    while is_more:
        values, rest = _next(rest, flag)
        for value in values:
            yield _choice(value, flag)
        is_more, rest = _behind_comma(rest, flag)


def _weighted(text: str, flag: str) -> Iterator[tuple[PolicyChoice, float]]:
    rest, is_more = text.strip(), True
    while is_more:
        values, rest = _next(rest, flag)
        if len(values) != 1:
            raise CommandError(f"{flag} takes policies with their weights, such as full=3")
        value, weight = values[0], "1"
        if isinstance(value, str) and "=" in value:
            value, _, weight = value.rpartition("=")
        elif rest.startswith("="):
            weight, comma, behind = rest[1:].partition(",")
            rest = comma + behind
        yield _choice(value, flag), _weight(weight, flag)
        is_more, rest = _behind_comma(rest, flag)


def _weight(text: str, flag: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = 0.0
    if not 0 < weight < float("inf"):
        raise CommandError(f"{flag}: {text!r} is no weight; give a number above 0, as in full=3")
    return weight


def _behind_comma(rest: str, flag: str) -> tuple[bool, str]:
    """Return whether more follows, and it.

    Raises:
        CommandError: something follows without a comma.
    """
    if rest and not rest.startswith(","):
        raise CommandError(f"{flag}: a comma is missing before {rest[:40]!r}")
    return rest.startswith(","), rest[1:].lstrip()


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
    return PolicyChoice.inline(value)
