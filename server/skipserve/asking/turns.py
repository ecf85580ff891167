"""A conversation without any form: who says what, with the images where they are shown."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from skipserve.asking.question import ImageUri, Question
from skipserve.prompt.template import Call, ImagePart, Message, TextPart


@dataclass(frozen=True)
class Turn:
    """What one says.

    Attributes:
        role: who it is: system, user, assistant or tool.
        parts: texts and images, in their order.
        calls: functions that the assistant has called.
        call_id: the call whose result a tool tells.
    """

    role: str
    parts: tuple[str | ImageUri, ...]
    calls: tuple[Call, ...] = ()
    call_id: str | None = None


def with_turns(question: Question, turns: Iterable[Turn]) -> Question:
    """Return a question in which this is said."""
    turns = tuple(turns)
    parts = (part for turn in turns for part in turn.parts)
    return replace(
        question,
        messages=tuple(
            Message(turn.role, tuple(map(_part, turn.parts)), turn.calls, turn.call_id)
            for turn in turns
        ),
        image_uris=tuple(part for part in parts if isinstance(part, ImageUri)),
    )


def _part(part: str | ImageUri) -> TextPart | ImagePart:
    return TextPart(part) if isinstance(part, str) else ImagePart()
