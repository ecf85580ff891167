"""What one H100 is estimated to take, from configurations alone."""

from dataclasses import replace
from pathlib import Path

import pytest

import skipserve_training.paper
from skipserve_policies.plan import Plan, TokenClass, trim
from skipserve_policies.sizes import DecoderSizes
from skipserve_training.mapping.pass_flops import Pass
from skipserve_training.paper.cells import FULL, Cell, chosen, grid
from skipserve_training.paper.hours import ASSUMED, Amounts, Hours
from skipserve_training.paper.setup import SHIPPED, Scoring, Setup

pytestmark = pytest.mark.fast

README = Path(skipserve_training.paper.__file__).with_name("README.md")

OPT = {
    "model_type": "opt", "hidden_size": 4096, "ffn_dim": 16384, "num_hidden_layers": 32,
    "num_attention_heads": 32, "vocab_size": 50272,
}  # fmt: skip
VIT_L = {
    "model_type": "vit", "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
    "intermediate_size": 4096, "image_size": 224, "patch_size": 16,
}  # fmt: skip
# VQAv2: its training split, and what of the other is asked about.
VQA = Amounts(82_783, 40_504, 5.4, 5.3, question=46, answer=5)
SETUP = replace(
    SHIPPED, model="opt-6.7b+vit-l", depth=32, scoring=Scoring.VOTES, few=5_000, many=5_000,
    questions=20 * 443_757, more_questions=2 * 443_757, pictures=8, patches=None, tasks=("vqa",),
)  # fmt: skip


def _hours(setup: Setup = SETUP, amounts: Amounts = VQA) -> Hours:
    return Hours(setup, OPT, VIT_L, amounts)


def _cell(name: str, setup: Setup = SETUP) -> Cell:
    (cell,) = chosen(grid(setup), name, has_extra=True)
    return cell


def test_the_papers_own_setup_takes_hours() -> None:
    """Bounds: 8.9 million questions, of 15 rows each with their share of the picture's."""
    hours = _hours()
    full = hours.seconds(_cell(FULL)) / 3600
    assert 2.5 < full < 12
    rows = SETUP.questions * (46 / 4 + 5 / 4 + 10 / 5.4)
    assert full * 3600 > 4 * 6.6e9 * rows / 989e12  # never faster than the chip
    trained = hours.seconds(_cell("training-dense-seed-20")) / 3600
    assert 0.05 * full < trained < 0.2 * full
    assert hours.seconds(_cell("layer-ffn-07")) < 0.1 * 3600


def test_what_is_skipped_is_not_counted() -> None:
    hours = _hours()
    dense = hours.seconds(_cell("training-dense-seed-20"))
    half = hours.seconds(_cell("training-half-blocks-seed-20"))
    cut = hours.seconds(_cell("ladder-11"))
    assert 0.5 * dense < half < 0.62 * dense
    assert 0.3 * dense < cut < 0.45 * dense


def test_more_of_anything_takes_longer() -> None:
    base, cell = _hours(), _cell("training-wanda-50-seed-20")
    more = [
        _hours(replace(SETUP, num_beams=3)),
        _hours(replace(SETUP, many=10_000, few=10_000)),
        _hours(replace(SETUP, media=1280)),
        _hours(amounts=replace(VQA, question=460)),
        _hours(amounts=replace(VQA, answer=50)),
        _hours(amounts=replace(VQA, pictures=8)),
    ]
    assert all(it.seconds(cell) > base.seconds(cell) for it in more)
    longer = replace(cell, training=replace(cell.training, questions=10_000_000))  # type: ignore[type-var]
    assert base.seconds(longer) > 2 * base.seconds(cell)


def test_small_passes_take_as_long_as_reading_the_weights() -> None:
    hours, plan = _hours(), trim(Plan.full(32))
    one = Pass({TokenClass.LAST: 1}, 1, 1)
    flops = one.forward_flops(DecoderSizes.from_config(OPT), plan)
    weights = 2 * (32 * (4 * 4096**2 + 2 * 4096 * 16384) + 4096 * 50272)
    assert hours._through(flops, plan) == pytest.approx(weights / (0.35 * 3.35e12), rel=0.05)
    assert hours._through(1000 * flops, plan) == pytest.approx(1000 * flops / (0.35 * 989e12))


def test_disk_holds_a_checkpoint_a_compression_and_features() -> None:
    hours = _hours()
    weights = 2 * (32 * (4 * 4096**2 + 2 * 4096 * 16384) + 4096 * 50272)
    features = (82_783 + 40_504) * 197 * 1024 * 2
    assert hours.disk_bytes([_cell(FULL)]) == weights + features
    cells = [_cell(f"training-wanda-50-seed-{seed}") for seed in (20, 21)]
    assert hours.disk_bytes(cells) == 2 * weights + features


def test_it_says_that_it_is_an_estimate() -> None:
    assert ASSUMED.startswith("Estimated for one H100 (989 TFLOP/s in bf16; 67 in fp32")
    assert "35% are taken to be reached" in ASSUMED
    assert ASSUMED.endswith("None of it was measured.")


def test_the_readme_tells_these_hours() -> None:
    hours = _hours()
    usual = [cell for cell in grid(SETUP) if not cell.is_extra]
    full, some, every = (
        sum(map(hours.seconds, cells)) / 3600 for cells in ([_cell(FULL)], usual, grid(SETUP))
    )
    said = (
        f"about {full:.0f} hours for `full`, {some:.0f} for all, {every:.0f} with `--all`, and "
        f"{hours.disk_bytes(usual) / 1e9:.0f} GB of disk"
    )
    assert said in " ".join(README.read_text().split())
