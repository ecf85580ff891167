"""Results on their way to a file and to the README."""

import json
from pathlib import Path

import pytest
import report
from report import Row, grid, listing, write

pytestmark = pytest.mark.fast


def test_a_target_is_a_lower_bound() -> None:
    assert Row("speed", 1.5, "x", target=1.5).is_met
    assert not Row("speed", 1.4, "x", target=1.5).is_met
    assert Row("speed", 1.4, "x").is_met is None


def test_a_limit_is_an_upper_bound() -> None:
    assert Row("time", 1.5, "ms", target=1.5, is_limit=True).is_met
    assert not Row("time", 1.6, "ms", target=1.5, is_limit=True).is_met
    assert Row("time", 1.6, "ms", is_limit=True).is_met is None


def test_a_table_says_which_way_a_target_counts() -> None:
    rows = [
        Row("speed", 1.75, "x", target=1.5),
        Row("time", 0.5, "x", target=1 / 3, is_limit=True),
        Row("rest", 2419.6, "ms"),
    ]
    assert listing(rows)[2:] == [
        "| speed | 1.75 x | 1.5 x, met |",
        "| time | 0.5 x | at most 0.333 x, missed |",
        "| rest | 2420 ms |  |",
    ]


def test_a_grid_makes_columns_of_the_last_parts_of_names() -> None:
    rows = [Row("a/b/x", 1.0, "s"), Row("a/b/y", 2.0, "s"), Row("a/c/y", 3.0, "s")]
    assert grid(rows) == [
        "| | x | y |",
        "|---|---:|---:|",
        "| a/b | 1 s | 2 s |",
        "| a/c |  | 3 s |",
    ]


def test_a_result_says_where_it_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "new" / "result.json"
    rows = [Row("a/b", 2.0, "ms", target=1.0, is_limit=True)]
    write("end_to_end", rows, ["--repeats", "1 2"], file, versions={"peer": "7"})
    result = json.loads(file.read_text())
    assert result["command"] == "python benchmarks/end_to_end.py --repeats '1 2'"
    assert {"cpu", "cores", "threads", "memory_gib"} <= set(result["machine"])
    assert {"torch", "transformers", "skipserve", "peer"} == set(result["versions"])
    row = {"name": "a/b", "value": 2.0, "unit": "ms", "target": 1.0, "met": False}
    assert result["rows"] == [row]


def test_only_the_run_for_the_record_goes_into_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = tmp_path / "README.md"
    text = "Before\n<!-- end_to_end: begin -->\nold\n<!-- end_to_end: end -->\nAfter\n"
    readme.write_text(text)
    monkeypatch.setattr(report, "README", readme)
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    rows = [Row("speed", 1.75, "x", target=1.5)]
    write("end_to_end", rows, [], tmp_path / "other.json")
    assert readme.read_text() == text
    write("end_to_end", rows, [], tmp_path / "end_to_end.json")
    written = readme.read_text()
    assert "old" not in written
    assert "| speed | 1.75 x | 1.5 x, met |" in written
    assert written.startswith("Before\n")
    assert written.endswith("\nAfter\n")


@pytest.mark.parametrize(
    "name",
    ["end_to_end", "throughput", "host_cost", "reuse", "policies", "mixed", "small_pictures"],
)
def test_the_readme_has_a_place_for_the_results(name: str) -> None:
    report.with_section(report.README.read_text(), name, "")


def test_a_missing_place_is_an_error() -> None:
    with pytest.raises(ValueError, match="no marks"):
        report.with_section("", "end_to_end", "")
