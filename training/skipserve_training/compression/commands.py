"""`skipserve train compress`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from skipserve_training.progress import Bars, progress_bars

if TYPE_CHECKING:
    from skipserve_training.compression.recipe import Pattern

_MODEL = "A model that the server loads: a name such as smolvqa, or a folder."


def compress(  # noqa: PLR0913, PLR0917 (an argument a flag)
    model: Annotated[str, typer.Option(help=_MODEL)],
    out: Annotated[Path, typer.Option(help="The run's folder; an earlier run there goes on.")],
    method: Annotated[
        str, typer.Option(help="wanda, magnitude, random, alpha-subnet or mask.")
    ] = "wanda",
    sparsity: Annotated[float | None, typer.Option(help="The share that goes: 0.5.")] = None,
    pattern: Annotated[str | None, typer.Option(help="N:M: N of M neighbours stay.")] = None,
    part: Annotated[str, typer.Option(help="all, ffn or attention.")] = "all",
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="FORM:FOLDER to calibrate on, as of `train mapping --data`; alpha-subnet takes "
            "several, as easy-vqa and easy-vqa-captions."
        ),
    ] = None,
    media: Annotated[int, typer.Option(min=1, help="Media of each task.")] = 128,
    mask_file: Annotated[
        Path | None, typer.Option(help="Safetensors of booleans, true where a weight stays.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws media and questions, and lots.")] = 20,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Set weights of a model's language model to zero, and write it as a model to serve."""
    # Torch takes seconds to import, which `skipserve --help` must not.
    from skipserve.model_folder import StartError, model_folder  # noqa: PLC0415
    from skipserve_training.compression.produce import (  # noqa: PLC0415
        CompressionJob,
        produce_compressed,
    )
    from skipserve_training.compression.recipe import (  # noqa: PLC0415
        CompressionRecipe,
        Method,
        Part,
    )
    from skipserve_training.devices import find_device  # noqa: PLC0415
    from skipserve_training.mapping.served import CHECKPOINT_FOLDER  # noqa: PLC0415

    console = Console()
    try:
        recipe = CompressionRecipe(Method(method), _pattern(sparsity, pattern), Part(part), seed)
        tasks, masks = tuple(task or ()), None if mask_file is None else str(mask_file)
        job = CompressionJob(recipe, str(model_folder(model)), tasks, media, masks)
        with progress_bars(console, has_loss=False) as progress:
            bars = Bars(progress)
            report = produce_compressed(
                job, out, find_device(device), lambda name, done, all_: bars(name, done, all_, 0.0)
            )
    except (ValueError, StartError) as error:
        raise typer.BadParameter(str(error)) from error
    console.print(
        f"Zeroed {report.removed:,} of {report.considered:,} weights ({report.sparsity:.2%}); by "
        f"matrix {report.least:.2%} to {report.most:.2%}"
    )
    console.print(f"The checkpoint is in {out / CHECKPOINT_FOLDER}")


def _pattern(sparsity: float | None, pattern: str | None) -> "Pattern | None":
    from skipserve_training.compression.recipe import Share, read_pattern  # noqa: PLC0415

    if sparsity is not None and pattern is not None:
        raise ValueError("sparsity and pattern: give one of the two.")
    if sparsity is not None:
        return Share(sparsity)
    return None if pattern is None else read_pattern(pattern)
