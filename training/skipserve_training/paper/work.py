"""A grid of cells: listed, or measured one by one with what is left."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from skipserve_training.paper import estimate
from skipserve_training.paper.cells import Cell, chosen, grid, left_out
from skipserve_training.paper.setup import SHIPPED, Setup

if TYPE_CHECKING:
    from skipserve_training.paper.own import Own
    from skipserve_training.paper.running import Bench, StageFunction

RECORDS, RUNS = Path("training/paper/records"), Path("runs/paper")

_EVERY = 30.0  # seconds between lines about a cell that is under way
_NAMED = 4  # cells that are left out are named, of more their number


@dataclass(frozen=True)
class Work:
    """A grid, and how it is measured.

    Attributes:
        records: the folder of its records.
        make_bench: makes what measures cells.
        seconds: what a cell is estimated to take.
        of: what it takes them of.
        notes: what else is to be said before.
    """

    setup: Setup
    records: Path
    make_bench: "Callable[[StageFunction], Bench]"
    seconds: Callable[[Cell], float]
    of: str
    notes: Callable[[Sequence[Cell]], Sequence[str]] = lambda cells: ()

    def in_words(self, cells: Sequence[Cell], pace: float = 1.0) -> str:
        """Say how long some cells take, if all take `pace` times the estimate."""
        return estimate.in_words(pace * sum(map(self.seconds, cells)))


def run(work: Work, only: str, *, has_extra: bool, lists: bool) -> None:
    """Measure the cells that fit a pattern and have no record yet, or list them.

    Raises:
        ValueError: None fits, or the folder of records is another setup's.
    """
    from skipserve_training.paper.records import check_setup  # noqa: PLC0415

    cells = chosen(grid(work.setup), only, has_extra=has_extra)
    check_setup(work.records, work.setup)
    missing = [cell for cell in cells if not (work.records / f"{cell.name}.json").exists()]
    if lists:
        _list(work, cells, missing)
        return
    typer.echo(
        f"{len(missing)} of {len(cells)} cells have no record yet: "
        f"about {work.in_words(missing)} of {work.of}"
    )
    for note in work.notes(missing):
        typer.echo(note)
    if missing:
        run_all(missing, work)


def _list(work: Work, cells: Sequence[Cell], missing: Sequence[Cell]) -> None:
    for cell in cells:
        state = work.in_words([cell]) if cell in missing else "done"
        typer.echo(f"{state:>8}  {cell.name}")
    for why, names in left_out(work.setup).items():
        said = ", ".join(names) if len(names) <= _NAMED else f"{len(names)} cells, as {names[0]}"
        typer.echo(f"{'left out':>8}  {said}: {why}")
    typer.echo(f"{work.in_words(missing):>8}  of {work.of}, for {len(missing)} cells")
    for note in work.notes(missing):
        typer.echo(note)


def shipped_work(data: str | None, beams: int, device: str, records: Path, runs: Path) -> Work:
    """Return the grid of the models that ship."""
    setup = replace(SHIPPED, num_beams=beams)
    make_bench = partial(_shipped_bench, setup, data, device, runs)
    return Work(setup, records, make_bench, estimate.seconds, "one core")


def _shipped_bench(
    setup: Setup, data: str | None, device: str, runs: Path, report: "StageFunction"
) -> "Bench":
    # Torch takes seconds to import, which `skipserve --help` must not.
    from skipserve.model_folder import StartError, model_folder  # noqa: PLC0415
    from skipserve_client.evaluate.easy_vqa_samples import cache_folder  # noqa: PLC0415
    from skipserve_training.devices import find_device  # noqa: PLC0415
    from skipserve_training.mapping.sources import (  # noqa: PLC0415
        EASY_CAPTIONS,
        EASY_VQA,
        split_source,
    )
    from skipserve_training.paper.exam import divide  # noqa: PLC0415
    from skipserve_training.paper.running import Bench, Place  # noqa: PLC0415

    def folder(name: str) -> Path:
        try:
            return model_folder(name)
        except StartError as error:
            raise ValueError(str(error)) from error

    source = data or f"{EASY_VQA}:{cache_folder()}"
    form, easy, part = split_source(source)
    if form != EASY_VQA or part is not None:
        raise ValueError(f"data is {data!r}: the models that ship need {EASY_VQA}:FOLDER.")
    trained_on, asked = divide(source, None)
    tasks = (trained_on, f"{EASY_CAPTIONS}:{easy}")
    device_ = find_device(device)
    return Bench(Place(folder, trained_on, asked, tasks, runs, device_, setup), report)


def own_work(own: "Own", device: str, records: Path | None, runs: Path | None) -> Work:
    """Return the grid of a model of one's own."""
    from skipserve_training.paper.hours import ASSUMED  # noqa: PLC0415

    folder = runs or Path(f"{RUNS}-{own.name}-{own.setup.data.partition(':')[0]}")

    def notes(cells: Sequence[Cell]) -> list[str]:
        size = own.hours.disk_bytes(cells) / 1e9
        return [ASSUMED, f"{folder} takes about {size:,.0f} GB: checkpoints and features."]

    return Work(
        own.setup,
        records or folder / "records",
        partial(_own_bench, own, device, folder),
        own.hours.seconds,
        "one H100",
        notes,
    )


def _own_bench(own: "Own", device: str, runs: Path, report: "StageFunction") -> "Bench":
    from skipserve_training.devices import find_device  # noqa: PLC0415
    from skipserve_training.paper.own_model import own_place  # noqa: PLC0415
    from skipserve_training.paper.running import Bench  # noqa: PLC0415

    return Bench(own_place(own, runs, find_device(device), report), report)


def run_all(cells: Sequence[Cell], work: Work, say: Callable[[str], None] = typer.echo) -> None:
    """Measure cells and write a record of each; says what is done, and what is left."""
    from skipserve_training.paper.records import write  # noqa: PLC0415

    told = _Told(say)
    bench = work.make_bench(told.stage)
    began, estimated = time.monotonic(), 0.0
    for number, cell in enumerate(cells, start=1):
        told.cell = f"{number}/{len(cells)} {cell.name}"
        say(told.cell)
        record = bench.measure(cell)
        write(record, work.records)
        estimated += work.seconds(cell)
        left = work.in_words(cells[number:], (time.monotonic() - began) / estimated)
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
