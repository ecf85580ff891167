"""What a run leaves: a JSON file, and tables in the README. Measures nothing."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from report import RESULTS, Row, grid, installed, listing, origin, provenance, put_in_readme, save

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
    result = {
        **provenance("gpu", arguments, {**installed(_PACKAGES), "commit": _commit()}),
        "device": str(bench.device),
        "model": bench.model,
        "sections": {
            name: {"seconds": round(report.seconds, 1), "failure": report.failure}
            for name, report in reports.items()
        },
        "notes": bench.notes,
        "rows": [row.as_json() for report in reports.values() for row in report.rows],
    }
    save(result, file)
    lines = [origin(result), *_notes(bench.notes), *_tables(reports)]
    if file == RECORD:
        put_in_readme("gpu", lines)
    else:
        file.with_suffix(".md").write_text("\n".join([*lines, ""]))


def _notes(notes: Sequence[str]) -> Iterator[str]:
    """Yield what is not among the figures."""
    if notes:
        yield ""
    for note in notes:
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


def _commit() -> str | None:
    """Return what is checked out; None outside of a checkout."""
    folder = str(Path(__file__).parent)
    command = ["git", "-C", folder, "describe", "--always", "--dirty"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return run.stdout.strip()
