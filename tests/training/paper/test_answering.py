"""Answers followed greedily, and judged."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from tiny_language import make_llama, make_tokenizer
from torch import Tensor

from skipserve_client.evaluate.easy_vqa import EasySplit, EasyType
from skipserve_training.mapping.easy_vqa_lessons import EasyLessons
from skipserve_training.mapping.features import Features
from skipserve_training.mapping.language import FrozenLanguageModel
from skipserve_training.mapping.lessons import Exchange, PromptForm
from skipserve_training.mapping.packing import Batch
from skipserve_training.mapping.projectors import PatchProjector
from skipserve_training.mapping.speaking import Turn
from skipserve_training.mapping.training import Course
from skipserve_training.paper.answering import Judge, Question, Verdict, can_be_accepted

pytestmark = pytest.mark.fast

END = 1


class SayingModel(FrozenLanguageModel):
    """Says the same words after each prompt, letter by letter; all letters must differ."""

    def __init__(self, words: str, *, ends: bool = True) -> None:
        super().__init__(make_llama())
        ids: list[int] = make_tokenizer()(words)["input_ids"]
        self._first = ids[0]
        self._next = dict(pairwise([*ids, END if ends else ids[-1]]))
        self.num_forwards = 0

    def hidden(self, rows: Tensor, batch: Batch) -> Tensor:
        """Pass the rows on."""
        self.num_forwards += 1
        return rows

    def logits(self, hidden: Tensor) -> Tensor:
        """Follow each letter by the next one, and all else by the first."""
        given = torch.cdist(hidden, self._embedding.weight).argmin(-1).tolist()
        chosen = torch.tensor([self._next.get(token, self._first) for token in given])
        return torch.nn.functional.one_hot(chosen, len(self._embedding.weight)).float()


def make_judge(language: FrozenLanguageModel, split: EasySplit) -> Judge:
    torch.manual_seed(1)
    features = Features(torch.randn(2, 2, 8).bfloat16().view(torch.int16).numpy())
    prompts = PromptForm(make_tokenizer(), 2, tuple(EasyType))
    course = Course(language, EasyLessons(split), features, prompts)
    return Judge(course, PatchProjector(8, 32), make_tokenizer())


def ask(judge: Judge, answer: str, picture: int = 0, text: str = "is it?") -> Question:
    exchange = Exchange(text, answer, EasyType.COLOUR)
    return Question(picture, judge.course.prompts.example(exchange), (answer,))


@pytest.mark.parametrize(
    ("says", "exact", "accepted", "begun"),
    [
        (" no", True, True, True),
        (" no.", False, True, True),
        (" No", False, True, False),
        (" not", False, False, True),
        (" n", False, False, False),
        (" yes", False, False, False),
    ],
)
def test_an_answer_is_right_in_three_ways(
    says: str, exact: bool, accepted: bool, begun: bool, easy_split: EasySplit
) -> None:
    judge = make_judge(SayingModel(says), easy_split)
    assert judge.judge([ask(judge, "no")]) == [Verdict(exact, accepted, begun)]


def test_an_answer_that_never_ends_is_not_accepted(easy_split: EasySplit) -> None:
    judge = make_judge(SayingModel(" no.", ends=False), easy_split)
    assert judge.judge([ask(judge, "no")]) == [Verdict(exact=False, accepted=False, begun=True)]


def test_what_cannot_be_accepted_is_not_followed(easy_split: EasySplit) -> None:
    language = SayingModel(" yes")
    judge = make_judge(language, easy_split)
    judge.judge([ask(judge, "no"), ask(judge, "blue")])
    assert language.num_forwards == 1


def test_questions_about_several_pictures_keep_their_places(easy_split: EasySplit) -> None:
    judge = make_judge(SayingModel(" no."), easy_split)
    answers = ["yes", "no", "blue", "no"]
    texts = ["is it?", "is it not?", "what?", "why?"]
    asked = [
        ask(judge, answer, picture, text)
        for answer, picture, text in zip(answers, (0, 0, 1, 1), texts, strict=True)
    ]
    assert [verdict.accepted for verdict in judge.judge(asked)] == [False, True, False, True]


def test_answers_are_those_of_transformers(easy_split: EasySplit) -> None:
    """Each question alone, token by token, without a tree: what was said is what is judged."""
    model: Any = make_llama()
    judge = make_judge(FrozenLanguageModel(make_llama()), easy_split)
    questions = [ask(judge, "no", picture, text) for picture in (0, 1) for text in ("a?", "b??")]
    said = [_greedy(model, judge, question) for question in questions]
    assert len(set(said)) > 1
    right = [_answered(question, tokens) for question, tokens in zip(questions, said, strict=True)]
    assert all(verdict.begun for verdict in judge.judge(right))
    wrong = [
        _answered(question, (*tokens[:-1], (tokens[-1] + 1) % 100))
        for question, tokens in zip(questions, said, strict=True)
    ]
    assert not any(verdict.begun for verdict in judge.judge(wrong))


def _greedy(model: Any, judge: Judge, question: Question) -> tuple[int, ...]:
    text = [token for token in question.example.prompt if token >= 0]
    said: list[int] = []
    with torch.inference_mode():
        features = judge.course.features.take([question.picture])
        picture = judge.projector(features.float())
        for _ in range(4):
            rows = model.get_input_embeddings()(torch.tensor([[*text, *said]]))
            logits = model(inputs_embeds=torch.cat((picture, rows), dim=1)).logits
            said.append(int(logits[0, -1].argmax()))
    return tuple(said)


def _answered(question: Question, tokens: tuple[int, ...]) -> Question:
    return replace(question, example=replace(question.example, answer=(*tokens, END)))


@pytest.mark.parametrize(
    ("said", "can"),
    [
        ("", True), (" ", True), (" n", True), (" NO", True), (" no\n", True), (" no.", True),
        (" no .", True), (" no..", False), (" not", False), (" yes", False), (" no, it", False),
    ],
)  # fmt: skip
def test_what_can_still_be_accepted(said: str, can: bool) -> None:
    assert can_be_accepted(said, "no") is can


VOTES = ["no"] * 6 + ["not"] * 2 + ["yes", "No."]


@pytest.mark.parametrize(
    ("says", "accepted", "exact"),
    [(" no", 1.0, True), (" yes", 0.3, False), (" not", 0.6, False), (" NO", 1.0, False)],
)
def test_annotators_vote(says: str, accepted: float, exact: bool, easy_split: EasySplit) -> None:
    """Whatever is said is followed to its end: any answer may have votes."""
    judge = make_judge(SayingModel(says), easy_split)
    question = replace(ask(judge, "no"), answers=VOTES, is_voted=True)
    (verdict,) = judge.judge([question])
    assert verdict.accepted == pytest.approx(accepted)
    assert verdict.exact is exact


def test_an_answer_that_never_ends_has_no_votes(easy_split: EasySplit) -> None:
    judge = make_judge(SayingModel(" no", ends=False), easy_split)
    question = replace(ask(judge, "no"), answers=VOTES, is_voted=True)
    assert judge.judge([question]) == [Verdict(exact=False, accepted=0, begun=True)]


def test_any_of_several_answers_is_accepted(easy_split: EasySplit) -> None:
    judge = make_judge(SayingModel(" red."), easy_split)
    question = replace(ask(judge, "blue"), answers=("blue", "Red"))
    assert judge.judge([question]) == [Verdict(exact=False, accepted=True, begun=False)]


@pytest.mark.parametrize("num_beams", [1, 3])
def test_what_is_judged_is_what_is_said(num_beams: int, easy_split: EasySplit) -> None:
    """With beams, and without haste, whole answers are searched for first."""
    judge = replace(
        make_judge(FrozenLanguageModel(make_llama()), easy_split), num_beams=num_beams,
        limit=4, is_hasty=False,
    )  # fmt: skip
    asked = [ask(judge, "no", picture, text) for picture in (0, 1) for text in ("a?", "b??")]
    turns = [Turn(it.picture, it.example.prompt) for it in asked]
    said = judge.speaker.say(turns, 4, num_beams)
    right = [
        replace(question, example=replace(question.example, answer=tokens))
        for question, tokens in zip(asked, said, strict=True)
    ]
    verdicts = judge.judge(right)
    assert all(verdict.exact and verdict.accepted for verdict in verdicts)
    assert not any(verdict.exact for verdict in judge.judge(asked))
