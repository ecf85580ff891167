"""Packed questions: what each row sees, and which rows are trained."""

import pytest
import torch

from skipserve_client.evaluate.off_topic import REFUSAL
from skipserve_client.evaluate.questions import QUESTION_TYPES, QuestionType
from skipserve_client.evaluate.scenes import Split, make_scene
from skipserve_training.demo.batches import Batch, to_pixels
from skipserve_training.demo.stages import Lesson
from skipserve_training.demo.tokenizer import END_ID, IMAGE_ID, PADDING_ID, START_ID

pytestmark = pytest.mark.fast

SCENES = [make_scene(Split.TRAIN, index) for index in range(6)]
MANY = [make_scene(Split.TRAIN, index) for index in range(100)]


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


def _texts(lesson: Lesson, batch: Batch) -> list[list[str]]:
    """Return each sequence's questions with their answers, the prefix before the first."""
    decoded = [
        lesson.packer.tokenizer.decode(ids.tolist(), skip_special_tokens=False) for ids in batch.ids
    ]
    return [text.replace("<pad>", "").removesuffix("</s>").split("</s>") for text in decoded]


def test_a_varied_batch_asks_beyond_the_shapes(lesson: Lesson) -> None:
    plain = lesson.packer.pack(MANY)
    varied = lesson.packer.pack(MANY, is_varied=True)
    refusal = QUESTION_TYPES.index(QuestionType.REFUSAL)
    assert not (plain.kinds == refusal).any()
    ends = varied.targets == END_ID
    assert 0.03 < (varied.kinds[ends] == refusal).float().mean() < 0.3
    for texts in _texts(lesson, varied):
        for text in texts:
            assert (text.count(REFUSAL) == 1) or REFUSAL not in text


def test_of_a_refusal_the_first_token_weighs_most(lesson: Lesson) -> None:
    varied = lesson.packer.pack(MANY, is_varied=True)
    first, *others = varied.weights[
        varied.kinds == QUESTION_TYPES.index(QuestionType.REFUSAL)
    ].tolist()[: len(lesson.packer.tokenizer.encode(f" {REFUSAL}", add_special_tokens=False).ids)]
    assert first == 1.0
    assert others == pytest.approx([lesson.recipe.refusal_weight] * len(others))


def test_without_a_picture_everything_is_refused(lesson: Lesson) -> None:
    varied = lesson.packer.pack(MANY, is_varied=True)
    bare = [
        texts
        for texts, ids in zip(_texts(lesson, varied), varied.ids, strict=True)
        if not (ids == IMAGE_ID).any()
    ]
    assert 0 < len(bare) < len(MANY) / 5
    for texts in bare:
        assert texts[0].startswith("<s>USER: ")
        assert all(text.endswith(f" ASSISTANT: {REFUSAL}") for text in texts)
    asked = " ".join(text for texts in bare for text in texts)
    assert "circle" in asked  # shapes too: there is no picture of them


def test_some_questions_follow_an_answer(lesson: Lesson) -> None:
    varied = lesson.packer.pack(MANY, is_varied=True)
    ids = varied.ids.flatten()
    user = lesson.packer.tokenizer.encode("USER", add_special_tokens=False).ids[0]
    later = (ids == user) & (ids.roll(1) == END_ID)
    assert later.any()
    for place in later.nonzero().flatten().tolist():
        row, column = divmod(place, varied.ids.shape[1])
        before = int(varied.positions[row, column - 1])
        assert int(varied.positions[row, column]) == before + 1
        assert varied.allowed[row, column, column - 1]  # it sees the answer that it follows
        assert place not in varied.answer_rows


def test_a_varied_batch_is_repeatable(lesson: Lesson) -> None:
    first, second = (lesson.packer.pack(MANY, is_varied=True).ids for _ in range(2))
    assert torch.equal(first, second)


def test_no_row_is_blind(lesson: Lesson) -> None:
    assert lesson.packer.pack(SCENES).allowed.any(-1).all()


def test_pixels_are_normalised() -> None:
    pixels = to_pixels([scene.render() for scene in SCENES])
    assert pixels.shape == (6, 3, 96, 96)
    assert -2.0 < float(pixels.min()) < float(pixels.max()) < 2.8
