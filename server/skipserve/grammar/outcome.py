"""What became of a shape that an answer was to be held to."""

from enum import StrEnum


class GrammarOutcome(StrEnum):
    """What became of a shape that an answer was to be held to."""

    CACHED = "cached"
    COMPILED = "compiled"
    REFUSED = "refused"
    KILLED = "killed"
