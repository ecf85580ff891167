"""Scores of many rows, whose logits are never there together."""

import pytest
import torch
from torch import Tensor

from skipserve.model.logprobs import RowLogprobs
from skipserve.model.scoring import PIECE_ROWS, Scoring

pytestmark = pytest.mark.fast

VOCAB = 50


@pytest.mark.parametrize("count", [1, PIECE_ROWS, PIECE_ROWS + 1, 5 * PIECE_ROWS - 3])
def test_few_rows_at_a_time(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    logits = torch.randn(count + 9, VOCAB, generator=generator)
    rows = torch.randperm(count + 9, generator=generator)[:count]
    tokens = torch.randint(0, VOCAB, (count,), generator=generator)
    sizes = []

    def logits_of(some: Tensor) -> Tensor:
        sizes.append(len(some))
        return logits[some]

    scoring = Scoring(rows, tokens, num_top=3)
    scoring.fill(logits_of)
    own, ranks, top_ids, top = scoring.result()
    assert max(sizes) <= PIECE_ROWS
    assert sum(sizes) == count
    whole = RowLogprobs.of(logits[rows], tokens, 3)
    assert torch.equal(own, whole.own)
    assert torch.equal(ranks, whole.ranks(tokens))
    assert torch.equal(top_ids, whole.top_ids)
    assert torch.equal(top, whole.top)
    assert top.shape == (count, 3)
