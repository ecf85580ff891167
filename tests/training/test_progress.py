"""Bars, one a stage."""

import io
import itertools

import pytest
from rich.console import Console

from skipserve_training.progress import Bars, Stages, progress_bars

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


def test_a_pipe_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count(100, 4)
    monkeypatch.setattr("time.monotonic", lambda: float(next(seconds)))
    console = Console(file=io.StringIO(), width=80)
    with Stages(console) as stages:
        stages("all at once", 8, 8)
        for done in range(1, 7):
            stages("layers", done, 9)
        stages.say("reached 90%")
        stages.say("reached 80%")
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines() == [
        "layers: 1 of 9",
        "layers: 4 of 9",
        "reached 90%",
    ]


def test_a_terminal_gets_a_bar_a_stage() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Stages(console) as stages:
        stages("layers", 1, 9)
        stages("layers", 9, 9)
        stages.say("reached 90%")
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "layers" in shown
    assert "9/9" in shown
    assert "reached 90%" in shown
