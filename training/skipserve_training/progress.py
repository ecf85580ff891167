"""Progress bars, one a stage."""

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)


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
