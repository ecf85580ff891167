"""What a metric is given: one answer, beside all that scoring it needs. Knows no server."""

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Item:
    """One question's right answers, and what a model said.

    Attributes:
        type: what accuracy is broken down by, such as a subtask.
        expected: the right answers; what several of them mean is the metric's to say.
        given: the answer.
        part: of its type, where the type has parts.
        group: what belongs together, such as the questions of one picture.
        choices: the texts of the options A, B, ..., where the question names some.
        blind: what a model would answer that sees the question alone, where that is known.
    """

    type: str
    expected: tuple[str, ...]
    given: str
    part: str | None = None
    group: str | None = None
    choices: tuple[str, ...] = ()
    blind: str | None = None

    def answered(self, given: str) -> "Item":
        """Return the same question with another answer."""
        return replace(self, given=given)


def groups_of(items: Sequence[Item]) -> dict[str, list[int]]:
    """Return the places of the items of each group; an item without one is a group of its own."""
    groups: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        groups.setdefault(f"#{place}" if item.group is None else item.group, []).append(place)
    return groups
