"""What a run leaves: a JSON file, and tables in the README. Measures nothing."""

import json
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from report import README, RESULTS, Row, grid, listing, machine, with_section

if TYPE_CHECKING:
    from on_gpu.bench import Bench

# The run for the record.
RECORD = RESULTS / "gpu.json"

# Sections that look for errors: their targets are no wishes.
CHECKING = ("correctness", "demo")

# Sections that measure the same of many things.
_GRIDS = ("kernels", "policies")

# Of an error.
SHARE_UNIT = "of the allowed error"

_PACKAGES = ("skipserve", "torch", "triton", "transformers", "numpy", "vllm")


@dataclass
class Report:
    """What a section gave.

    Attributes:
        rows: named after the section.
        seconds: that it took.
        failure: why it ended early; None if it did not.
    """

    rows: list[Row] = field(default_factory=list)
    seconds: float = 0.0
    failure: str | None = None

    @property
    def missed(self) -> list[Row]:
        """The rows that miss their target."""
        return [row for row in self.rows if row.is_met is False]


def write(
    bench: "Bench", reports: Mapping[str, Report], arguments: Sequence[str], file: Path
) -> None:
    """Write all that was found so far, as JSON and as tables.

    The tables of the run for the record go into the README, those of others beside the file.
    """
    result: dict[str, Any] = {
        "machine": machine(),
        "device": str(bench.device),
        "model": bench.model,
        "versions": _versions(),
        "commit": _commit(),
        "command": shlex.join(["python", "benchmarks/gpu.py", *arguments]),
        "date": datetime.now(UTC).date().isoformat(),
        "sections": {
            name: {"seconds": round(report.seconds, 1), "failure": report.failure}
            for name, report in reports.items()
        },
        "notes": bench.notes,
        "rows": [row.as_json() for report in reports.values() for row in report.rows],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=2) + "\n")
    text = "\n".join([*_origin(result), *_tables(reports), ""])
    if file == RECORD:
        README.write_text(with_section(README.read_text(), "gpu", text))
    else:
        file.with_suffix(".md").write_text(text)


def _origin(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield where the figures come from, and what is not among them."""
    facts = {**result["machine"], **result["versions"], "commit": result["commit"]}
    described = ", ".join(f"{name} {value}" for name, value in facts.items())
    yield f"`{result['command']}`, {result['date']}. {described}."
    if result["notes"]:
        yield ""
    for note in result["notes"]:
        yield f"- {note}"


def _tables(reports: Mapping[str, Report]) -> Iterator[str]:
    """Yield a table a section; of checks, the number and those that have failed."""
    for name, report in reports.items():
        ending = "" if report.failure is None else f"; ended early: {report.failure}"
        yield from ("", f"### {name}: {report.seconds:.0f} s{ending}", "")
        if name in CHECKING:
            judged = [row for row in report.rows if row.is_met is not None]
            yield f"{len(judged) - len(report.missed)} of {len(judged)} checks passed."
            if report.missed:
                yield from ("", *listing(report.missed))
        elif name in _GRIDS:
            yield from grid([row for row in report.rows if row.unit != SHARE_UNIT])
        else:
            yield from listing(report.rows)


def _versions() -> dict[str, str]:
    """Return those of the packages that are installed."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    """Return what is checked out; None outside of a checkout."""
    folder = str(Path(__file__).parent)
    command = ["git", "-C", folder, "describe", "--always", "--dirty"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return run.stdout.strip()
