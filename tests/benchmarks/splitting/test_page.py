"""docs/time-and-flops.md is what the record gives."""

import json
import shutil
from pathlib import Path

import pytest
from splitting.page import PAGE, RECORD, render, write_page

pytestmark = pytest.mark.fast


def test_the_page_is_what_the_record_gives(tmp_path: Path) -> None:
    write_page(RECORD, tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text() == PAGE.read_text(), "make time-page"


def test_each_policy_has_a_sentence_in_each_stage() -> None:
    record = json.loads(RECORD.read_text())
    places = {tuple(row["name"].split("/")[:3]) for row in record["rows"]}
    told = [line for line in render(record).splitlines() if line.startswith("- `")]
    assert len(told) == sum(policy != "full" for _, _, policy in places)


def test_a_gpu_is_unmeasured_until_there_is_a_record(tmp_path: Path) -> None:
    record, page = tmp_path / "time_split.json", tmp_path / "page.md"
    shutil.copy(RECORD, record)
    write_page(record, page)
    assert "Unmeasured" in page.read_text()
    shutil.copy(RECORD, tmp_path / "time_split_gpu.json")
    write_page(record, page)
    assert "Unmeasured" not in page.read_text()
    assert page.read_text().count("## On a GPU") == 1
