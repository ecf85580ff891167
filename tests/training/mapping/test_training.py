"""A projector learns, stops, and goes on as if it had not stopped."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_language import make_llama, make_tokenizer

from skipserve_client.evaluate.easy_vqa import EasySplit
from skipserve_policies.sizes import MappingSizes
from skipserve_training.mapping.easy_vqa_lessons import EasyLessons
from skipserve_training.mapping.features import Features
from skipserve_training.mapping.language import FrozenLanguageModel
from skipserve_training.mapping.lessons import PromptForm
from skipserve_training.mapping.packing import PICTURE, Example, pack
from skipserve_training.mapping.projectors import Projector, make_projector
from skipserve_training.mapping.recipe import MappingRecipe
from skipserve_training.mapping.training import Checkpoint, Course, answer, make_accelerator, train
from skipserve_training.run_folder import RunFolder

SIZES = MappingSizes(num_queries=3, hidden_size=16, num_layers=1, num_heads=2, ffn_size=16)
RECIPE = MappingRecipe(
    steps=5, sizes=SIZES, pictures=2, rate=1e-2, warmup=1, save_every=2, loss_scale=1.0
)


class StoppedError(Exception):
    """Someone interrupted the training."""


@pytest.fixture
def course(easy_split: EasySplit) -> Course:
    lessons = EasyLessons(easy_split)
    noise = torch.randn(2 * len(lessons), 4, 8, generator=torch.Generator().manual_seed(0))
    return Course(
        FrozenLanguageModel(make_llama()),
        lessons,
        Features(noise.bfloat16().view(torch.int16).numpy()),
        PromptForm(make_tokenizer(), SIZES.num_queries, lessons.kinds),
        views=2,
    )


def _projector() -> Projector:
    torch.manual_seed(0)
    return make_projector(RECIPE.projector, 8, 32, SIZES)


def _train(course: Course, path: Path, *, stop_at: int | None = None) -> Projector:
    def watch(step: int, loss: float) -> None:
        if step == stop_at:
            raise StoppedError

    projector = _projector()
    folder = RunFolder(path, Checkpoint)
    train(RECIPE, course, projector, folder, make_accelerator(torch.device("cpu")), watch)
    return projector


def test_the_loss_falls(course: Course, tmp_path: Path) -> None:
    losses: list[float] = []
    recipe = MappingRecipe(steps=30, sizes=SIZES, pictures=4, rate=1e-2, warmup=1, loss_scale=1.0)
    folder = RunFolder(tmp_path, Checkpoint)
    train(
        recipe, course, _projector(), folder, make_accelerator(torch.device("cpu")),
        lambda _, loss: losses.append(loss),
    )  # fmt: skip
    assert losses[-1] < losses[0] - 0.5
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [20, 30]
    assert set(lines[0]["right"]) == set(course.lessons.kinds)


@pytest.mark.fast
def test_an_interrupted_training_goes_on(course: Course, tmp_path: Path) -> None:
    whole = _train(course, tmp_path / "whole")
    with pytest.raises(StoppedError):
        _train(course, tmp_path / "parts", stop_at=4)
    resumed = _train(course, tmp_path / "parts")
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


@pytest.mark.fast
def test_packed_answers_have_the_gradients_of_single_ones(course: Course) -> None:
    projector = _projector()
    features, _ = course.batch([0], random.Random(0))
    asked = course.lessons.exchanges(0, random.Random(0))
    examples = [course.prompts.example(exchange) for exchange in asked]
    assert len(examples) > 3

    def gradient(groups: Sequence[Sequence[int]]) -> torch.Tensor:
        projector.zero_grad()
        for group in groups:
            batch = pack([[examples[index] for index in group]])
            loss = answer(course.language, projector, features, batch).loss
            (loss * len(batch.targets)).backward()
        grad = next(projector.parameters()).grad
        assert grad is not None
        return grad.clone()

    packed = gradient([range(len(examples))])
    single = gradient([[index] for index in range(len(examples))])
    torch.testing.assert_close(packed, single, rtol=1e-3, atol=1e-4)


@pytest.mark.fast
def test_an_answer_is_right_when_greedy_decoding_gives_it(course: Course) -> None:
    torch.manual_seed(3)
    projector = _projector()
    features, _ = course.batch([0, 1], random.Random(0))
    model = make_llama()
    rows = projector(features.float())
    greedy = []
    for index in range(2):
        prompt = torch.tensor([[1, 5, 9]])
        embeds = torch.cat((rows[index : index + 1], model.get_input_embeddings()(prompt)), dim=1)
        given = model.generate(inputs_embeds=embeds, max_new_tokens=3, do_sample=False)[0]
        greedy.append(given.tolist())
    examples = [
        [
            Example((*[PICTURE] * 3, 1, 5, 9), tuple(greedy[index]), 0),
            Example((*[PICTURE] * 3, 1, 5, 9), (*greedy[index][:-1], greedy[index][-1] ^ 1), 0),
        ]
        for index in range(2)
    ]
    outcome = answer(course.language, projector, features, pack(examples))
    assert outcome.is_right.tolist() == [True, False, True, False]


@pytest.mark.fast
def test_every_medium_comes_once_an_epoch(course: Course, tmp_path: Path) -> None:
    seen: list[int] = []

    class Watching(EasyLessons):
        def exchanges(self, index, draw):  # type: ignore[no-untyped-def]
            seen.append(index)
            return super().exchanges(index, draw)

    watched = Course(
        course.language,
        Watching(course.lessons.split),  # type: ignore[attr-defined]
        course.features,
        course.prompts,
        course.views,
    )
    _train(watched, tmp_path)
    assert len(seen) == 10
    assert sorted(seen[:8]) == list(range(8))
    assert np.ptp(seen[8:]) > 0
