"""Checks and measures everything on a GPU, in one command; see README.md for what it prints."""

import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
import typer
from on_gpu.record import CHECKING, RECORD, Report, write
from report import Row, show
from rich.console import Console

if TYPE_CHECKING:
    from on_gpu.bench import Bench

_ROOT = Path(__file__).parents[1]

# The other sections' floors come from it.
_ALWAYS = "ceilings"

# Seconds of all sections together, after which none is begun.
_TOTAL_SECONDS = 600


@dataclass(frozen=True)
class Section:
    """One part of the run.

    Attributes:
        name: as `--only` calls it.
        seconds: that it may take; what it has found by then stays.
        measure: yields its rows.
    """

    name: str
    seconds: int
    measure: "Callable[[Bench], Iterator[Row]]"


def main(
    only: Annotated[str, typer.Option(help="Sections, commas between, besides ceilings.")] = "",
    device: Annotated[str, typer.Option(help="cuda; cpu rehearses, its times mean nothing.")] = (
        "cuda"
    ),
    model: Annotated[str, typer.Option(help="7b, or tiny for a rehearsal.")] = "7b",
    output: Annotated[
        Path | None,
        typer.Option(help="The JSON file; without it only a whole run of 7b is written."),
    ] = None,
) -> None:
    """Check the kernels on the device, then time them, the model, and whole requests.

    Ends with status 1 if a check or a whole section has failed; missed targets of speed do not
    count.
    """
    if device == "cpu":
        _interpret_kernels()
    from on_gpu.bench import Bench  # noqa: PLC0415 (Triton decides at import who runs kernels)

    bench = Bench(torch.device(device), model)
    if output is None and bench.has_targets and not only:
        output = RECORD
    reports: dict[str, Report] = {}
    start = time.perf_counter()
    for section in chosen_sections(only):
        left = _TOTAL_SECONDS - (time.perf_counter() - start)
        reports[section.name] = run_section(section, bench, left)
        show(reports[section.name].rows)
        if output is not None:
            write(bench, reports, sys.argv[1:], output)
    for note in bench.notes:
        _say(note)
    if not all(is_sound(name, report) for name, report in reports.items()):
        raise typer.Exit(1)


def chosen_sections(only: str) -> list[Section]:
    """Return the sections that `--only` names, in their order; all if it is empty."""
    known = {section.name: section for section in sections()}
    wanted = {_ALWAYS, *only.split(",")} if only else known.keys()
    unknown = wanted - known.keys()
    if unknown:
        raise typer.BadParameter(f"there is no section {', '.join(sorted(unknown))}")
    return [section for name, section in known.items() if name in wanted]


def is_sound(name: str, report: Report) -> bool:
    """Return whether a section came to its end, and found no error if it looks for some."""
    return report.failure is None and not (name in CHECKING and report.missed)


def sections() -> Sequence[Section]:
    """Return all sections in their order; kernels that are not exact are not timed."""
    from on_gpu.ceilings import measure_ceilings  # noqa: PLC0415
    from on_gpu.correctness import check_all  # noqa: PLC0415
    from on_gpu.decode import measure_peers, measure_static, measure_steps  # noqa: PLC0415
    from on_gpu.demo import check_demo  # noqa: PLC0415
    from on_gpu.kernels import measure_kernels  # noqa: PLC0415
    from on_gpu.serving import measure_first_token, measure_requests  # noqa: PLC0415
    from on_gpu.skipping import measure_mixes, measure_policies  # noqa: PLC0415

    return (
        Section("correctness", 200, check_all),
        Section("ceilings", 20, measure_ceilings),
        Section("kernels", 60, measure_kernels),
        Section("decode", 150, measure_steps),
        Section("policies", 110, measure_policies),
        Section("mixed", 50, measure_mixes),
        Section("ttft", 40, measure_first_token),
        Section("vqa", 70, measure_requests),
        Section("peers", 80, measure_peers),
        Section("demo", 150, check_demo),
        Section("static", 120, measure_static),
    )


def run_section(section: Section, bench: "Bench", seconds_left: float) -> Report:
    """Run a section within its time; whatever ends it, the rows found by then are kept."""
    report = Report()
    limit = min(section.seconds, seconds_left)
    if limit < 1:
        report.failure = "not begun: the time was over"
        return report
    _say(f"{section.name}: at most {limit:.0f} s")
    start = time.perf_counter()
    try:
        with time_limit(limit):
            for row in section.measure(bench):
                report.rows.append(_named(section.name, row))
                _say(f"  {row.name}: {row.shown_value}")
    except Exception as error:  # noqa: BLE001 (the other sections are to run)
        report.failure = _describe(error)
        _say(f"{section.name} ended early: {report.failure}")
    report.seconds = time.perf_counter() - start
    # Not above: the exception holds what was under way.
    try:
        bench.clean_up(after_failure=report.failure is not None)
    except RuntimeError as error:
        bench.notes.append(f"the device is lost: {_describe(error)}")
    return report


def _describe(error: Exception) -> str:
    """Return what went wrong, and where, in one line."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    first_line = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {first_line} ({Path(frame.filename).name}:{frame.lineno})"


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in what runs here for longer, once Python gets to do anything again."""

    def give_up(number: int, frame: object) -> None:
        raise TimeoutError(f"it took longer than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, give_up)
    alarm = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *alarm)


def _named(section: str, row: Row) -> Row:
    return Row(f"{section}/{row.name}", row.value, row.unit, row.target, row.is_limit)


def _interpret_kernels() -> None:
    """Have Triton's kernels run on the CPU, as the tests do; before anything imports Triton."""
    sys.path.append(str(_ROOT / "tests" / "support"))
    import triton_interpreter  # noqa: F401, PLC0415


def _say(line: str) -> None:
    Console(stderr=True, highlight=False).print(line, markup=False)


if __name__ == "__main__":
    typer.run(main)
