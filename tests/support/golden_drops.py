"""Known answers of models whose weights follow from a seed, of whose prompts visual rows leave.

Worked out in float64 by a reference that shares no code with this one: which rows go on, greedy
tokens, and the first logits. The rows are the same under a noise of 1e-4 in the weights.
"""

from dataclasses import dataclass

from skipserve_policies.narrowing import Narrowing, Stage
from skipserve_policies.schema import Dropper


def _narrowing(method: Dropper, *stages: tuple[int, int]) -> Narrowing:
    renumbers = method is Dropper.PYRAMIDDROP
    return Narrowing(method, tuple(Stage(*stage) for stage in stages), renumbers)


@dataclass(frozen=True)
class Golden:
    """A known answer.

    Attributes:
        model: whose.
        prompt: to which.
        narrowing: what leaves; None for nothing.
        tokens: the answer.
        kept: the visual rows that go on from each stage, by their places in the prompt.
    """

    model: str
    prompt: str
    narrowing: Narrowing | None
    tokens: tuple[int, ...]
    kept: tuple[tuple[int, ...], ...] = ()

    @property
    def name(self) -> str:
        """What tells it from the others of its model."""
        method = self.narrowing.method.value if self.narrowing else "full"
        return f"{method} {self.prompt}"


GOLDEN = (
    Golden("plain", "image-first", None, (119, 110, 106, 4, 3, 77), ()),
    Golden(
        "plain", "image-first", _narrowing(Dropper.VTW, (4, 0)), (119, 71, 77, 18, 116, 1), ((),)
    ),
    Golden(
        "plain",
        "image-first",
        _narrowing(Dropper.FASTV, (2, 18)),
        (1, 58, 118, 68, 116, 1),
        ((0, 2, 3, 4, 8, 10, 13, 17, 19, 20, 21, 22, 25, 26, 27, 29, 34, 35),),
    ),
    Golden(
        "plain",
        "image-first",
        _narrowing(Dropper.PYRAMIDDROP, (2, 18), (4, 9), (6, 4)),
        (119, 106, 14, 2, 67, 30),
        (
            (3, 4, 5, 8, 9, 10, 11, 12, 15, 16, 18, 22, 26, 27, 28, 29, 34, 35),
            (3, 9, 10, 11, 12, 15, 16, 22, 35),
            (10, 15, 16, 35),
        ),
    ),
    Golden(
        "plain",
        "image-first",
        _narrowing(Dropper.DART, (2, 18)),
        (119, 58, 14, 114, 1, 14),
        ((1, 4, 5, 7, 8, 9, 13, 14, 15, 17, 20, 21, 23, 25, 26, 28, 29, 30, 34, 35),),
    ),
    Golden("plain", "text-first", None, (121, 77, 4, 115, 16, 34), ()),
    Golden(
        "plain", "text-first", _narrowing(Dropper.VTW, (4, 0)), (121, 77, 4, 52, 121, 119), ((),)
    ),
    Golden(
        "plain",
        "text-first",
        _narrowing(Dropper.FASTV, (2, 18)),
        (63, 125, 27, 63, 16, 7),
        ((7, 12, 13, 15, 17, 18, 19, 20, 24, 25, 26, 29, 30, 35, 37, 38, 39, 40),),
    ),
    Golden(
        "plain",
        "text-first",
        _narrowing(Dropper.PYRAMIDDROP, (2, 18), (4, 9), (6, 4)),
        (121, 107, 68, 106, 107, 37),
        (
            (5, 14, 15, 16, 18, 19, 23, 25, 26, 27, 29, 31, 32, 33, 34, 38, 39, 40),
            (16, 18, 19, 23, 25, 27, 33, 34, 39),
            (16, 18, 27, 34),
        ),
    ),
    Golden(
        "plain",
        "text-first",
        _narrowing(Dropper.DART, (2, 18)),
        (121, 34, 119, 34, 1, 4),
        ((6, 7, 9, 10, 12, 13, 16, 17, 18, 19, 21, 23, 24, 26, 30, 31, 34, 36, 39, 40),),
    ),
    Golden("grouped", "image-first", None, (64, 3, 3, 3, 56, 107), ()),
    Golden(
        "grouped", "image-first", _narrowing(Dropper.VTW, (4, 0)), (56, 107, 50, 147, 88, 72), ((),)
    ),
    Golden(
        "grouped",
        "image-first",
        _narrowing(Dropper.FASTV, (2, 32)),
        (43, 132, 71, 146, 132, 101),
        (
            (
                0,
                1,
                4,
                11,
                12,
                13,
                14,
                16,
                17,
                18,
                20,
                21,
                22,
                23,
                25,
                26,
                27,
                28,
                31,
                32,
                33,
                38,
                40,
                44,
                47,
                54,
                56,
                57,
                58,
                60,
                62,
                63,
            ),
        ),
    ),
    Golden(
        "grouped",
        "image-first",
        _narrowing(Dropper.PYRAMIDDROP, (2, 32), (4, 16), (6, 8)),
        (46, 38, 92, 8, 102, 15),
        (
            (
                1,
                3,
                6,
                9,
                13,
                14,
                15,
                16,
                22,
                25,
                26,
                29,
                30,
                32,
                33,
                35,
                38,
                39,
                40,
                43,
                45,
                46,
                47,
                48,
                50,
                52,
                53,
                54,
                57,
                58,
                62,
                63,
            ),
            (1, 6, 15, 16, 22, 30, 32, 38, 39, 43, 48, 50, 52, 53, 58, 62),
            (15, 16, 22, 38, 39, 43, 48, 53),
        ),
    ),
    Golden(
        "grouped",
        "image-first",
        _narrowing(Dropper.DART, (2, 32)),
        (46, 127, 102, 132, 8, 53),
        (
            (
                0,
                2,
                3,
                4,
                5,
                6,
                7,
                8,
                9,
                10,
                12,
                14,
                15,
                16,
                18,
                19,
                20,
                21,
                25,
                26,
                27,
                28,
                30,
                32,
                37,
                38,
                44,
                47,
                50,
                52,
                53,
                54,
                55,
                57,
                59,
                63,
            ),
        ),
    ),
    Golden("grouped", "text-first", None, (118, 28, 118, 114, 105, 105), ()),
    Golden(
        "grouped",
        "text-first",
        _narrowing(Dropper.VTW, (4, 0)),
        (114, 37, 121, 137, 43, 116),
        ((),),
    ),
    Golden(
        "grouped",
        "text-first",
        _narrowing(Dropper.FASTV, (2, 32)),
        (135, 133, 23, 67, 121, 114),
        (
            (
                5,
                6,
                7,
                8,
                9,
                10,
                12,
                13,
                15,
                16,
                18,
                19,
                20,
                21,
                25,
                26,
                27,
                29,
                30,
                31,
                32,
                34,
                40,
                43,
                48,
                50,
                51,
                53,
                54,
                59,
                64,
                66,
            ),
        ),
    ),
    Golden(
        "grouped",
        "text-first",
        _narrowing(Dropper.PYRAMIDDROP, (2, 32), (4, 16), (6, 8)),
        (118, 114, 107, 118, 118, 118),
        (
            (
                6,
                7,
                10,
                11,
                12,
                13,
                14,
                15,
                16,
                18,
                29,
                31,
                32,
                33,
                34,
                35,
                36,
                37,
                38,
                39,
                41,
                42,
                43,
                44,
                46,
                50,
                57,
                62,
                64,
                65,
                67,
                68,
            ),
            (6, 7, 10, 11, 12, 13, 15, 16, 33, 38, 39, 42, 46, 50, 57, 62),
            (6, 7, 10, 12, 13, 15, 46, 57),
        ),
    ),
    Golden(
        "grouped",
        "text-first",
        _narrowing(Dropper.DART, (2, 32)),
        (118, 114, 20, 133, 126, 145),
        (
            (
                5,
                6,
                8,
                9,
                10,
                11,
                12,
                14,
                15,
                16,
                17,
                19,
                20,
                21,
                23,
                24,
                25,
                26,
                28,
                29,
                31,
                33,
                37,
                39,
                41,
                42,
                44,
                48,
                50,
                51,
                53,
                54,
                59,
                63,
                65,
                66,
            ),
        ),
    ),
)
