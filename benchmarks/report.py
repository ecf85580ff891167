"""What every benchmark writes: its rows, with the machine, versions, command and date."""

import json
import os
import platform
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent / "README.md"
_PACKAGES = ("skipserve", "torch", "transformers")


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes:
        name: what was measured, from the general to the particular, with slashes between.
        value: the figure, in `unit`.
        target: what it should at least be; None where there is no target.
        is_limit: whether the target is what it should at most be instead.
    """

    name: str
    value: float
    unit: str
    target: float | None = None
    is_limit: bool = False

    @property
    def is_met(self) -> bool | None:
        """Whether the target is reached; None without a target."""
        if self.target is None:
            return None
        return self.value <= self.target if self.is_limit else self.value >= self.target

    @property
    def shown_target(self) -> str:
        """The target as a reader sees it; empty without one."""
        if self.target is None:
            return ""
        bound = "at most " if self.is_limit else ""
        return f"{bound}{format_value(self.target)} {self.unit}"

    @property
    def shown_value(self) -> str:
        """The figure as a reader sees it."""
        return f"{format_value(self.value)} {self.unit}"

    def as_json(self) -> dict[str, Any]:
        """Return the form that is written."""
        kept = {name: getattr(self, name) for name in ("name", "value", "unit", "target")}
        return {**kept, "met": self.is_met}


# Turns rows into the lines of a table in Markdown.
Layout = Callable[[Sequence[Row]], list[str]]


def listing(rows: Sequence[Row]) -> list[str]:
    """Return a table with a line for each row."""
    lines = ["| measured | value | target |", "|---|---:|---:|"]
    verdicts = {None: "", True: ", met", False: ", missed"}
    for row in rows:
        verdict = verdicts[row.is_met]
        lines.append(f"| {row.name} | {row.shown_value} | {row.shown_target}{verdict} |")
    return lines


def grid(rows: Sequence[Row]) -> list[str]:
    """Return a table whose columns are the last parts of the names, without targets.

    The rows a/b/x, a/b/y and a/c/y give the columns x and y, and the lines a/b and a/c.
    """
    cells: dict[str, dict[str, str]] = {}
    columns: dict[str, None] = {}
    for row in rows:
        line, _, column = row.name.rpartition("/")
        columns[column] = None
        cells.setdefault(line, {})[column] = row.shown_value
    lines = [f"| | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    for line, found in cells.items():
        lines.append(f"| {line} | {' | '.join(found.get(column, '') for column in columns)} |")
    return lines


def machine() -> dict[str, Any]:
    """Return what decides speed here."""
    facts: dict[str, Any] = {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def write(
    name: str,
    rows: Sequence[Row],
    arguments: Sequence[str],
    file: Path,
    layout: Layout = listing,
    versions: Mapping[str, str] | None = None,
) -> None:
    """Write the rows of one run as JSON; the run for the record also goes into the README.

    Args:
        name: the benchmark's, as its file is called.
        rows: what was measured.
        arguments: of the command line, without the program.
        file: where to; its folder is made. The record is `results/NAME.json`.
        layout: of the table in the README.
        versions: of what else was timed.
    """
    result = provenance(name, arguments, {**installed(_PACKAGES), **(versions or {})})
    result["rows"] = [row.as_json() for row in rows]
    save(result, file)
    if file == RESULTS / f"{name}.json":
        put_in_readme(name, [origin(result), "", *layout(rows)])


def provenance(
    name: str, arguments: Sequence[str], versions: Mapping[str, str | None]
) -> dict[str, Any]:
    """Return where the rows of a run come from, for its file.

    Args:
        name: the benchmark's, as its file is called.
        arguments: of the command line, without the program.
        versions: of all that was timed.
    """
    return {
        "machine": machine(),
        "versions": versions,
        "command": shlex.join(["python", f"benchmarks/{name}.py", *arguments]),
        "date": datetime.now(UTC).date().isoformat(),
    }


def installed(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def save(result: Mapping[str, Any], file: Path) -> None:
    """Write a result as JSON; make the folder of the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=2) + "\n")


def put_in_readme(name: str, lines: Sequence[str]) -> None:
    """Replace what the README has between the marks of a benchmark."""
    section = "\n".join([*lines, ""])
    README.write_text(with_section(README.read_text(), name, section))


def with_section(text: str, name: str, section: str) -> str:
    """Return a text with what stands between the marks of a benchmark replaced."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    before, found, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise ValueError(f"the text has no marks for {name}")
    return f"{before}{begin}{section}{end}{after}"


def origin(result: Mapping[str, Any]) -> str:
    """Return where the rows of a result come from, as a line of the README."""
    facts = {**result["machine"], **result["versions"]}
    described = ", ".join(f"{name} {value}" for name, value in facts.items())
    return f"`{result['command']}`, {result['date']}. {described}."


def format_value(value: float) -> str:
    """Return a figure with three digits: 1.75, 33.5, 2420."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{float(f'{value:.3g}'):.0f}"


def show(rows: Sequence[Row]) -> None:
    """Print the rows as a table."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("measured")
    for title in ("value", "target", ""):
        table.add_column(title, justify="right")
    verdicts = {None: "", True: "[green]met[/]", False: "[red]missed[/]"}
    for row in rows:
        table.add_row(row.name, row.shown_value, row.shown_target, verdicts[row.is_met])
    Console().print(table)
