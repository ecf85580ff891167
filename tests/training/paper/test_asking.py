"""Questions about whole pictures, the same for every model; captions, and the loss of answers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_language import make_llama, make_tokenizer

from skipserve_client.evaluate.easy_vqa import EasySplit, read_easy_vqa
from skipserve_training.mapping.easy_vqa_lessons import EasyLessons
from skipserve_training.mapping.features import Features
from skipserve_training.mapping.language import FrozenLanguageModel
from skipserve_training.mapping.lessons import CAPTION, Exchange, Probe, PromptForm
from skipserve_training.mapping.projectors import PatchProjector
from skipserve_training.mapping.training import Course
from skipserve_training.paper.answering import Judge
from skipserve_training.paper.asking import (
    Asked,
    ask,
    draw_questions,
    loss,
    make_captioning,
    make_question,
    tell,
)
from skipserve_training.paper.exam import EasyExam
from skipserve_training.paper.setup import Scoring

pytestmark = pytest.mark.fast

PICTURES = 10


@pytest.fixture
def exam(easy_folder: Path) -> EasyExam:
    """Three pictures, six questions about each."""
    return EasyExam(*(read_easy_vqa(easy_folder, name) for name in ("train", "test")))


@pytest.fixture
def judge(easy_split: EasySplit) -> Judge:
    torch.manual_seed(1)
    features = Features(torch.randn(PICTURES, 2, 8).bfloat16().view(torch.int16).numpy())
    prompts = PromptForm(make_tokenizer(), 2, ("x", CAPTION))
    language = FrozenLanguageModel(make_llama())
    course = Course(language, EasyLessons(easy_split), features, prompts)
    return Judge(course, PatchProjector(8, 32), make_tokenizer(), limit=5, is_hasty=False)


def _nothing(done: int, total: int) -> None:
    assert done <= total


def test_pictures_are_whole_and_fewer_begin_more(exam: EasyExam) -> None:
    few, many = draw_questions(exam, 7), draw_questions(exam, 18)
    assert len(few) == 12
    assert few == many[:12]
    assert len(many) == 18
    assert [each.picture for each in many[:6]] == [many[0].picture] * 6
    assert all(each.probe in exam.probes(each.picture) for each in many)


def test_there_may_be_fewer_than_asked_for(exam: EasyExam) -> None:
    assert len(draw_questions(exam, 1000)) == 18


def test_the_commonest_answer_is_expected(judge: Judge) -> None:
    probe = Probe("is it?", ("no", "yes", "maybe", "yes", "no"), "x")
    asked = Asked(probe, 0)
    assert asked.expected == Exchange("is it?", "no", "x")  # of as many, the first
    question = make_question(asked, judge.course.prompts, Scoring.VOTES)
    assert judge.text(question.example.answer) == " no"
    assert question.answers == probe.answers
    assert question.is_voted
    assert not make_question(asked, judge.course.prompts, Scoring.ANSWER).is_voted


def test_a_model_gives_its_own_captions(judge: Judge) -> None:
    """Of more pictures than are shown at a time; another model gives others."""
    asked = [Asked(Probe(None, ("a", "b"), CAPTION), picture) for picture in range(PICTURES)]
    told = tell(judge, asked, _nothing)
    questions = [make_captioning(*it) for it in zip(asked, [judge] * PICTURES, told, strict=True)]
    assert all(verdict.exact for verdict in ask(judge, questions, _nothing))
    changed = [
        make_captioning(each, judge, (*said[:-1], 0))
        for each, said in zip(asked, told, strict=True)
    ]
    assert not any(verdict.exact for verdict in ask(judge, changed, _nothing))


@pytest.mark.parametrize("scoring", Scoring)
def test_the_loss_is_that_of_each_answer_alone(scoring: Scoring, judge: Judge) -> None:
    """By transformers, without trees, over all tokens of all right answers."""
    is_caption = scoring is Scoring.CAPTIONS
    text = None if is_caption else "is it?"
    kind = CAPTION if is_caption else "x"
    asked = [
        Asked(Probe(text, (f"no {picture}", "yes", "yes")[: 2 + picture % 2], kind), picture)
        for picture in range(PICTURES)
    ]
    model: Any = make_llama()
    prompts, losses = judge.course.prompts, []
    for each in asked:
        answers = each.probe.answers if is_caption else [each.expected.answer]
        for answer in answers:
            example = prompts.example(Exchange(text, answer, kind))
            losses += _losses(model, judge, each.picture, example.prompt, example.answer)
    expected = sum(losses) / len(losses)
    assert loss(judge, asked, scoring) == pytest.approx(expected, rel=1e-4)


def _losses(
    model: Any, judge: Judge, picture: int, prompt: tuple[int, ...], answer: tuple[int, ...]
) -> list[float]:
    shown = judge.projector(judge.course.features.take([picture]).float())
    text = torch.tensor(
        [[token for token in (*prompt, *answer[:-1]) if token >= 0]], dtype=torch.int64
    )
    rows = torch.cat((shown, model.get_input_embeddings()(text)), dim=1)
    with torch.inference_mode():
        logs = model(inputs_embeds=rows).logits[0].log_softmax(-1)[-len(answer) :]
    return [-float(logs[place, token]) for place, token in enumerate(answer)]
