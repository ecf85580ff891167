"""A device that fails a test is found; the tests run in processes of their own."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from on_gpu import bench as bench_module
from on_gpu import correctness
from on_gpu.bench import AMOUNTS, Bench
from on_gpu.correctness import run_tests


def test_what_becomes_of_tests_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path(__file__).parents[2] / "test_made_for_one_run.py"
    amount = replace(AMOUNTS["tiny"], tests=(str(file),))
    monkeypatch.setitem(bench_module.AMOUNTS, "tiny", amount)
    monkeypatch.setattr(correctness, "_MOST_PROCESSES", 0)
    try:
        file.write_text(
            "import pytest\n"
            "def test_good(device):\n    assert device.type == 'cpu'\n"
            "def test_bad(device):\n    assert device.type == 'cuda'\n"
            "def test_other():\n    pytest.skip('elsewhere')\n"
        )
        rows = {row.name: row for row in run_tests(Bench(torch.device("cpu"), "tiny"))}
    finally:
        file.unlink()
    assert {name: row.value for name, row in rows.items()} == {
        "skipped": 1,
        "passed": 1,
        "failed": 1,
    }
    assert rows["failed"].is_met is False


@pytest.mark.fast
def test_a_run_that_leaves_no_report_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with pytest.raises(AssertionError, match="status 0 and left no report"):
        list(run_tests(Bench(torch.device("cpu"), "tiny")))
