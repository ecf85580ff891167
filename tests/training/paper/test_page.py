"""docs/paper.md is what the records give."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from skipserve_training.paper.cells import grid
from skipserve_training.paper.findings import Findings
from skipserve_training.paper.page import PAGE, main, render
from skipserve_training.paper.plots import PICTURES, digest
from skipserve_training.paper.records import Record, read_all

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def records() -> dict[str, Record]:
    return read_all(ROOT / "training" / "paper" / "records")


def test_records_are_of_the_grid(records: dict[str, Record]) -> None:
    """A cell that is declared anew must be measured anew."""
    declared = {cell.name: json.loads(json.dumps(asdict(cell))) for cell in grid()}
    for name, record in records.items():
        assert record.cell == declared[name]
        assert name in record.command


def test_the_page_is_what_the_records_give(records: dict[str, Record]) -> None:
    page = (DOCS / PAGE).read_text()
    assert page == render(Findings(grid(), records)), "make paper-page"


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_of_these_records(name: str, records: dict[str, Record]) -> None:
    assert digest(Findings(grid(), records)) in (DOCS / name).read_text(), "make paper-page"
    assert f"]({name})" in (DOCS / PAGE).read_text()


def test_a_page_without_records_says_so(tmp_path: Path) -> None:
    main(tmp_path / "none", tmp_path)
    page = (tmp_path / PAGE).read_text()
    assert "Not run yet." in page
    assert "**inference**, 109 cells" in page
    assert {path.name for path in tmp_path.glob("*.svg")} == {*PICTURES}
