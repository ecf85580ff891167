"""The second question on a picture, in a short run."""

import json
from pathlib import Path

import pytest
from reuse import main

pytestmark = pytest.mark.fast


def test_a_short_run_writes_every_row(deep_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "reuse.json"
    main(models=str(deep_model), dtype="float32", repeats=2, output=output)
    rows = json.loads(output.read_text())["rows"]
    first, second, ratio = (row["value"] for row in rows)
    assert ratio == pytest.approx(second / first)
    assert [row["target"] for row in rows] == [None, None, pytest.approx(1 / 3)]
    assert rows[2]["met"] == (ratio <= 1 / 3)
