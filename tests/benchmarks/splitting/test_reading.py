"""What a step reads of the weights of LLaVA-1.5-7B, against figures worked out by hand."""

import time

import pytest
import torch
from plans import resolved
from splitting.reading import read_bandwidth, weights_read

from skipserve_policies.plan import TokenClass
from skipserve_policies.sizes import KNOWN_MODELS

pytestmark = pytest.mark.fast

SIZES = KNOWN_MODELS["llava-1.5-7b"]
LAYER = 4 * 4096**2 + 3 * 4096 * 11008
HEAD = 4096 * 32000
GENERATED = {TokenClass.GENERATED}
PROMPT = set(TokenClass) - GENERATED


@pytest.mark.parametrize(
    ("policy", "classes", "numbers"),
    [
        ("full", PROMPT, 32 * LAYER),
        ("full", GENERATED, 32 * LAYER),
        ("skip-block-every-3-from-16-all", GENERATED, 27 * LAYER),
        ("skip-ffn-from-16-all", GENERATED, 32 * LAYER - 16 * 3 * 4096 * 11008),
        # What is left out for the picture's rows is read for the others.
        ("visual-freeze-from-16", PROMPT, 32 * LAYER),
    ],
)
def test_a_step_reads_what_some_row_needs(
    policy: str, classes: set[TokenClass], numbers: int
) -> None:
    plan = resolved(policy, SIZES).plan
    assert weights_read(SIZES.decoder, plan, classes) == numbers + HEAD


def test_the_bandwidth_is_bytes_over_seconds() -> None:
    """A clock that goes a second a look gives one second to 256 readings of 4 MiB."""
    moments = iter(range(100))
    found = read_bandwidth(2**22, torch.device("cpu"), lambda: float(next(moments)))
    assert found == pytest.approx(2**30)
    assert read_bandwidth(2**22, torch.device("cpu"), time.thread_time) > 0
