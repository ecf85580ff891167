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
