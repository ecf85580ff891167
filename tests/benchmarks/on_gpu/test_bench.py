"""What the sections share is made once, and only as much of it as there is room for."""

import pytest
import torch
from on_gpu.bench import AMOUNTS, Bench
from questions import QuestionSource
from random_weights import SHAPES, model_config

from skipserve_policies.plan import TokenClass


@pytest.fixture
def bench() -> Bench:
    return Bench(torch.device("cpu"), "tiny")


def test_runner_and_transformers_are_never_there_together(bench: Bench) -> None:
    first = bench.runner
    assert bench.runner is first
    assert bench.transformers is bench.transformers
    assert "runner" not in vars(bench)
    assert bench.runner is not first
    assert "transformers" not in vars(bench)


def test_after_a_failure_engines_are_made_anew(bench: Bench) -> None:
    engine, llava = bench.engine, bench.llava
    bench.clean_up(after_failure=False)
    assert bench.engine is engine
    bench.clean_up(after_failure=True)
    assert bench.engine is not engine
    assert bench.llava is llava


@pytest.mark.fast
def test_each_way_to_decode_gets_its_graphs(bench: Bench) -> None:
    digests = [plan.column_digest(TokenClass.GENERATED) for plan in bench.hot_plans]
    assert len(digests) == len(set(digests))
    for policy in bench.policies:
        assert bench.plan(policy).column_digest(TokenClass.GENERATED) in digests


@pytest.mark.fast
def test_no_picture_is_seen_twice(bench: Bench) -> None:
    source = QuestionSource(bench.config, seed=0)
    questions = bench.questions(300, source)
    assert len({question.image.digest for question in questions}) == 300
    assert {len(question.prompt_ids) for question in questions} == {16 + 8}


@pytest.mark.fast
def test_a_question_of_the_large_model_has_640_rows() -> None:
    vision = model_config(SHAPES["7b"]).sizes.vision
    assert vision.num_features + AMOUNTS["7b"].num_text == 640


@pytest.mark.fast
def test_targets_are_for_the_large_model_on_a_gpu() -> None:
    assert Bench(torch.device("cuda"), "7b").has_targets
    assert not Bench(torch.device("cpu"), "7b").has_targets
    assert not Bench(torch.device("cuda"), "tiny").has_targets


@pytest.mark.fast
def test_ceilings_must_be_measured_first(bench: Bench) -> None:
    with pytest.raises(AssertionError, match="add them to --only"):
        _ = bench.ceilings
