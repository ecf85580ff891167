"""Scoring the records of an earlier run anew: nothing is asked, and nothing else is needed."""

import json
from pathlib import Path
from typing import Any

import pytest
from scripted_server import ScriptedServer
from typer.testing import CliRunner, Result

from skipserve_client.cli import app

pytestmark = pytest.mark.fast


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["evaluate", *arguments], prog_name="skipserve")


@pytest.fixture
def output(knowing: ScriptedServer, riddles: Path, tmp_path: Path) -> Path:
    file = tmp_path / "answers.jsonl"
    flags = ("--policies", "full,half", "--output", str(file))
    assert run("--url", knowing.url, "--data", str(riddles), *flags).exit_code == 0
    return file


def found(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    value: dict[str, Any] = json.loads(result.stdout)
    return value


def test_the_same_is_found_without_server_and_data(
    knowing: ScriptedServer, riddles: Path, output: Path
) -> None:
    flags = ("--policies", "full,half", "--output", str(output), "--json")
    asked = found(run("--url", knowing.url, "--data", str(riddles), *flags))
    riddles.unlink()
    knowing.received.clear()
    assert found(run("--records", str(output), "--json")) == asked
    assert knowing.received == []


def test_flips_beside_full_are_in_the_json(output: Path) -> None:
    half = found(run("--records", str(output), "--json"))["policies"]["half"]
    beside = half["beside_full"]
    assert (beside["right_to_wrong"], beside["wrong_to_right"], beside["changed"]) == (5, 0, 5)
    assert beside["retention"]["value"] == half["retention"] == 0.5
    assert beside["agreement"]["low"] < 0.5 < beside["agreement"]["high"]


def test_the_scores_are_made_anew(output: Path) -> None:
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    changed = [line | {"answer": "no", "score": 1.0, "correct": True} for line in lines]
    output.write_text("".join(json.dumps(line) + "\n" for line in changed))
    policies = found(run("--records", str(output), "--json"))["policies"]
    assert policies["full"]["accuracy"] == 0.5


def test_policies_must_have_been_asked_the_same(output: Path) -> None:
    lines = output.read_text().splitlines(keepends=True)
    output.write_text("".join(lines[:-1]))
    result = run("--records", str(output))
    assert result.exit_code == 1
    assert "half was not asked the questions that full was" in result.stderr


@pytest.mark.parametrize("content", [None, ""])
def test_a_file_without_answers_is_told(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "none.jsonl"
    if content is not None:
        file.write_text(content)
    result = run("--records", str(file))
    assert result.exit_code == 1
    assert str(file) in result.stderr


@pytest.mark.parametrize("flags", [("--data", "demo"), ("--count", "3"), ("--output", "x.jsonl")])
def test_flags_of_asking_do_not_go_with_it(output: Path, flags: tuple[str, str]) -> None:
    result = run("--records", str(output), *flags)
    assert f"{flags[0]}: without effect with --records" in result.stderr
