"""The score of easy-VQA's test split."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from tiny_language import make_llama, make_tokenizer
from torch import Tensor

from skipserve_client.evaluate.easy_vqa import EasySplit, EasyType, read_easy_vqa
from skipserve_training.mapping.easy_vqa_lessons import EasyLessons
from skipserve_training.mapping.features import Features
from skipserve_training.mapping.held_out import score_held_out
from skipserve_training.mapping.language import FrozenLanguageModel
from skipserve_training.mapping.lessons import PromptForm
from skipserve_training.mapping.packing import Batch
from skipserve_training.mapping.projectors import PatchProjector
from skipserve_training.mapping.training import Course

pytestmark = pytest.mark.fast


class KnowingModel(FrozenLanguageModel):
    """Answers "yes" and its end, whatever the question."""

    def __init__(self) -> None:
        super().__init__(make_llama())
        ids = [*make_tokenizer()(" yes")["input_ids"], 1]
        self._next = {0: ids[0]} | dict(pairwise(ids))

    def hidden(self, rows: Tensor, batch: Batch) -> Tensor:
        """Pass the rows on."""
        return rows

    def logits(self, hidden: Tensor) -> Tensor:
        """Follow each letter of the answer by the next, and all else by the first."""
        table = self._embedding.weight
        given = torch.cdist(hidden, table).argmin(-1).tolist()
        chosen = torch.tensor([self._next.get(token, self._next[0]) for token in given])
        return torch.nn.functional.one_hot(chosen, len(table)).float()


def test_scores_by_type_beside_the_blind_answers(easy_split: EasySplit, easy_folder: Path) -> None:
    test = read_easy_vqa(easy_folder, "test")
    features = Features(torch.zeros(3, 2, 8, dtype=torch.int16).numpy())
    prompts = PromptForm(make_tokenizer(), 2, tuple(EasyType))
    course = Course(KnowingModel(), EasyLessons(easy_split), features, prompts)
    done: list[int] = []
    scores = score_held_out(course, PatchProjector(8, 32), (easy_split, test), done.append)
    assert done == [3]
    assert scores["yes/no, present"].accuracy == 1.0
    assert scores["negated, absent"].accuracy == 1.0
    assert scores["yes/no, absent"].accuracy == 0.0
    assert scores["colour"].accuracy == 0.0
    assert scores["all"].n == 18
    assert scores["all"].accuracy == pytest.approx(6 / 18)
    assert scores["all"].low < 6 / 18 < scores["all"].high
    assert scores["colour"].blind == pytest.approx(2 / 3)


def test_pictures_that_nothing_asks_about_are_passed_over(
    easy_split: EasySplit, easy_folder: Path
) -> None:
    """What is asked meets the features of its own picture."""
    test = read_easy_vqa(easy_folder, "test")
    asked = replace(test, questions=tuple(it for it in test.questions if it.image == 2))
    seen: list[Sequence[int]] = []

    class Watched(Features):
        def take(self, indexes: Sequence[int]) -> Tensor:
            seen.append(indexes)
            return super().take(indexes)

    features = Watched(torch.zeros(3, 2, 8, dtype=torch.int16).numpy())
    prompts = PromptForm(make_tokenizer(), 2, tuple(EasyType))
    course = Course(KnowingModel(), EasyLessons(easy_split), features, prompts)
    done: list[int] = []
    scores = score_held_out(course, PatchProjector(8, 32), (easy_split, asked), done.append)
    assert [list(indexes) for indexes in seen] == [[2]]
    assert done == [1]
    assert scores["all"].n == 6
