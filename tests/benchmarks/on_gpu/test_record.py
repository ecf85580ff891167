"""What a run leaves in its file and in the README."""

import json
from pathlib import Path

import pytest
import report
import torch
from on_gpu import record
from on_gpu.bench import Bench
from on_gpu.record import UNCHECKED, Report, write
from report import Row

pytestmark = pytest.mark.fast

REPORTS = {
    "correctness": Report([Row("correctness/failed", 2, "tests", target=0, is_limit=True)], 2.0),
    "kernels": Report(
        [
            Row("kernels/down/1 rows/ours", 30.0, "us"),
            Row("kernels/down/1 rows/library", 33.0, "us"),
        ],
        3.0,
    ),
    "vqa": Report([Row("vqa/rate", 63.0, "requests/s", target=62.0)], 1.0, "TimeoutError: late"),
}


@pytest.fixture
def bench() -> Bench:
    return Bench(torch.device("cpu"), "tiny", notes=["vLLM: it is not here"])


def test_the_record_goes_into_the_readme(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme, file = tmp_path / "README.md", tmp_path / "gpu.json"
    readme.write_text("a\n<!-- gpu: begin -->\nold\n<!-- gpu: end -->\nb\n")
    monkeypatch.setattr(report, "README", readme)
    monkeypatch.setattr(record, "RECORD", file)
    write(bench, REPORTS, [], tmp_path / "other.json")
    assert "old" in readme.read_text()
    assert "vqa" in (tmp_path / "other.md").read_text()
    write(bench, REPORTS, [], file)
    written = readme.read_text()
    assert "old" not in written
    assert "| correctness/failed | 2 tests | at most 0 tests, missed |" in written
    assert f"- {UNCHECKED}" in written
    assert "| kernels/down/1 rows | 30 us | 33 us |" in written
    assert "### vqa: 1 s; ended early: TimeoutError: late" in written
    assert "| vqa/rate | 63 requests/s | 62 requests/s, met |" in written
    assert "- vLLM: it is not here" in written


def test_the_file_says_where_its_figures_come_from(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "new" / "gpu.json"
    write(bench, REPORTS, ["--only", "vqa"], file)
    result = json.loads(file.read_text())
    assert result["command"] == "python benchmarks/gpu.py --only vqa"
    assert (result["device"], result["model"]) == ("cpu", "tiny")
    assert {"torch", "triton", "transformers"} <= set(result["versions"])
    assert result["notes"] == ["vLLM: it is not here"]
    assert result["sections"]["vqa"] == {"seconds": 1.0, "failure": "TimeoutError: late"}
    assert len(result["rows"]) == 4


def test_the_readme_has_a_place_for_the_results() -> None:
    report.with_section(report.README.read_text(), "gpu", "")
