"""The benchmark's command runs and writes what it should; its figures are not judged here."""

import json
import subprocess
import sys
from pathlib import Path

from tiny_llava import make_checkpoint

ROOT = Path(__file__).parents[2]


def test_a_short_run_writes_every_row(tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "tiny")
    output = tmp_path / "results" / "end_to_end.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "end_to_end.py")]
    flags = ["--models", str(model), "--dtypes", "float32", "--repeats", "1", "--new-tokens", "3"]
    run = subprocess.run(
        [*command, *flags, "--output", str(output)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(output.read_text())
    assert set(result) == {"machine", "versions", "command", "date", "rows"}
    assert all(set(row) == {"name", "value", "unit", "target", "met"} for row in result["rows"])
    values = {row["name"]: row["value"] for row in result["rows"]}
    for measure in ("first token", "per token", "total", "CPU"):
        for who in ("skipserve", "transformers", "times as fast"):
            assert values[f"tiny/float32/{measure}/{who}"] > 0
    assert values["tiny/float32/equal tokens"] == 100
    assert "tiny/float32/total/skipserve" in run.stdout
