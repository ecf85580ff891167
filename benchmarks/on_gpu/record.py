"""What a run leaves: a JSON file, and tables in the README. Measures nothing."""

import hashlib
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from report import (
    RESULTS,
    Row,
    grid,
    installed,
    listing,
    machine,
    origin,
    provenance,
    put_in_readme,
    save,
)

if TYPE_CHECKING:
    from on_gpu.bench import Bench

# The run for the record.
RECORD = RESULTS / "gpu.json"

UNCHECKED = "unchecked: the device has not passed the tests of these sources"

_ROOT = Path(__file__).parents[2]

# The section that looks for errors: its targets are no wishes.
CHECKING = "correctness"

# Sections that measure the same of many things.
_GRIDS = ("kernels", "policies")

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
        "sources": sources_digest(),
        "checked": bench.is_checked,
        "sections": {
            name: {"seconds": round(report.seconds, 1), "failure": report.failure}
            for name, report in reports.items()
        },
        "notes": bench.notes,
        "rows": [row.as_json() for report in reports.values() for row in report.rows],
    }
    save(result, file)
    unchecked = [] if bench.is_checked else [UNCHECKED]
    lines = [origin(result), *_notes([*unchecked, *bench.notes]), *_tables(reports)]
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
    """Yield a table a section."""
    for name, report in reports.items():
        ending = "" if report.failure is None else f"; ended early: {report.failure}"
        yield from ("", f"### {name}: {report.seconds:.0f} s{ending}", "")
        if name in _GRIDS:
            yield from grid(report.rows)
        else:
            yield from listing(report.rows)


def sources_digest() -> str:
    """Return a SHA-256 of all sources that a forward runs through, wherever they lie."""
    digest = hashlib.sha256()
    for folder in ("kernels", "policies", "server"):
        for file in sorted((_ROOT / folder).rglob("*.py")):
            digest.update(str(file.relative_to(_ROOT)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def earlier_check(file: Path) -> str | None:
    """Return why the run that left a file does not vouch for these sources on this device."""
    try:
        found = json.loads(file.read_text())
        is_checked, sources = found["checked"], found["sources"]
        gpu = found["machine"].get("gpu")
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"no file of such a run: {error!r}"
    if not is_checked:
        return "the device was not checked, or has failed"
    if sources != sources_digest():
        return "other sources were checked"
    here = machine().get("gpu")
    return None if gpu == here else f"{gpu} was checked, this is {here}"


def _commit() -> str | None:
    """Return what is checked out; None outside of a checkout."""
    folder = str(Path(__file__).parent)
    command = ["git", "-C", folder, "describe", "--always", "--dirty"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return run.stdout.strip()
