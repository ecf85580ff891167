"""Packed questions: what each row sees, and which rows are trained."""

import pytest
import torch

from skipserve_client.evaluate.scenes import Split, make_scene
from skipserve_training.demo.batches import to_pixels
from skipserve_training.demo.stages import Lesson
from skipserve_training.demo.tokenizer import END_ID, IMAGE_ID, PADDING_ID, START_ID

pytestmark = pytest.mark.fast

SCENES = [make_scene(Split.TRAIN, index) for index in range(6)]


def test_rows_hold_prefix_questions_and_padding(lesson: Lesson) -> None:
    batch = lesson.packer.pack(SCENES)
    assert batch.ids.shape == (6, lesson.recipe.rows)
    assert (batch.ids[:, 0] == START_ID).all()
    assert ((batch.ids == IMAGE_ID).sum(1) == 36).all()
    text = lesson.packer.tokenizer.decode(batch.ids[0].tolist(), skip_special_tokens=False)
    first, *rest = text.replace("<pad>", "").removesuffix("</s>").split("</s>")
    assert first.startswith("<s>USER: <image>")
    assert len(rest) >= 3
    assert all(" ASSISTANT: " in segment for segment in (first, *rest))


def test_a_segment_sees_the_prefix_and_itself(lesson: Lesson) -> None:
    batch = lesson.packer.pack(SCENES)
    prefix = len(lesson.packer.prefix)
    ends = (batch.ids[0] == END_ID).nonzero().flatten().tolist()
    first_end, second_end = ends[:2]
    seen_by_second = batch.allowed[0, second_end].nonzero().flatten().tolist()
    expected = [*range(prefix), *range(first_end + 1, second_end + 1)]
    assert seen_by_second == expected


def test_every_segment_starts_after_the_prefix(lesson: Lesson) -> None:
    batch = lesson.packer.pack(SCENES)
    prefix = len(lesson.packer.prefix)
    first_end = int((batch.ids[0] == END_ID).nonzero()[0])
    assert batch.positions[0, : first_end + 1].tolist() == list(range(first_end + 1))
    assert int(batch.positions[0, first_end + 1]) == prefix


def test_only_answers_are_trained(lesson: Lesson) -> None:
    batch = lesson.packer.pack(SCENES)
    ids = batch.ids.flatten()
    assert torch.equal(ids[batch.answer_rows + 1], batch.targets)
    assert not (batch.targets == PADDING_ID).any()
    marks = lesson.packer.tokenizer.encode(" ASSISTANT:", add_special_tokens=False).ids
    starts = batch.answer_rows[ids[batch.answer_rows] == marks[-1]]
    assert len(starts) == int((batch.targets == END_ID).sum())
    at_ends = batch.weights[batch.targets == END_ID]
    assert torch.equal(at_ends, torch.full_like(at_ends, lesson.recipe.end_weight))


def test_the_same_scenes_make_the_same_batch(lesson: Lesson) -> None:
    assert torch.equal(lesson.packer.pack(SCENES).ids, lesson.packer.pack(SCENES).ids)


def test_no_row_is_blind(lesson: Lesson) -> None:
    assert lesson.packer.pack(SCENES).allowed.any(-1).all()


def test_pixels_are_normalised() -> None:
    pixels = to_pixels([scene.render() for scene in SCENES])
    assert pixels.shape == (6, 3, 96, 96)
    assert -2.0 < float(pixels.min()) < float(pixels.max()) < 2.8
