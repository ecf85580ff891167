"""The benchmark of small pictures."""

import json
from pathlib import Path

from small_pictures import main


def test_a_short_run_writes_every_row(tmp_path: Path) -> None:
    output = tmp_path / "small_pictures.json"
    main(pictures=3, output=output)
    rows = {row["name"]: row for row in json.loads(output.read_text())["rows"]}
    for kind in ("process", "thread"):
        assert rows[f"small picture/in a {kind}/p50"]["value"] > 0
    assert rows["small picture/added/p50"]["target"] == 2.0
    assert 0 < rows["process/resident of its own"]["value"] < rows["process/resident"]["value"]
