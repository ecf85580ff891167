"""Known answers of models whose weights follow from a seed, with fewer rows of their image.

Worked out in float64 by a reference that shares no code with this one, which gave the rows that the
methods' released code gave on the same inputs.
"""

from dataclasses import dataclass

import pytest
import torch
from golden_llava import PROMPTS, SEEDS, SIZES, make_golden_checkpoint, make_golden_pixels
from model_batches import Rows, run_whole

from skipserve.model.llava import Llava
from skipserve_policies.flops import prompt_classes
from skipserve_policies.plan import Plan, TokenClass, trim
from skipserve_policies.reduction import Reduction
from skipserve_policies.schema import Reducer

pytestmark = pytest.mark.fast

VISIONZIP, VISPRUNER, DIVPRUNE = Reducer.VISIONZIP, Reducer.VISPRUNER, Reducer.DIVPRUNE


@dataclass(frozen=True)
class Golden:
    """A known answer.

    Attributes:
        rows: patches that are left as they are.
        tokens: greedy.
        logits: the first ones of the first token.
    """

    model: str
    prompt: str
    reduction: Reduction
    rows: tuple[int, ...]
    tokens: tuple[int, ...]
    logits: tuple[float, ...]


GOLDEN = (
    Golden(
        "plain",
        "image-first",
        Reduction(VISIONZIP, 13, num_merged=4),
        rows=(5, 8, 10, 16, 21, 22, 25, 27),
        tokens=(73, 119, 68, 102, 2, 53),
        logits=(
            1.526573973,
            0.881535607,
            0.646563642,
            0.200679941,
            1.288216535,
            0.05961929,
            -0.545220845,
            -1.519840168,
        ),
    ),
    Golden(
        "plain",
        "image-first",
        Reduction(VISPRUNER, 12, num_important=6),
        rows=(1, 6, 8, 10, 11, 17, 21, 22, 23, 25, 27, 31),
        tokens=(118, 103, 1, 46, 118, 119),
        logits=(
            0.708424822,
            1.662520325,
            2.016332315,
            1.424694358,
            1.741953758,
            -0.6662905,
            -0.231640783,
            0.584288341,
        ),
    ),
    Golden(
        "plain",
        "image-first",
        Reduction(DIVPRUNE, 12),
        rows=(0, 5, 8, 9, 10, 11, 14, 20, 23, 31, 32, 35),
        tokens=(103, 1, 46, 1, 16, 105),
        logits=(
            0.897712936,
            1.556833895,
            0.794282429,
            0.646201359,
            0.489667843,
            -3.080968527,
            -1.92066947,
            0.199073204,
        ),
    ),
    Golden(
        "plain",
        "text-first",
        Reduction(VISIONZIP, 13, num_merged=4),
        rows=(5, 8, 10, 16, 21, 22, 25, 27),
        tokens=(117, 1, 3, 107, 121, 107),
        logits=(
            -0.061654405,
            -1.349273241,
            0.614641692,
            2.817903456,
            1.581854444,
            -0.868050307,
            -1.43134722,
            -1.39426566,
        ),
    ),
    Golden(
        "plain",
        "text-first",
        Reduction(VISPRUNER, 12, num_important=6),
        rows=(1, 6, 8, 10, 11, 17, 21, 22, 23, 25, 27, 31),
        tokens=(117, 21, 107, 3, 119, 21),
        logits=(
            -0.987725969,
            -1.486254426,
            1.015360274,
            2.983523913,
            1.179756361,
            -1.976355043,
            -1.364465106,
            0.10468901,
        ),
    ),
    Golden(
        "plain",
        "text-first",
        Reduction(DIVPRUNE, 12),
        rows=(0, 5, 8, 9, 10, 11, 14, 20, 23, 31, 32, 35),
        tokens=(121, 52, 116, 57, 29, 52),
        logits=(
            -0.587276427,
            -1.863319302,
            0.862320948,
            2.341039252,
            0.890111336,
            -0.526849047,
            -0.610368981,
            -0.411956356,
        ),
    ),
    Golden(
        "grouped",
        "image-first",
        Reduction(VISIONZIP, 23, num_merged=7),
        rows=(2, 7, 18, 19, 20, 26, 30, 32, 38, 39, 47, 49, 55, 59, 60),
        tokens=(56, 132, 127, 150, 127, 144),
        logits=(
            -1.39176416,
            0.31932222,
            0.453716208,
            2.094642186,
            0.465977634,
            -0.550679546,
            0.626067547,
            -1.760323299,
        ),
    ),
    Golden(
        "grouped",
        "image-first",
        Reduction(VISPRUNER, 21, num_important=10),
        rows=(2, 4, 5, 6, 7, 9, 14, 17, 18, 19, 20, 25, 29, 33, 38, 47, 49, 50, 53, 55, 60),
        tokens=(46, 43, 8, 132, 49, 64),
        logits=(
            -0.599219843,
            -0.359301117,
            0.691024646,
            2.197528329,
            -0.489310399,
            0.023353076,
            -0.304197361,
            -0.264844629,
        ),
    ),
    Golden(
        "grouped",
        "image-first",
        Reduction(DIVPRUNE, 21),
        rows=(3, 4, 9, 10, 14, 17, 18, 20, 21, 24, 27, 29, 30, 41, 48, 49, 51, 53, 58, 61, 62),
        tokens=(19, 150, 43, 40, 60, 132),
        logits=(
            0.431244422,
            1.777553254,
            0.695818937,
            0.010778962,
            -2.542937729,
            0.237003966,
            -0.006817079,
            1.255054891,
        ),
    ),
    Golden(
        "grouped",
        "text-first",
        Reduction(VISIONZIP, 23, num_merged=7),
        rows=(2, 7, 18, 19, 20, 26, 30, 32, 38, 39, 47, 49, 55, 59, 60),
        tokens=(145, 60, 37, 6, 85, 113),
        logits=(
            -0.253375719,
            -0.077646707,
            -0.675096161,
            1.423723809,
            -0.117358987,
            -0.188496992,
            0.850706711,
            -0.849178042,
        ),
    ),
    Golden(
        "grouped",
        "text-first",
        Reduction(VISPRUNER, 21, num_important=10),
        rows=(2, 4, 5, 6, 7, 9, 14, 17, 18, 19, 20, 25, 29, 33, 38, 47, 49, 50, 53, 55, 60),
        tokens=(123, 37, 37, 124, 37, 135),
        logits=(
            1.009095333,
            -1.111859789,
            0.273825628,
            -0.213376826,
            -0.297705819,
            0.663833509,
            0.380966609,
            -0.708336286,
        ),
    ),
    Golden(
        "grouped",
        "text-first",
        Reduction(DIVPRUNE, 21),
        rows=(3, 4, 9, 10, 14, 17, 18, 20, 21, 24, 27, 29, 30, 41, 48, 49, 51, 53, 58, 61, 62),
        tokens=(77, 80, 121, 141, 66, 137),
        logits=(
            1.505945252,
            -0.622251365,
            -1.934095361,
            -0.272619874,
            0.095422686,
            0.348507706,
            0.023939058,
            -1.023878185,
        ),
    ),
)


