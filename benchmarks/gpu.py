"""Measures everything on a GPU that computes what it should, in one command; see README.md."""

import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from on_gpu.bench import Bench, Rows
from on_gpu.ceilings import measure_ceilings
from on_gpu.choices import measure_choices
from on_gpu.correctness import run_tests
from on_gpu.decode import measure_peers, measure_steps
from on_gpu.kernels import measure_kernels
from on_gpu.profile import measure_profile
from on_gpu.record import CHECKING, RECORD, Report, earlier_check, write
from on_gpu.serving import measure_first_token, measure_requests
from on_gpu.skipping import measure_mixes, measure_policies
from report import Row, show
from rich.console import Console

# The other sections' floors come from it.
_ALWAYS = "ceilings"


@dataclass(frozen=True)
class Section:
    """One part of the run.

    Attributes:
        name: as `--only` calls it.
        seconds: after which no further row is begun; what it has found by then stays.
        measure: yields its rows.
    """

    name: str
    seconds: int
    measure: Callable[[Bench], Rows]


# What most depends on comes first.
SECTIONS = (
    Section(CHECKING, 170, run_tests),
    Section(_ALWAYS, 15, measure_ceilings),
    Section("kernels", 40, measure_kernels),
    Section("decode", 25, measure_steps),
    Section("ttft", 25, measure_first_token),
    Section("vqa", 50, measure_requests),
    Section("profile", 20, measure_profile),
    Section("choices", 60, measure_choices),
    Section("policies", 120, measure_policies),
    Section("mixed", 35, measure_mixes),
    Section("peers", 40, measure_peers),
)


def main(
    only: Annotated[str, typer.Option(help="Sections, commas between, besides ceilings.")] = "",
    device: Annotated[str, typer.Option(help="cuda; cpu rehearses, its times mean nothing.")] = (
        "cuda"
    ),
    model: Annotated[str, typer.Option(help="7b, or tiny for a rehearsal.")] = "7b",
    seconds: Annotated[int, typer.Option(help="After these no section is begun.")] = 600,
    checked: Annotated[
        Path | None,
        typer.Option(help="The JSON file of a run in which this device passed the tests."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="The JSON file; without it only a whole run of 7b is written."),
    ] = None,
) -> None:
    """Run the tests of kernels and models on the device, then time them and whole requests.

    A device that fails them is not timed; figures without them are marked as unchecked. Ends with
    status 1 if a test or a whole section has failed; missed targets of speed do not count.
    """
    bench = Bench(torch.device(device), model, is_checked=checked is not None)
    if checked is not None and (fault := earlier_check(checked)):
        raise typer.BadParameter(f"{checked}: {fault}", param_hint="--checked")
    if output is None and bench.has_targets and not only:
        output = RECORD
    reports: dict[str, Report] = {}
    for name, report in run_sections(chosen_sections(only), bench, seconds):
        reports[name] = report
        show(report.rows)
        if output is not None:
            write(bench, reports, sys.argv[1:], output)
    for note in bench.notes:
        _say(note)
    if not all(is_sound(name, report) for name, report in reports.items()):
        raise typer.Exit(1)


def chosen_sections(only: str) -> list[Section]:
    """Return the sections that `--only` names, in their order; all if it is empty."""
    known = {section.name: section for section in SECTIONS}
    wanted = {_ALWAYS, *only.split(",")} if only else known.keys()
    unknown = wanted - known.keys()
    if unknown:
        raise typer.BadParameter(f"there is no section {', '.join(sorted(unknown))}")
    return [section for name, section in known.items() if name in wanted]


def is_sound(name: str, report: Report) -> bool:
    """Return whether a section came to its end, and found no error if it looks for some."""
    return report.failure is None and not (name == CHECKING and report.missed)


def run_sections(
    sections: Sequence[Section], bench: Bench, seconds: float
) -> Iterator[tuple[str, Report]]:
    """Yield what each section gave; after a failed check, no other one is run."""
    start = time.perf_counter()
    for section in sections:
        report = run_section(section, bench, seconds - (time.perf_counter() - start))
        if section.name == CHECKING:
            bench.is_checked = is_sound(CHECKING, report)
        yield section.name, report
        if section.name == CHECKING and not bench.is_checked:
            return


def run_section(section: Section, bench: Bench, seconds_left: float) -> Report:
    """Run a section until its time is over; whatever ends it, the rows found by then are kept.

    The clock is looked at between rows: what is under way on the device is never broken off.
    """
    report = Report()
    limit = min(section.seconds, seconds_left)
    if limit < 1:
        report.failure = "not begun: the time was over"
        return report
    _say(f"{section.name}: at most {limit:.0f} s")
    start, has_failed = time.perf_counter(), False
    try:
        for row in section.measure(bench):
            report.rows.append(_named(section.name, row))
            _say(f"  {row.name}: {row.shown_value}")
            if time.perf_counter() - start > limit:
                report.failure = f"stopped: it took longer than {limit:.0f} s"
                break
    except Exception as error:  # noqa: BLE001 (the other sections are to run)
        report.failure, has_failed = _describe(error), True
    if report.failure is not None:
        _say(f"{section.name} ended early: {report.failure}")
    report.seconds = time.perf_counter() - start
    # Not above: the exception holds what was under way.
    try:
        bench.clean_up(after_failure=has_failed)
    except RuntimeError as error:
        bench.notes.append(f"the device is lost: {_describe(error)}")
    return report


def _describe(error: Exception) -> str:
    """Return what went wrong, and where, in one line."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    first_line = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {first_line} ({Path(frame.filename).name}:{frame.lineno})"


def _named(section: str, row: Row) -> Row:
    return Row(f"{section}/{row.name}", row.value, row.unit, row.target, row.is_limit)


def _say(line: str) -> None:
    Console(stderr=True, highlight=False).print(line, markup=False)


if __name__ == "__main__":
    typer.run(main)
