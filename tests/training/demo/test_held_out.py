"""Greedy answers of the model under training."""

import pytest
import torch

from skipserve_client.evaluate.dataset import demo_examples
from skipserve_client.evaluate.scenes import Split
from skipserve_training.demo.held_out import answer_held_out
from skipserve_training.demo.model import DemoModel
from skipserve_training.demo.stages import Lesson
from skipserve_training.demo.tokenizer import END_ID

pytestmark = pytest.mark.fast


def test_every_question_gets_an_answer(model: DemoModel, lesson: Lesson) -> None:
    answers = list(answer_held_out(model, lesson.packer.tokenizer, 14))
    examples = list(demo_examples(Split.HELD_OUT, 14))
    assert [(a.type, a.expected) for a in answers] == [(e.type, e.answer) for e in examples]


def test_an_answer_stops_at_its_end(model: DemoModel, lesson: Lesson) -> None:
    _always_say(model, END_ID)
    answers = list(answer_held_out(model, lesson.packer.tokenizer, 7))
    assert {answer.given for answer in answers} == {""}


def test_an_answer_that_never_ends_is_cut(model: DemoModel, lesson: Lesson) -> None:
    tokenizer = lesson.packer.tokenizer
    _always_say(model, tokenizer.encode(" red", add_special_tokens=False).ids[0])
    (answer, *_) = answer_held_out(model, tokenizer, 7)
    assert answer.given.split() == ["red"] * 32


def _always_say(model: DemoModel, token: int) -> None:
    """Make one token win whatever the hidden state: all states get a common direction."""
    decoder = model.decoder
    with torch.no_grad():
        decoder.embedding.zero_()
        decoder.embedding[:, 0] = 1.0
        decoder.output.zero_()
        decoder.down.zero_()
        decoder.head.zero_()
        decoder.head[token, 0] = 1.0
        model.vision.projector2.zero_()
        model.vision.projector2_bias.zero_()
        model.vision.projector2_bias[0] = 1.0
