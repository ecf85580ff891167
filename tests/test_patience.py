"""Limits that follow the machine, and children that do not outlive their test."""

import os
import subprocess
import sys
from pathlib import Path

import patience
import pytest
from children import run, running
from patience import Patience

SUPPORT = Path(__file__).parent / "support"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which the test sets."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


@pytest.mark.fast
def test_time_passes_as_the_machine_works(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = Patience(30)
    monkeypatch.setattr(patience, "slowness", lambda: 5.0)
    for clock[0] in (10, 20, 149):
        assert not limit.is_over
    clock[0] = 150
    assert limit.is_over
    quick = Patience(30)
    monkeypatch.setattr(patience, "slowness", lambda: 1.0)
    clock[0] += 29.9
    assert not quick.is_over
    clock[0] += 0.1
    assert quick.is_over


@pytest.mark.fast
def test_no_time_is_measured_where_none_has_passed(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = Patience(30)
    monkeypatch.setattr(patience, "slowness", lambda: 1 / 0)
    clock[0] = 9.9
    assert not limit.is_over
    clock[0] = 10
    with pytest.raises(ZeroDivisionError):
        assert limit.is_over


@pytest.mark.fast
def test_a_machine_is_never_too_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= patience.slowness() <= 50
    monkeypatch.setattr("time.perf_counter", iter([0.0, 1e-9, 5.0, 5.16, 0.0, 1e9]).__next__)
    assert patience.slowness() == 1
    assert patience.slowness() == pytest.approx(5)
    assert patience.slowness() == 50


@pytest.mark.fast
def test_a_child_takes_its_own_children_along(tmp_path: Path) -> None:
    file = tmp_path / "ids"
    script = f"sleep 1000 & echo $! > {file}; echo ready; wait"
    with running(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        child.stdin.write(b"never read")
    assert child.returncode == -9
    assert child.stdin.closed
    assert child.stdout.closed
    grandchild = int(file.read_text())
    assert is_gone(grandchild)


def is_gone(process_id: int) -> bool:
    """Return once a process that was killed is gone; whoever adopts it may take a moment."""
    while True:
        try:
            state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        os.sched_yield()


@pytest.mark.fast
def test_what_a_child_says() -> None:
    done = run(["sh", "-c", "echo words; echo faults >&2; exit 3"])
    assert (done.returncode, done.stdout, done.stderr) == (3, "words\n", "faults\n")


# The first may take its time. The second hangs, and so do what it starts and its cleaning up; what
# it leaves behind must not fail the third.
SESSION = """
import gc, subprocess, time
import patience, pytest
from children import running

@pytest.mark.timeout(0.1)
def test_slow(monkeypatch):
    monkeypatch.setattr(patience, "slowness", lambda: 1e9)
    time.sleep(0.5)

@pytest.mark.timeout(0.3)
def test_hangs(monkeypatch):
    monkeypatch.setattr(patience, "slowness", lambda: 1.0)
    with running(["sh", "-c", "sleep 1000 & sleep 1000"], stdout=subprocess.PIPE) as child:
        try:
            child.communicate()
        finally:
            time.sleep(1000)

def test_next():
    gc.collect()
"""


def test_a_test_that_hangs_fails_alone(tmp_path: Path) -> None:
    (tmp_path / "test_session.py").write_text(SESSION)
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\ntimeout = 300\n")
    done = run(
        [sys.executable, "-m", "pytest", "-p", "patience", "-p", "no:cacheprovider", "-v"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(SUPPORT), "PYTEST_ADDOPTS": ""},
    )
    assert done.returncode == 1, done.stdout + done.stderr
    for outcome in ("test_slow PASSED", "test_hangs FAILED", "test_next PASSED"):
        assert outcome in done.stdout
    assert "1 failed, 2 passed" in done.stdout
    assert "Timeout (>0.3s)" in done.stdout
