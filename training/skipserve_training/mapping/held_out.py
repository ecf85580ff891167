"""Asks every question of easy-VQA's test split, greedily, and scores the answers by type."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from scipy.stats import binomtest
from torch import nn

from skipserve_client.evaluate.easy_vqa import EasyQuestion, EasySplit, EasyType, blind_answers
from skipserve_training.mapping.lessons import Exchange
from skipserve_training.mapping.packing import pack
from skipserve_training.mapping.training import Course, answer

ALL = "all"

_PICTURES = 8


@dataclass(frozen=True)
class KindScore:
    """The share of exact answers with their ends, its 95 % interval (Wilson), and the blind's."""

    accuracy: float
    low: float
    high: float
    blind: float
    n: int


def score_held_out(
    course: Course,
    projector: nn.Module,
    splits: tuple[EasySplit, EasySplit],
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, KindScore]:
    """Score every type, and "all".

    Args:
        course: the frozen parts; its features are those of the pictures of the test split, in
            the order of their numbers.
        projector: what was trained.
        splits: the one that was trained on, which tells the blind answers, and the test split.
        progress: called with the number of pictures that are done, of those that are asked about.
    """
    trained_on, test = splits
    blind = blind_answers(trained_on)
    by_image: dict[int, list[EasyQuestion]] = {image: [] for image in sorted(test.images)}
    for question in test.questions:
        by_image[question.image].append(question)
    asked = [(index, some) for index, some in enumerate(by_image.values()) if some]
    right: dict[str, list[tuple[bool, bool]]] = {}
    for first in range(0, len(asked), _PICTURES):
        indexes, some = zip(*asked[first : first + _PICTURES], strict=True)
        is_right = _answer(course, projector, indexes, some)
        for question, exact in zip(chain.from_iterable(some), is_right, strict=True):
            by_blind = blind.get(question.text) == question.answer
            for kind in (str(question.type), ALL):
                right.setdefault(kind, []).append((exact, by_blind))
        progress(first + len(some))
    return {kind: _score(right[kind]) for kind in (*EasyType, ALL) if kind in right}


@torch.inference_mode()
def _answer(
    course: Course,
    projector: nn.Module,
    indexes: Sequence[int],
    asked: Sequence[Sequence[EasyQuestion]],
) -> list[bool]:
    """Answer the questions about some pictures, each as if it were alone."""
    examples = [
        [
            course.prompts.example(Exchange(question.text, question.answer, question.type))
            for question in questions
        ]
        for questions in asked
    ]
    features = course.features.take(indexes)
    device = next(projector.parameters()).device
    outcome = answer(course.language, projector, features.to(device), pack(examples).to(device))
    return [bool(right) for right in outcome.is_right]


def _score(right: list[tuple[bool, bool]]) -> KindScore:
    count = sum(is_right for is_right, _ in right)
    interval = binomtest(count, len(right)).proportion_ci(0.95, method="wilson")
    return KindScore(
        accuracy=count / len(right),
        low=float(interval.low),
        high=float(interval.high),
        blind=sum(by_blind for _, by_blind in right) / len(right),
        n=len(right),
    )
