"""What a process has cost so far, as Linux counts it: no clock on a wall."""

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(process_id: int) -> float:
    """Return the processor's time that a process has taken, in all its threads."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_bytes(process_id: int) -> int:
    """Return the memory that a process holds."""
    return _status(process_id, "VmRSS")


def peak_bytes(process_id: int) -> int:
    """Return the most memory that a process has held since `forget_peak`, or since it began."""
    return _status(process_id, "VmHWM")


def forget_peak(process_id: int) -> None:
    """Let the peak begin at what the process holds now."""
    Path(f"/proc/{process_id}/clear_refs").write_text("5")


def _status(process_id: int, name: str) -> int:
    lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
