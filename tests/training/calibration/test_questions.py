"""Questions that rank and questions that confirm."""

from pathlib import Path

import pytest

from skipserve_client.command_group import CommandError
from skipserve_training.calibration.questions import draw

pytestmark = pytest.mark.fast


def test_no_question_does_both(riddles: Path) -> None:
    drawn = draw(str(riddles), None, 4, 3)
    assert [it.index for it in drawn.ranking] == [0, 1, 2, 3]
    assert [it.index for it in drawn.confirming] == [4, 5, 6]
    assert drawn.name == "riddles.jsonl"


def test_as_many_confirm_as_there_are(riddles: Path) -> None:
    drawn = draw(str(riddles), None, 8, 400)
    assert [it.index for it in drawn.confirming] == [8, 9]
    assert (
        draw("demo", None, 3, 2).confirming
        == draw("demo", None, 4, 1).ranking[3:] + draw("demo", None, 4, 1).confirming
    )


def test_what_ranks_cannot_confirm(riddles: Path) -> None:
    with pytest.raises(CommandError, match="has 10 questions: more than --samples 10"):
        draw(str(riddles), None, 10, 5)
    with pytest.raises(CommandError, match="without effect but with --data easy-vqa"):
        draw(str(riddles), riddles.parent, 2, 2)
