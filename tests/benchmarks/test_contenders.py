"""Our engine keeps so many questions under way; transformers gets padded batches."""

from pathlib import Path
from typing import Any

import pytest
import torch
from contenders import OurEngine, Transformers, load_engine, padded
from questions import QuestionSource
from timing import time_set

from skipserve.engine.engine import Engine
from skipserve.model.config import ModelConfig

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def engine(deep_model: Path) -> Engine:
    return load_engine(deep_model, torch.device("cpu"), torch.float32)


@pytest.fixture
def source(deep_model: Path) -> QuestionSource:
    return QuestionSource(ModelConfig.from_folder(deep_model), seed=0)


def test_prompts_are_padded_on_the_left() -> None:
    ids, mask = padded([(5, 6, 7), (8,)])
    assert ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_no_more_than_the_concurrency_are_under_way(engine: Engine, source: QuestionSource) -> None:
    ours = OurEngine(engine, concurrency=2)
    time_set(ours, [source.question(8, length) for length in (1, 4, 2, 3)])
    assert max(report.num_sequences for report in ours.reports) == 2
    assert not engine.has_work


def test_reports_are_of_the_last_set(engine: Engine, source: QuestionSource) -> None:
    ours = OurEngine(engine)
    for _ in range(2):
        time_set(ours, [source.question(8, 3)])
    assert len(ours.reports) == 3


def test_all_give_the_same_answers_to_questions_of_all_lengths(
    engine: Engine, source: QuestionSource, deep_model: Path
) -> None:
    questions = [source.question(10 + 7 * i, 1 + 2 * i) for i in range(4)]
    model = Transformers.load(deep_model, torch.device("cpu"), torch.float32)
    everyone: list[Any] = [
        OurEngine(engine, concurrency=3),
        Transformers(model),
        Transformers(model, batch_size=3),
    ]
    ours, one_by_one, batched = (
        [answer.token_ids for answer in time_set(contender, questions).answers]
        for contender in everyone
    )
    assert ours == one_by_one == batched
