"""The choice of weights against loops, and exact counts."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from skipserve_training.compression.masks import (
    choose,
    magnitude_scores,
    random_scores,
    wanda_scores,
)
from skipserve_training.compression.recipe import Group, Share

pytestmark = pytest.mark.fast


def _kept_by_loops(
    scores: NDArray[np.float64], groups: list[list[tuple[int, int]]], count: int
) -> NDArray[np.bool_]:
    """Take the least of each group away, one by one; of equal ones the first."""
    kept = np.ones(scores.shape, dtype=bool)
    for group in groups:
        for _ in range(count):
            left = [place for place in group if kept[place]]
            kept[min(left, key=lambda place: scores[place])] = False
    return kept


def _scores(rows: int, columns: int) -> torch.Tensor:
    """Draw few distinct scores, so that many are equal, as those of 4-bit weights are."""
    return torch.randint(0, 6, (rows, columns), generator=torch.Generator().manual_seed(1)).float()


@pytest.mark.parametrize(
    ("sparsity", "columns", "count"),
    [(0.5, 48, 24), (0.7, 10, 7), (0.29, 100, 29), (0.3, 7, 2), (0.6, 7, 4), (0.01, 7, 0)],
)
def test_a_share_of_each_row(sparsity: float, columns: int, count: int) -> None:
    scores = _scores(5, columns)
    groups = [[(row, column) for column in range(columns)] for row in range(5)]
    mask = choose(scores, Share(sparsity), by_row=True)
    np.testing.assert_array_equal(mask.numpy(), _kept_by_loops(scores.numpy(), groups, count))
    assert (~mask).sum(1).tolist() == [count] * 5


@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.7])
def test_a_share_of_the_matrix(sparsity: float) -> None:
    scores = _scores(6, 10)
    group = [(row, column) for row in range(6) for column in range(10)]
    count = round(sparsity * 60)
    mask = choose(scores, Share(sparsity), by_row=False)
    np.testing.assert_array_equal(mask.numpy(), _kept_by_loops(scores.numpy(), [group], count))
    assert (~mask).sum() == count
    assert len(set((~mask).sum(1).tolist())) > 1


@pytest.mark.parametrize("pattern", [Group(2, 4), Group(4, 8), Group(1, 4), Group(3, 4)], ids=str)
@pytest.mark.parametrize("by_row", [True, False])
def test_neighbours_in_a_row(pattern: Group, by_row: bool) -> None:
    scores = _scores(5, 24)
    groups = [
        [(row, first + place) for place in range(pattern.size)]
        for row in range(5)
        for first in range(0, 24, pattern.size)
    ]
    mask = choose(scores, pattern, by_row=by_row)
    expected = _kept_by_loops(scores.numpy(), groups, pattern.size - pattern.kept)
    np.testing.assert_array_equal(mask.numpy(), expected)
    assert (mask.view(-1, pattern.size).sum(1) == pattern.kept).all()


def test_rows_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="The pattern 4:8 does not fit rows of 12 weights"):
        choose(_scores(2, 12), Group(4, 8), by_row=True)


def test_scores_are_their_formulas() -> None:
    draw = torch.Generator().manual_seed(2)
    weight = torch.randn(3, 4, generator=draw).bfloat16()
    inputs = torch.randn(50, 4, generator=draw, dtype=torch.float64)
    scores = wanda_scores(weight, inputs.square().sum(0))
    for row in range(3):
        for column in range(4):
            norm = sum(float(value) ** 2 for value in inputs[:, column]) ** 0.5
            expected = abs(float(weight[row, column])) * norm
            assert float(scores[row, column]) == pytest.approx(expected, rel=1e-5)
    assert torch.equal(magnitude_scores(weight), weight.float().abs())


def test_lots_follow_the_seed_and_the_name_alone() -> None:
    weight, other = torch.zeros(4, 6), torch.randn(4, 6)
    lots = random_scores(weight, 1, "a")
    assert torch.equal(lots, random_scores(other, 1, "a"))
    assert not torch.equal(lots, random_scores(weight, 2, "a"))
    assert not torch.equal(lots, random_scores(weight, 1, "b"))
    assert len(lots.unique()) == 24
