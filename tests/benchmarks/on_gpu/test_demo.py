"""The rule by which answers on a device equal those on a CPU."""

from pathlib import Path

import pytest
import torch
from checkpoints import checkpoint
from on_gpu.demo import (
    Alone,
    answer_alone,
    compare_logits,
    compare_tokens,
    demo_questions,
    follows,
    ieee_products,
)
from torch import Tensor

from skipserve.model.llava import Llava

pytestmark = pytest.mark.fast


def logits(best: int, gap: float = 1.0) -> Tensor:
    """Return logits of a scale of 100."""
    values = torch.zeros(5)
    values[best], values[(best + 1) % 5] = 100.0, 100.0 - gap
    return values


def alone(*tokens: int, gap: float = 1.0) -> Alone:
    return Alone(tokens, tuple(logits(token, gap) for token in tokens))


def test_equal_answers_follow() -> None:
    assert follows((1, 2, 3), alone(1, 2, 3))
    assert not follows((1, 2, 4), alone(1, 2, 3))


def test_after_a_tie_nothing_is_compared() -> None:
    assert follows((1, 3, 0), alone(1, 2, 3, gap=0.009))
    assert not follows((1, 3, 0), alone(1, 2, 3, gap=0.011))


def test_logits_are_compared_up_to_the_first_other_token() -> None:
    expected = alone(1, 2, 3)
    near = Alone((1, 4, 0), (logits(1) + 0.005, logits(2) - 0.002, logits(0)))
    (row,) = compare_logits([near], [expected])
    assert row.value == pytest.approx(0.5, rel=0.01)
    far = Alone((1, 2, 3), (logits(1), logits(2), logits(3) + 0.02))
    (row,) = compare_logits([near], [expected])
    assert row.is_met
    (row,) = compare_logits([far], [expected])
    assert not row.is_met


def test_faults_are_counted() -> None:
    expected = [alone(1, 2), alone(1, 2), alone(1, 2, gap=0.001)]
    faults, equal = compare_tokens("all", [(1, 2), (1, 3), (2, 2)], expected)
    assert (faults.value, faults.is_met) == (1, False)
    assert equal.value == pytest.approx(100 / 3)


def test_products_are_exact_only_inside() -> None:
    before = torch.backends.cudnn.allow_tf32
    with ieee_products():
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == before


def test_the_demo_model_is_asked_about_squares() -> None:
    with checkpoint("demo") as folder:
        if not (folder / "tokenizer.json").is_file():
            pytest.skip("the demo model is not here")
        questions = list(demo_questions(folder, num_texts=2, num_new_tokens=2))
        model = Llava.load(Path(folder), torch.device("cpu"), torch.float32)
        (answer,) = answer_alone(model, questions[:1])
    assert len({question.policy for question in questions}) == 5
    assert len({question.image.digest for question in questions}) == 2
    assert [int(row.argmax()) for row in answer.logits] == list(answer.token_ids)
