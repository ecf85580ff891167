"""Bars, one a stage."""

import io

import pytest
from rich.console import Console

from skipserve_training.progress import Bars, progress_bars

pytestmark = pytest.mark.fast


def test_each_stage_has_a_bar() -> None:
    console = Console(file=io.StringIO())
    with progress_bars(console) as progress:
        bars = Bars(progress)
        bars("features", 1, 2, 0.0)
        bars("features", 2, 2, 0.0)
        bars("training", 1, 4, 0.5)
        assert [(task.description, task.completed, task.total) for task in progress.tasks] == [
            ("features", 2, 2),
            ("training", 1, 4),
        ]
        assert progress.tasks[1].fields["loss"] == 0.5


@pytest.mark.parametrize("has_loss", [True, False])
def test_a_loss_is_told_where_there_is_one(has_loss: bool) -> None:
    console = Console(file=io.StringIO(), width=200)
    with progress_bars(console, has_loss=has_loss) as progress:
        Bars(progress)("layers", 1, 2, 0.5)
        assert len(progress.columns) == (5 if has_loss else 4)
        progress.refresh()
