"""`skipserve reproduce` as a user types it: a folder of data sets to a folder of tables."""

import json
from pathlib import Path

import pytest
from PIL import Image
from tiny_llava import make_checkpoint
from typer.testing import CliRunner, Result

from skipserve_client.cli import app

NUM_QUESTIONS = 4


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["reproduce", *words])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder with POPE, as it is published, and a file of questions."""
    pope = tmp_path / "data" / "pope"
    (pope / "val2014").mkdir(parents=True)
    for category in "random", "popular", "adversarial":
        lines = []
        for number in range(NUM_QUESTIONS):
            picture = f"COCO_val2014_{number:012d}.jpg"
            Image.new("RGB", (8, 8), (60 * number, 0, 0)).save(pope / "val2014" / picture)
            text = f"Is there a {category} dog in the image?"
            label = "yes" if number % 2 else "no"
            lines.append({"question_id": number, "image": picture, "text": text, "label": label})
        file = pope / f"coco_pope_{category}.json"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    Image.new("RGB", (8, 8)).save(tmp_path / "data" / "black.png")
    line = {"image": "black.png", "question": "What is it?", "answer": "night"}
    (tmp_path / "data" / "own.jsonl").write_text(3 * (json.dumps(line) + "\n"))
    return tmp_path / "data"


def test_all_tables_are_made_and_made_again_at_once(data: Path, tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "tiny", num_layers=4, seed=5)
    words = (
        "--model", str(model), "--data", str(data), "--report", str(tmp_path / "out"),
        "--policies", "full,skip-block-every-2-from-0-all", "--count", "6", "--samples", "2",
        "--max-tokens", "3", "--concurrency", "4",
    )  # fmt: skip
    done = run(*words)
    assert done.exit_code == 0, done.output
    report = tmp_path / "out"
    tables = (report / "README.md").read_text()
    assert tables.startswith("# tiny\n")
    for name in "pope", "own":
        assert f"## {name}" in tables
        summary = json.loads((report / name / "summary.json").read_text())
        assert [*summary["policies"]] == ["full", "skip-block-every-2-from-0-all"]
        assert (report / name / "frontier.svg").is_file()
        assert (report / name / "changed.html").is_file()
    assert tables.count("| full |") == 2
    assert "[On pope](calibration/report.html)" in tables
    assert (report / "calibration" / "report.html").is_file()
    kept = {
        path: path.read_bytes()
        for path in (*report.rglob("answers.jsonl"), *report.rglob("measurements.jsonl"))
    }
    assert len(kept) == 3
    assert run(*words).exit_code == 0
    assert {path: path.read_bytes() for path in kept} == kept
    assert (report / "README.md").read_text() == tables


def test_a_folder_without_data_is_told(tmp_path: Path) -> None:
    done = run("--model", "demo", "--data", str(tmp_path))
    assert done.exit_code == 1
    told = " ".join(done.stderr.split())
    assert "holds no data set: expected folders called vqav2, ok-vqa" in told
