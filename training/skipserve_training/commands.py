"""`skipserve train`: the recipes as commands."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from skipserve_training.compression.commands import compress
from skipserve_training.mapping.commands import ask, export, mapping, recover, tower
from skipserve_training.paper.commands import paper
from skipserve_training.progress import Bars, progress_bars

if TYPE_CHECKING:
    from skipserve_client.evaluate.scoring import Score
    from skipserve_training.demo.recipe import StageRecipe
    from skipserve_training.demo.training import ProgressFunction

train = typer.Typer(no_args_is_help=True, help="Train models for skipserve.")


train.command()(tower)
train.command()(mapping)
train.command()(recover)
train.command()(export)
train.command()(ask)
train.command()(compress)
train.command()(paper)


@train.command()
def demo(
    out: Annotated[Path, typer.Option(help="The run's folder; an earlier run there goes on.")],
    steps_scale: Annotated[
        float, typer.Option(min=0.0, help="Multiplies the steps of every stage to run.")
    ] = 1.0,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="A checkpoint that the first stages made: run the others."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train the demo model from nothing: pictures, tokenizer, weights, checkpoint, record."""
    # Torch takes seconds to import, which `skipserve --help` must not.
    from skipserve_training.demo.produce import produce  # noqa: PLC0415
    from skipserve_training.demo.recipe import default_recipe  # noqa: PLC0415
    from skipserve_training.demo.warm_start import read_predecessor  # noqa: PLC0415
    from skipserve_training.devices import find_device  # noqa: PLC0415

    console = Console()
    try:
        predecessor = read_predecessor(source) if source is not None else None
        done = len(predecessor.stages) if predecessor is not None else 0
        recipe = default_recipe().scaled(steps_scale, first=done)
        with progress_bars(console) as progress:
            bars = _reporter(progress)
            product = produce(recipe, out, find_device(device), bars, predecessor)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    console.print(_score_table(product.held_out))
    console.print(f"The checkpoint is in {product.checkpoint}")


def _reporter(progress: Progress) -> "ProgressFunction":
    """Return a function that keeps one bar a stage."""
    bars = Bars(progress)

    def report(stage: "StageRecipe", step: int, loss: float) -> None:
        bars(stage.name, step, stage.steps, loss)

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