@pytest.fixture(scope="module", params=SIZES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(name: str, tmp_path_factory: pytest.TempPathFactory) -> Llava:
    folder = tmp_path_factory.mktemp(name)
    make_golden_checkpoint(folder, SIZES[name], SEEDS[name][0])
    return Llava.load(folder, torch.device("cpu"), torch.float32)


def test_what_is_left_and_what_is_answered(name: str, model: Llava) -> None:
    pixels = make_golden_pixels(SIZES[name], SEEDS[name][1])
    (whole,) = model.encode_images(pixels)
    plan = trim(Plan.full(SIZES[name].num_layers))
    cases = [case for case in GOLDEN if case.model == name]
    assert len(cases) == 6
    for case in cases:
        (left,) = model.encode_reduced(pixels, [case.reduction])
        assert len(left) == case.reduction.num_rows
        unchanged = [
            int((whole - row).norm(dim=1).argmin())
            for row in left
            if (whole - row).norm(dim=1).amin() < 1e-4
        ]
        assert tuple(unchanged) == case.rows
        before, after = PROMPTS[case.prompt]
        answer: list[int] = []
        for token in case.tokens:
            rows = _rows(case, left, (*before,), (*after,), answer)
            (logits,) = run_whole(model, rows, plan, [len(rows) - 1])
            if not answer:
                expected = torch.tensor(case.logits)
                torch.testing.assert_close(logits[: len(expected)], expected, rtol=0, atol=2e-4)
            assert int(logits.argmax()) == token
            answer.append(token)


def _rows(
    case: Golden,
    left: torch.Tensor,
    before: tuple[int, ...],
    after: tuple[int, ...],
    answer: list[int],
) -> Rows:
    """Return the prompt and the answer so far, as the model is fed them."""
    image = SIZES[case.model].image_token
    ids = torch.tensor([*before, *[image] * len(left), *after, *answer])
    classes = prompt_classes(
        [
            (TokenClass.TEXT, len(before)),
            (TokenClass.VISUAL, len(left)),
            (TokenClass.TEXT, len(after)),
        ]
    )
    return Rows(ids, (*classes, *[TokenClass.GENERATED] * len(answer)), left, ids == image)
