"""Questions as a tree of rows."""

import pytest
import torch

from skipserve_policies.plan import TokenClass
from skipserve_training.mapping.packing import PICTURE, Example, pack

pytestmark = pytest.mark.fast

TEXT, VISUAL, LAST, GENERATED = TokenClass

RED = Example((PICTURE, PICTURE, 5, 6, 7), (8, 9), 0)
BLUE = Example((PICTURE, PICTURE, 5, 6, 10, 11), (12, 12, 9), 1)


def test_a_tree_shares_what_begins_alike() -> None:
    batch = pack([[RED, BLUE]])
    assert batch.ids.tolist() == [[PICTURE, PICTURE, 5, 6, 7, 8, 10, 11, 12, 12]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4, 5, 4, 5, 6, 7]]
    assert batch.rows.tolist() == [4, 5, 7, 8, 9]
    assert batch.targets.tolist() == [8, 9, 12, 12, 9]
    assert batch.examples.tolist() == [0, 0, 1, 1, 1]
    assert batch.kinds.tolist() == [0, 1]


def test_a_row_sees_its_ancestors_and_itself() -> None:
    allowed = pack([[RED, BLUE]]).allowed[0]
    assert allowed[5].nonzero().flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert allowed[7].nonzero().flatten().tolist() == [0, 1, 2, 3, 6, 7]


def test_shorter_trees_are_padded_with_rows_that_nothing_sees() -> None:
    batch = pack([[RED], [RED, BLUE]])
    assert batch.ids.shape == (2, 10)
    assert batch.rows[:2].tolist() == [4, 5]
    assert batch.rows[2:4].tolist() == [14, 15]
    padding = batch.allowed[0, :, 6:]
    assert torch.equal(padding.nonzero(), torch.tensor([[row, row - 6] for row in range(6, 10)]))


def test_rows_have_the_classes_of_a_request() -> None:
    batch = pack([[RED], [RED, BLUE]])
    red = [VISUAL, VISUAL, TEXT, TEXT, LAST, GENERATED]
    assert batch.classes[0].tolist() == [*red, *[TEXT] * 4]
    assert batch.classes[1].tolist() == [*red, TEXT, LAST, GENERATED, GENERATED]


def test_a_prompts_end_is_no_row_within_another() -> None:
    longer = Example((*RED.prompt, 15), (8, 9), 0)
    caption = Example((PICTURE, PICTURE), (5, 9), 0)
    batch = pack([[RED, longer, caption]])
    assert batch.ids.tolist() == [[PICTURE, PICTURE, 5, 6, 7, 8, 7, 15, 8, PICTURE, 5]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4, 5, 4, 5, 6, 1, 2]]
    expected = [VISUAL, VISUAL, TEXT, TEXT, LAST, GENERATED]
    expected += [TEXT, LAST, GENERATED, LAST, GENERATED]
    assert batch.classes.tolist() == [expected]


def test_one_prompt_may_have_two_answers() -> None:
    batch = pack([[RED, Example(RED.prompt, (13, 9), 0)]])
    assert batch.rows.tolist() == [4, 5, 4, 6]
