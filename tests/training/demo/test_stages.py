"""Each stage's loss really falls, and reaches the parts that the stage trains."""

from dataclasses import replace

import pytest
import torch

from skipserve_client.evaluate.scenes import Split, make_scene
from skipserve_training.demo.model import DemoModel
from skipserve_training.demo.optimizer import make_optimizers, set_rates
from skipserve_training.demo.recipe import StageName
from skipserve_training.demo.stages import LOSSES, Lesson, embed, trained_parameters
from skipserve_training.demo.tokenizer import IMAGE_ID

SCENES = [make_scene(Split.TRAIN, index) for index in range(4)]


@pytest.mark.fast
@pytest.mark.parametrize("stage", list(StageName))
def test_a_few_steps_lower_the_loss(stage: StageName, model: DemoModel, lesson: Lesson) -> None:
    parameters = trained_parameters(stage, model)
    optimizers = make_optimizers(parameters, eye_share=1.0)
    for optimizer, rate in zip(optimizers, (0.02, 4e-3), strict=True):
        set_rates(optimizer, rate)
    losses = []
    for _ in range(6):
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = LOSSES[stage](lesson, model, SCENES).value
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.fast
@pytest.mark.parametrize(
    ("stage", "trained"),
    [
        (StageName.VISION, {"vision"}),
        (StageName.SYMBOLIC, {"decoder"}),
        (StageName.END_TO_END, {"vision", "decoder"}),
        (StageName.BACKGROUNDS, {"vision"}),
        (StageName.VARIED, {"vision", "decoder"}),
    ],
)
def test_a_stage_trains_its_parts(
    stage: StageName, trained: set[str], model: DemoModel, lesson: Lesson
) -> None:
    loss = LOSSES[stage](lesson, model, SCENES).value
    loss.backward()
    reached = {
        name.split(".")[0] for name, value in model.named_parameters() if value.grad is not None
    }
    assert reached == trained
    assert all(value.grad is not None for value in trained_parameters(stage, model).values())


@pytest.mark.fast
def test_shares_are_by_type(model: DemoModel, lesson: Lesson) -> None:
    vision = LOSSES[StageName.VISION](lesson, model, SCENES).shares
    assert set(vision) == {"shapes", "colours", "sizes", "presence"}
    answers = LOSSES[StageName.SYMBOLIC](lesson, model, SCENES).shares
    assert {"count", "colour"} <= set(answers)
    assert all(0 <= share <= 1 for share in (*vision.values(), *answers.values()))


@pytest.mark.fast
def test_a_picture_that_is_not_in_the_prompt_is_not_seen(model: DemoModel) -> None:
    pictures = torch.randn(3, 2, 128)
    ids = torch.tensor([[1, IMAGE_ID, IMAGE_ID], [1, 7, 8], [1, IMAGE_ID, IMAGE_ID]])
    rows = embed(model, ids, pictures)
    assert torch.equal(rows[0, 1:], pictures[0])
    assert torch.equal(rows[1], model.decoder.embedding[ids[1]])
    assert torch.equal(rows[2, 1:], pictures[2])


@pytest.mark.fast
def test_a_varied_lesson_asks_otherwise(model: DemoModel, lesson: Lesson) -> None:
    loss = LOSSES[StageName.VARIED]
    with torch.inference_mode():
        plain = loss(lesson, model, SCENES * 8)
        varied = loss(replace(lesson, is_varied=True), model, SCENES * 8)
    assert not torch.equal(plain.value, varied.value)


@pytest.mark.fast
def test_the_symbolic_noise_is_repeatable(model: DemoModel, lesson: Lesson) -> None:
    loss = LOSSES[StageName.SYMBOLIC]
    with torch.inference_mode():
        first, second = (loss(lesson, model, SCENES).value for _ in range(2))
    assert torch.equal(first, second)
