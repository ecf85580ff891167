"""`skipserve train tower` and `skipserve train mapping`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from skipserve_training.progress import Bars, progress_bars

if TYPE_CHECKING:
    from skipserve_training.mapping.held_out import KindScore

_OUT = typer.Option(help="The run's folder; an earlier run there goes on.")
_EasyVqa = typer.Option(help="The unpacked package easy-vqa, or its folder 'data'.")


def tower(
    easy_vqa: Annotated[Path, _EasyVqa],
    out: Annotated[Path, _OUT],
    steps: Annotated[int, typer.Option(min=1, help="Steps of 64 pictures.")] = 1500,
    seed: Annotated[int, typer.Option(help="Draws the weights and the pictures.")] = 20,
) -> None:
    """Train a small vision tower on easy-VQA's labels, to be frozen before a mapping module."""
    # Torch takes seconds to import, which `skipserve --help` must not.
    from skipserve_training.mapping.produce_tower import produce_tower  # noqa: PLC0415
    from skipserve_training.mapping.tower_training import TowerRecipe  # noqa: PLC0415

    console = Console()
    try:
        with progress_bars(console) as progress:
            recipe = TowerRecipe(steps=steps, seed=seed)
            score = produce_tower(recipe, easy_vqa, out, Bars(progress))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    console.print(
        f"Pictures of the test split: {score.n}; colour {score.colour:.1%}, shape {score.shape:.1%}"
    )
    console.print(f"The tower is in {out / 'checkpoint'}")


def mapping(  # noqa: PLR0913, PLR0917 (an argument a flag)
    data: Annotated[str, typer.Option(help="FORM:FOLDER; easy-vqa, vqa or captions.")],
    llm: Annotated[Path, typer.Option(help="The frozen language model: LLaMA's or OPT's type.")],
    encoder: Annotated[Path, typer.Option(help="The frozen encoder: CLIP, ViT, TimeSformer, AST.")],
    out: Annotated[Path, _OUT],
    steps: Annotated[int, typer.Option(min=1, help="Steps of the optimizer.")],
    projector: Annotated[str, typer.Option(help="mapping or mlp.")] = "mapping",
    pictures: Annotated[int, typer.Option(min=1, help="Media a step, over all processes.")] = 8,
    rate: Annotated[float, typer.Option(min=0.0, help="The peak of the rates.")] = 2e-4,
    warmup: Annotated[int, typer.Option(min=0, help="Steps up to the peak.")] = 100,
    layer: Annotated[int, typer.Option(help="Which hidden state is read; -1: the output.")] = -1,
    drop_class: Annotated[bool, typer.Option("--drop-class", help="Leave out row 0.")] = False,
    views: Annotated[int, typer.Option(min=1, help="Variants of a picture (easy-vqa).")] = 1,
    seed: Annotated[int, typer.Option(help="Draws weights, order and questions.")] = 20,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train a projector between a frozen encoder and a frozen language model.

    On several GPUs: accelerate launch $(which skipserve) train mapping ...
    """
    from skipserve_training.devices import find_device  # noqa: PLC0415
    from skipserve_training.mapping.produce import MappingJob, produce  # noqa: PLC0415
    from skipserve_training.mapping.projectors import ProjectorType  # noqa: PLC0415
    from skipserve_training.mapping.recipe import MappingRecipe  # noqa: PLC0415

    console = Console()
    try:
        recipe = MappingRecipe(
            steps, ProjectorType(projector), pictures=pictures, rate=rate, warmup=warmup, seed=seed
        )
        job = MappingJob(recipe, data, str(llm), str(encoder), layer, not drop_class, views)
        with progress_bars(console) as progress:
            product = produce(job, out, find_device(device), Bars(progress))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if not product.is_told:
        return
    if product.held_out:
        console.print(_score_table(product.held_out))
    where = product.checkpoint or out
    console.print(f"What was trained is in {where}")


def _score_table(held_out: "dict[str, KindScore]") -> Table:
    table = Table(title="easy-VQA's test split: greedy, exact answers with their end")
    for column in ("type", "accuracy", "interval", "blind", "questions"):
        table.add_column(column, justify="left" if column == "type" else "right")
    for name, kind in held_out.items():
        interval = f"{kind.low:.1%} to {kind.high:.1%}"
        table.add_row(name, f"{kind.accuracy:.1%}", interval, f"{kind.blind:.1%}", str(kind.n))
    return table
