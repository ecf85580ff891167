"""`skipserve train paper`."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skipserve_training.paper import estimate
from skipserve_training.paper.cells import Cell, chosen, grid

if TYPE_CHECKING:
    from skipserve_training.paper.running import Bench, StageFunction

_EVERY = 30.0  # seconds between lines about a cell that is under way


def paper(
    only: Annotated[
        str, typer.Option(metavar="PATTERN", help="Cells whose names fit, as 'training-*'.")
    ] = "*",
    has_extra: Annotated[
        bool, typer.Option("--all", help="Long cells too, which six hours do not hold.")
    ] = False,
    lists: Annotated[
        bool, typer.Option("--list", help="Say what would be run; run nothing.")
    ] = False,
    records: Annotated[Path, typer.Option(help="The folder of records.")] = Path(
        "training/paper/records"
    ),
    runs: Annotated[Path, typer.Option(help="Where trainings go on from.")] = Path("runs/paper"),
    data: Annotated[
        Path | None, typer.Option(help="easy-VQA's folder; without: what `fetch` brought.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Measure what the paper claims, cell by cell; what has a record is not measured again."""
    try:
        cells = chosen(grid(), only, has_extra=has_extra)
        missing = [cell for cell in cells if not (records / f"{cell.name}.json").exists()]
        if lists:
            _list(cells, missing)
            return
        typer.echo(
            f"{len(missing)} of {len(cells)} cells have no record yet: "
            f"about {estimate.in_words(missing)} of one core"
        )
        if missing:
            run_all(missing, records, _bench(runs, data, device))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _list(cells: Sequence[Cell], missing: Sequence[Cell]) -> None:
    for cell in cells:
        state = estimate.in_words([cell]) if cell in missing else "done"
        typer.echo(f"{state:>8}  {cell.name}")
    typer.echo(f"{estimate.in_words(missing):>8}  of one core, for {len(missing)} cells")


def _bench(runs: Path, data: Path | None, device: str) -> "Callable[[StageFunction], Bench]":
    # Torch takes seconds to import, which `skipserve --help` must not.
    from skipserve.model_folder import StartError, model_folder  # noqa: PLC0415
    from skipserve_client.evaluate.easy_vqa_samples import cache_folder  # noqa: PLC0415
    from skipserve_training.devices import find_device  # noqa: PLC0415
    from skipserve_training.paper.running import Bench, Place  # noqa: PLC0415

    def folder(name: str) -> Path:
        try:
            return model_folder(name)
        except StartError as error:
            raise ValueError(str(error)) from error

    place = Place(folder, data or cache_folder(), runs, find_device(device))
    return lambda report: Bench(place, report)


def run_all(
    cells: Sequence[Cell],
    records: Path,
    make_bench: "Callable[[StageFunction], Bench]",
    say: Callable[[str], None] = typer.echo,
) -> None:
    """Measure cells and write a record of each; says what is done, and what is left."""
    from skipserve_training.paper.records import write  # noqa: PLC0415

    told = _Told(say)
    bench = make_bench(told.stage)
    began, estimated = time.monotonic(), 0.0
    for number, cell in enumerate(cells, start=1):
        told.cell = f"{number}/{len(cells)} {cell.name}"
        say(told.cell)
        record = bench.measure(cell)
        write(record, records)
        estimated += estimate.seconds(cell)
        left = estimate.in_words(cells[number:], (time.monotonic() - began) / estimated)
        say(f"{told.cell}: {record.said}; {left} left")


class _Told:
    """Says now and then how far a cell is."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.cell = ""
        self._say = say
        self._last = time.monotonic()

    def stage(self, stage: str, done: int, total: int) -> None:
        if time.monotonic() - self._last > _EVERY:
            self._last = time.monotonic()
            self._say(f"{self.cell}: {stage} {done}/{total}")
