"""Results on their way to a file and to the README."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.fast


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import the module as the benchmarks do: from their own folder."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("report")


def test_a_target_is_a_lower_bound(report: Any) -> None:
    assert report.Row("speed", 1.5, "x", target=1.5).is_met
    assert not report.Row("speed", 1.4, "x", target=1.5).is_met
    assert report.Row("speed", 1.4, "x").is_met is None


def test_a_result_says_where_it_comes_from(report: Any, tmp_path: Path) -> None:
    file = tmp_path / "new" / "result.json"
    report.write("end_to_end", [report.Row("a/b", 2.0, "ms")], ["--repeats", "1 2"], file)
    result = json.loads(file.read_text())
    assert result["command"] == "python benchmarks/end_to_end.py --repeats '1 2'"
    assert {"cpu", "cores", "threads", "memory_gib"} <= set(result["machine"])
    assert {"torch", "transformers", "skipserve"} == set(result["versions"])
    row = {"name": "a/b", "value": 2.0, "unit": "ms", "target": None, "met": None}
    assert result["rows"] == [row]


def test_only_the_run_for_the_record_goes_into_the_readme(
    report: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = tmp_path / "README.md"
    text = "Before\n<!-- end_to_end: begin -->\nold\n<!-- end_to_end: end -->\nAfter\n"
    readme.write_text(text)
    monkeypatch.setattr(report, "README", readme)
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    rows = [report.Row("speed", 1.75, "x", target=1.5), report.Row("time", 2419.6, "ms")]
    report.write("end_to_end", rows, [], tmp_path / "other.json")
    assert readme.read_text() == text
    report.write("end_to_end", rows, [], tmp_path / "end_to_end.json")
    written = readme.read_text()
    assert "old" not in written
    assert "| speed | 1.75 x | 1.5 x, met |" in written
    assert "| time | 2420 ms |  |" in written
    assert written.startswith("Before\n")
    assert written.endswith("\nAfter\n")


def test_the_readme_has_a_place_for_the_results(report: Any) -> None:
    report.with_section(report.README.read_text(), "end_to_end", "")
    with pytest.raises(ValueError, match="no marks"):
        report.with_section("", "end_to_end", "")
