"""Reductions of a batch of pictures, against a reference that reduces one at a time."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from reference_reduction import View, divprune, downsample, visionzip, vispruner
from tiny_llava import make_checkpoint
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlavaForConditionalGeneration

from skipserve.model.llava import Llava
from skipserve_policies.flops import projector_flops, vision_flops
from skipserve_policies.reduction import Reduction
from skipserve_policies.schema import Reducer

pytestmark = pytest.mark.fast

SHAPE = {"image_size": 42, "vision_heads": 4, "vision_layers": 4, "seed": 5}  # 36 patches
NUM_PICTURES = 3


class Subject:
    """A model and transformers', with what the latter's tower sees of some pictures."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        make_checkpoint(folder, **SHAPE)
        self.model = Llava.load(folder, device, torch.float32)
        self.oracle = LlavaForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()
        generator = torch.Generator().manual_seed(1)
        shape = (NUM_PICTURES, 42, 42, 3)
        self.pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        self.views = self._see()

    def _see(self) -> list[View]:
        steps = self.model.config.image_processor
        normalised = (self.pixels / 255 - torch.tensor(steps.mean)) / torch.tensor(steps.std)
        tower = self.oracle.model.vision_tower
        with torch.inference_mode():
            seen = tower(
                normalised.permute(0, 3, 1, 2), output_hidden_states=True, output_attentions=True
            )
            block = tower.encoder.layers[-2]
            keys = block.self_attn.k_proj(block.layer_norm1(seen.hidden_states[-3]))
        return [
            View(features, attention.mean(dim=0)[0, 1:], key[1:].view(36, 4, -1).mean(dim=1))
            for features, attention, key in zip(
                seen.hidden_states[-2], seen.attentions[-2], keys, strict=True
            )
        ]

    def project(self, features: Tensor) -> Tensor:
        with torch.inference_mode():
            rows: Tensor = self.oracle.model.multi_modal_projector(features.float())
        return rows

    def expected(self, reduction: Reduction | None, view: View) -> Tensor:
        """Return what the reference leaves of one picture."""
        rows = self.project(view.features[1:])
        match reduction.method if reduction else None:
            case Reducer.VISIONZIP:
                assert reduction is not None
                num_dominant = reduction.num_rows - reduction.num_merged
                left, _ = visionzip(view, num_dominant, reduction.num_merged)
                return self.project(left)
            case Reducer.VISPRUNER:
                assert reduction is not None
                return rows[vispruner(view, reduction.num_rows, reduction.num_important)]
            case Reducer.DIVPRUNE:
                assert reduction is not None
                return rows[divprune(rows, reduction.num_rows)]
            case Reducer.DOWNSAMPLE:
                assert reduction is not None
                return self.project(downsample(view.features[1:], *reduction.grid))
            case _:
                return rows


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory, device: torch.device) -> Subject:
    return Subject(tmp_path_factory.mktemp("pictures"), device)


def check(subject: Subject, reductions: list[Reduction | None]) -> None:
    pixels = subject.pixels[: len(reductions)].to(subject.model.device)
    left = subject.model.encode_reduced(pixels, reductions)
    for reduction, rows, view in zip(reductions, left, subject.views, strict=False):
        expected = subject.expected(reduction, view)
        assert rows.shape == expected.shape
        torch.testing.assert_close(rows.cpu(), expected, rtol=1e-4, atol=1e-4)


REDUCTIONS = [
    *(Reduction(Reducer.VISIONZIP, n, num_merged=m) for n, m in ((12, 4), (1, 0), (35, 9), (2, 1))),
    *(
        Reduction(Reducer.VISPRUNER, n, num_important=m)
        for n, m in ((12, 6), (13, 6), (1, 0), (1, 1), (35, 0), (20, 20))
    ),
    *(Reduction(Reducer.DIVPRUNE, n) for n in (1, 2, 12, 35)),
    *(
        Reduction(Reducer.DOWNSAMPLE, height * width, grid=(height, width))
        for height, width in ((3, 4), (1, 1), (5, 6), (4, 4))
    ),
]


@pytest.mark.parametrize("reduction", REDUCTIONS, ids=str)
def test_a_batch_is_reduced_as_each_picture_would_be(
    subject: Subject, reduction: Reduction
) -> None:
    check(subject, [reduction] * NUM_PICTURES)


def test_pictures_of_one_batch_are_reduced_each_in_its_way(subject: Subject) -> None:
    check(subject, [REDUCTIONS[0], None, REDUCTIONS[4]])
    check(subject, [REDUCTIONS[10], REDUCTIONS[0], REDUCTIONS[14]])


def test_equal_rows_are_not_chosen_twice(subject: Subject) -> None:
    """A plain picture: all patches are alike but for their places."""
    plain = torch.full((1, 42, 42, 3), 128, dtype=torch.uint8, device=subject.model.device)
    for reduction in REDUCTIONS:
        (rows,) = subject.model.encode_reduced(plain, [reduction])
        assert len(rows) == reduction.num_rows
        assert rows.isfinite().all()


def test_random_rows_depend_on_the_seed_alone(subject: Subject) -> None:
    pixels = subject.pixels.to(subject.model.device)
    whole = subject.model.encode_images(pixels)
    one, other = (Reduction(Reducer.RANDOM, 12, seed=seed) for seed in (1, 2))
    left = subject.model.encode_reduced(pixels, [one, other, one])
    chosen = [
        torch.cdist(rows, all_rows).argmin(dim=1).tolist()
        for rows, all_rows in zip(left, whole, strict=True)
    ]
    assert chosen[0] == chosen[2] != chosen[1]
    assert chosen[0] == sorted(set(chosen[0]))
    counts = torch.zeros(36)
    for seed in range(200):
        (rows,) = subject.model.encode_reduced(pixels[:1], [replace(one, seed=seed)])
        counts[torch.cdist(rows, whole[0]).argmin(dim=1)] += 1
    assert 200 / 3 * 0.6 < counts.min() <= counts.max() < 200 / 3 * 1.4


@pytest.mark.parametrize(
    "reduction",
    [None, REDUCTIONS[0], REDUCTIONS[4], REDUCTIONS[12], Reduction(Reducer.RANDOM, 12, seed=0)],
    ids=str,
)
def test_what_it_costs_is_what_is_counted(subject: Subject, reduction: Reduction | None) -> None:
    sizes = subject.model.config.sizes
    with FlopCounterMode(display=False) as counter:
        subject.model.encode_reduced(subject.pixels[:1].to(subject.model.device), [reduction])
    # torch does not count what the CPU's fused attention does.
    attention = 4 * sizes.vision.num_layers_used * sizes.vision.num_rows**2 * 32
    planned = vision_flops(sizes.vision, sizes.vision.num_layers_used)
    planned += projector_flops(sizes, reduction)
    assert counter.get_total_flops() + attention == planned
