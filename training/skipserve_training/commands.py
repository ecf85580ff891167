"""`skipserve train`: the recipes as commands."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from skipserve_client.evaluate.scoring import Score
    from skipserve_training.demo.recipe import StageRecipe
    from skipserve_training.demo.training import ProgressFunction

train = typer.Typer(no_args_is_help=True, help="Train models for skipserve.")


@train.callback()
def _group() -> None:
    """Keep `demo` a command of its own while it is the only one."""


@train.command()
def demo(
    out: Annotated[Path, typer.Option(help="The run's folder; an earlier run there goes on.")],
    steps_scale: Annotated[
        float, typer.Option(min=0.0, help="Multiplies the steps of every stage.")
    ] = 1.0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train the demo model from nothing: pictures, tokenizer, weights, checkpoint, record."""
    # Torch takes seconds to import, which `skipserve --help` must not.
    from skipserve_training.demo.produce import produce  # noqa: PLC0415
    from skipserve_training.demo.recipe import default_recipe  # noqa: PLC0415
    from skipserve_training.devices import find_device  # noqa: PLC0415

    console = Console()
    try:
        with _progress(console) as progress:
            recipe = default_recipe().scaled(steps_scale)
            product = produce(recipe, out, find_device(device), _reporter(progress))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    console.print(_score_table(product.held_out))
    console.print(f"The checkpoint is in {product.checkpoint}")


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        console=console,
    )


def _reporter(progress: Progress) -> "ProgressFunction":
    """Return a function that keeps one bar a stage."""
    bars = {}

    def report(stage: "StageRecipe", step: int, loss: float) -> None:
        if stage.name not in bars:
            bars[stage.name] = progress.add_task(stage.name, total=stage.steps, loss=loss)
        progress.update(bars[stage.name], completed=step, loss=loss)

    return report


def _score_table(held_out: "Score") -> Table:
    table = Table(title=f"Held-out questions: {held_out.n}")
    for column in ("type", "accuracy", "majority answer", "questions"):
        table.add_column(column, justify="left" if column == "type" else "right")
    for name, kind in held_out.types.items():
        table.add_row(name, f"{kind.accuracy:.1%}", f"{kind.majority:.1%}", str(kind.n))
    interval = f"{held_out.accuracy:.1%} ({held_out.low:.1%} to {held_out.high:.1%})"
    table.add_row("all", interval, "", str(held_out.n), style="bold")
    return table
