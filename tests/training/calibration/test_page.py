"""docs/calibration.md says what the records say."""

import json
from pathlib import Path

import pytest

from skipserve_training.calibration.page import main, render

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parents[3]
RECORDS = ROOT / "training" / "calibration" / "records"


def test_the_page_is_that_of_the_records() -> None:
    assert (ROOT / "docs" / "calibration.md").read_text() == render(RECORDS)


def test_each_record_has_its_pictures() -> None:
    names = {path.stem for path in RECORDS.glob("*.json")}
    assert names
    for name in names:
        for picture in "frontier", "layers":
            assert (ROOT / "docs" / f"calibration-{name}-{picture}.png").is_file()


def test_a_record_changes_the_page(tmp_path: Path) -> None:
    name = "smolvqa"
    record = json.loads((RECORDS / f"{name}.json").read_text())
    record["full"]["accuracy"] = 0.1234
    (tmp_path / f"{name}.json").write_text(json.dumps(record))
    main([str(tmp_path), str(tmp_path / "page.md")])
    assert "12.3 %" in (tmp_path / "page.md").read_text()
