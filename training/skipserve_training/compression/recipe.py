"""What a compression does: which weights are scored how, and how many of them go."""

from dataclasses import dataclass
from enum import StrEnum


class Method(StrEnum):
    """How weights are chosen.

    WANDA: by their size times the norm of what they multiply, within each output row.
    MAGNITUDE: by their size, within each matrix. RANDOM: by lot, within each matrix.
    ALPHA_SUBNET: kept is what WANDA keeps for every one of several tasks.
    MASK: by a file.
    """

    WANDA = "wanda"
    MAGNITUDE = "magnitude"
    RANDOM = "random"
    ALPHA_SUBNET = "alpha-subnet"
    MASK = "mask"

    @property
    def is_calibrated(self) -> bool:
        """Whether it looks at activations."""
        return self in (Method.WANDA, Method.ALPHA_SUBNET)


class Part(StrEnum):
    """Which linear layers of the blocks lose weights."""

    ALL = "all"
    FFN = "ffn"
    ATTENTION = "attention"

    @property
    def halves(self) -> tuple[bool, ...]:
        """Say of each half that is touched whether it is the attention."""
        return {Part.ALL: (True, False), Part.FFN: (False,), Part.ATTENTION: (True,)}[self]


@dataclass(frozen=True)
class Share:
    """A share of the weights goes, to the nearest whole number in each group."""

    sparsity: float

    def __post_init__(self) -> None:
        """Refuse what is no share.

        Raises:
            ValueError: The sparsity is not between 0 and 1.
        """
        if not 0 < self.sparsity < 1:
            raise ValueError(f"sparsity is {self.sparsity}: expected a share between 0 and 1.")

    def __str__(self) -> str:
        return f"{self.sparsity:.4g}"


@dataclass(frozen=True)
class Group:
    """Of each `size` weights that follow each other in a row, `kept` stay."""

    kept: int
    size: int

    def __post_init__(self) -> None:
        """Refuse what keeps nothing, or everything.

        Raises:
            ValueError: The numbers are not 0 < kept < size.
        """
        if not 0 < self.kept < self.size:
            raise ValueError(f"The pattern is {self}: expected N:M with 0 < N < M, as 2:4.")

    def __str__(self) -> str:
        return f"{self.kept}:{self.size}"


Pattern = Share | Group


def read_pattern(text: str) -> Group:
    """Read N:M, of which N stay.

    Raises:
        ValueError: It is written otherwise.
    """
    kept, colon, size = text.partition(":")
    if not colon or not kept.isdecimal() or not size.isdecimal():
        raise ValueError(f"The pattern is {text!r}: expected N:M with 0 < N < M, as 2:4.")
    return Group(int(kept), int(size))


@dataclass(frozen=True)
class CompressionRecipe:
    """A whole compression; equal recipes on equal models zero the same weights.

    Attributes:
        pattern: how many go; None where a file says which.
        seed: what draws RANDOM's lots, and the calibration's questions.
    """

    method: Method
    pattern: Pattern | None
    part: Part = Part.ALL
    seed: int = 20

    def __post_init__(self) -> None:
        """Refuse what would be ignored, and what is missing.

        Raises:
            ValueError: A pattern is given beside a file of masks, or none without one.
        """
        if (self.pattern is None) != (self.method is Method.MASK):
            needs = "is told by its file" if self.method is Method.MASK else "needs one"
            raise ValueError(
                f"sparsity and pattern: how much {self.method.value!r} zeroes {needs}."
            )
