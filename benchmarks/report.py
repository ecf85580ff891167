"""What every benchmark writes: its rows, with the machine, versions, command and date."""

import json
import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
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
    """

    name: str
    value: float
    unit: str
    target: float | None = None

    @property
    def is_met(self) -> bool | None:
        """Whether the target is reached; None without a target."""
        return None if self.target is None else self.value >= self.target

    def as_json(self) -> dict[str, Any]:
        """Return the form that is written."""
        return {**asdict(self), "met": self.is_met}


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


def write(name: str, rows: Sequence[Row], arguments: Sequence[str], file: Path) -> None:
    """Write the rows of one run as JSON; the run for the record also goes into the README.

    Args:
        name: the benchmark's, as its file is called.
        rows: what was measured.
        arguments: of the command line, without the program.
        file: where to; its folder is made. The record is `results/NAME.json`.
    """
    result = {
        "machine": machine(),
        "versions": {package: version(package) for package in _PACKAGES},
        "command": shlex.join(["python", f"benchmarks/{name}.py", *arguments]),
        "date": datetime.now(UTC).date().isoformat(),
        "rows": [row.as_json() for row in rows],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=2) + "\n")
    if file == RESULTS / f"{name}.json":
        README.write_text(with_section(README.read_text(), name, markdown(result)))


def with_section(text: str, name: str, section: str) -> str:
    """Return a text with what stands between the marks of a benchmark replaced."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    before, found, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise ValueError(f"the text has no marks for {name}")
    return f"{before}{begin}{section}{end}{after}"


def markdown(result: Mapping[str, Any]) -> str:
    """Return a written result as a table, with where it comes from."""
    origin = {**result["machine"], **result["versions"]}
    lines = [
        f"`{result['command']}`, {result['date']}. "
        + ", ".join(f"{name} {value}" for name, value in origin.items())
        + ".",
        "",
        "| measured | value | target |",
        "|---|---:|---:|",
    ]
    for row in result["rows"]:
        verdict = "met" if row["met"] else "missed"
        target = "" if row["target"] is None else f"{row['target']:g} {row['unit']}, {verdict}"
        lines.append(f"| {row['name']} | {format_value(row['value'])} {row['unit']} | {target} |")
    return "\n".join(lines) + "\n"


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
        target = "" if row.target is None else f"{row.target:g} {row.unit}"
        value = f"{format_value(row.value)} {row.unit}"
        table.add_row(row.name, value, target, verdicts[row.is_met])
    Console().print(table)
