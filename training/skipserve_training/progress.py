"""Progress bars, one a stage."""

import math
import time
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

_SECONDS_BETWEEN_LINES = 10.0


def progress_bars(console: Console, *, has_loss: bool = True) -> Progress:
    """Make bars that say what is left and, where there is one, what the loss is."""
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
    columns.append(TimeRemainingColumn())
    if has_loss:
        columns.append(TextColumn("loss {task.fields[loss]:.3f}"))
    return Progress(*columns, console=console)


class Bars:
    """Keeps one bar a stage, which appears when the stage begins."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int, loss: float) -> None:
        """Show how far a stage is."""
        if stage not in self._bars:
            self._bars[stage] = self._progress.add_task(stage, total=total, loss=loss)
        self._progress.update(self._bars[stage], completed=done, loss=loss)


class Stages:
    """Shows stages that come and go: a bar each on a terminal, now and then a line elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = progress_bars(console, has_loss=False)
        self._bars: dict[str, TaskID] = {}
        self._last_lines: dict[str, float] = {}

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._progress.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is."""
        if not self._console.is_terminal:
            # What is done at once is not worth a line.
            if done < total:
                self._say_now_and_then("stage", f"{stage}: {done} of {total}")
        elif stage in self._bars:
            self._progress.update(self._bars[stage], completed=done, total=total)
        else:
            self._bars[stage] = self._progress.add_task(stage, completed=done, total=total)

    def say(self, line: str) -> None:
        """Show what was reached."""
        if self._console.is_terminal:
            self._progress.console.print(line, markup=False, highlight=False)
        else:
            self._say_now_and_then("reached", line)

    def _say_now_and_then(self, kind: str, line: str) -> None:
        now = time.monotonic()
        if now - self._last_lines.get(kind, -math.inf) > _SECONDS_BETWEEN_LINES:
            self._last_lines[kind] = now
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
