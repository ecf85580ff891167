"""`skipserve calibrate` as a user types it, from a folder and a file to a server that runs it."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from skipserve.asking.policies import PolicyRegistry
from skipserve.asking.processor import QuestionProcessor
from skipserve.model.weights import weights_digest
from skipserve_client.cli import app
from skipserve_policies.named import load_policies

WORDS = ("--samples", "4", "--confirm", "6", "--swaps", "4", "--max-tokens", "4")


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["calibrate", *words])


@pytest.fixture(scope="module")
def made(tiny_folder: Path, riddles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which a calibration was made: printed.json, found.yaml, report."""
    folder = tmp_path_factory.mktemp("made")
    done = _calibrate(tiny_folder, riddles, folder)
    (folder / "printed.json").write_text(done.stdout)
    return folder


def _calibrate(model: Path, data: Path, folder: Path) -> Result:
    done = run(
        "--model", str(model), "--data", str(data), *WORDS, "--json",
        "--budget", "0.9", "--budget", "0.6", "--budget", "0.01",
        "--output", str(folder / "found.yaml"), "--report", str(folder / "report"),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    return done


def test_what_is_printed(made: Path) -> None:
    printed = json.loads((made / "printed.json").read_text())
    assert [*printed["policies"]] == ["calibrated-90", "calibrated-60"]
    for name, budget in ("calibrated-90", 0.9), ("calibrated-60", 0.6):
        found = printed["policies"][name]
        assert {"flops_ratio", "accuracy", "full", "low", "high", "n"} <= found.keys()
        assert 0.3 < found["flops_ratio"] <= budget
        assert found["ranking"]["cost"] <= budget
        assert found["low"] <= found["accuracy"] <= found["high"]
        assert found["n"] == 6
        assert found["seconds_ratio"] > 0
    assert any("costs 1% or less" in note for note in printed["notes"])
    assert printed["num_ranking"] == 4
    assert printed["num_confirming"] == 6


def test_a_narrow_terminal_shows_names_whole(
    made: Path, tiny_folder: Path, riddles: Path, tmp_path: Path
) -> None:
    report = shutil.copytree(made / "report", tmp_path / "report")
    done = CliRunner().invoke(
        app,
        ["calibrate", "--model", str(tiny_folder), "--data", str(riddles), *WORDS,
         "--budget", "0.9", "--budget", "0.6", "--report", str(report)],
        env={"COLUMNS": "80"},
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    for name in ("calibrated-90", "calibrated-60"):
        assert f"\n {name} " in done.stdout or f"\n{name} " in done.stdout
    assert "…" not in done.stdout


def test_the_server_takes_the_file(
    made: Path, processor: QuestionProcessor, tiny_folder: Path
) -> None:
    printed = json.loads((made / "printed.json").read_text())
    sizes = processor.reporter.sizes
    registry = PolicyRegistry(load_policies(path=made / "found.yaml").by_name, sizes, "the list")
    for name, found in printed["policies"].items():
        policy = registry.find(name)
        assert policy.digest == found["digest"]
        (quality,) = policy.policy.quality
        assert quality.value == round(100 * found["accuracy"], 2)
        assert (quality.model, quality.dataset, quality.n) == ("tiny", "riddles.jsonl", 6)
        # By these two `auto` knows that it may choose the policy.
        assert quality.model_digest == weights_digest(tiny_folder)
        kept = found["retention"]
        assert quality.retention_low == (None if kept is None else round(kept["low"], 4))


def test_the_report_shows_all(made: Path) -> None:
    report = made / "report"
    page = (report / "report.html").read_text()
    record = json.loads((report / "record.json").read_text())
    assert len(record["layers"]) == 3 * 5 * 4
    assert len(record["anatomy"]["influence"]) == 4
    assert len(record["frontier"]) > 2
    assert record["frontier"][0] == {"cost": 1.0, "damage": 0.0, "rules": []}
    for name in "calibrated-90", "calibrated-60":
        assert name in page
    assert page.count("data:image/png;base64,") == 2
    # It is whole by itself, and runs nothing.
    assert "<script" not in page
    assert "http://" not in page
    assert "https://" not in page
    for picture in "frontier.png", "layers.png":
        assert (report / picture).read_bytes().startswith(b"\x89PNG")


def test_the_same_command_measures_nothing_again(
    made: Path, tiny_folder: Path, riddles: Path
) -> None:
    journal = made / "report" / "measurements.jsonl"
    before = journal.read_bytes()
    printed = json.loads((made / "printed.json").read_text())
    done = _calibrate(tiny_folder, riddles, made)
    assert json.loads(done.stdout) == printed
    assert journal.read_bytes() == before


def test_a_journal_of_other_questions_is_refused(
    made: Path, tiny_folder: Path, riddles: Path
) -> None:
    done = run(
        "--model", str(tiny_folder), "--data", str(riddles), "--samples", "3",
        "--report", str(made / "report"),
    )  # fmt: skip
    assert done.exit_code == 1
    assert "name another --report" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--budget", "1.5"), "--budget is 1.5: expected a share"),
        (("--budget", "0"), "--budget is 0: expected a share"),
        (("--cost", "money"), "expected flops or latency"),
        (("--data", "no.jsonl"), "no.jsonl"),
        (("--model", "no/such/model"), "there is no model folder"),
        (("--data", "demo", "--data-folder", "x"), "--data-folder: without effect"),
        (("--output", "no/such/folder/file.yaml"), "--output"),
    ],
)
def test_faults_are_told_in_a_line(words: tuple[str, ...], told: str) -> None:
    done = run(*words)
    assert done.exit_code == 1
    assert told in " ".join(done.stderr.split())
    assert "Traceback" not in done.output


def test_too_few_questions_are_refused(tiny_folder: Path, riddles: Path) -> None:
    done = run("--model", str(tiny_folder), "--data", str(riddles), "--samples", "10")
    assert done.exit_code == 1
    assert "has 10 questions: more than --samples 10 are needed" in " ".join(done.stderr.split())
