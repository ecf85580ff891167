"""The flags of `skipserve evaluate`: what contradicts itself is refused before any work."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from skipserve_client.cli import app

pytestmark = pytest.mark.fast

URL = ("--url", "http://127.0.0.1:9")


def error_of(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["evaluate", *arguments], prog_name="skipserve")
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.strip().splitlines()
    return line.removeprefix("error: ")


@pytest.mark.parametrize("flag", ["--model", "--dtype", "--device", "--policies-file"])
def test_flags_of_a_server_of_ones_own_do_not_go_with_another(flag: str) -> None:
    told = error_of(*URL, flag, "auto")
    assert told.startswith(f"{flag}: without effect")
    assert told.endswith("named by --url")


def test_the_environment_is_named_where_it_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKIPSERVE_URL", URL[1])
    assert error_of("--dtype", "float32").endswith("named by SKIPSERVE_URL, which is set")


@pytest.mark.parametrize("flag", ["--api-key", "--model-name"])
def test_a_key_and_a_models_name_are_for_a_given_server(flag: str) -> None:
    assert error_of(flag, "k").startswith(f"{flag}: without effect")


def test_a_folder_is_for_data_that_lies_somewhere() -> None:
    told = error_of(*URL, "--data", "demo", "--data-folder", "x")
    assert told.startswith("--data-folder: without effect but with --data easy-vqa, vqav2, ")


@pytest.mark.parametrize("policies", ["", "full,", "full,,half", "3,[4]", "full,[[]]"])
def test_policies_are_names_or_json(policies: str) -> None:
    assert "--policies" in error_of(*URL, "--policies", policies)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--output", "{}"), "this is a folder"),
        (("--summary", "{}/none/summary.json"), "there is no folder"),
        (("--plot", "{}/plot.txt"), "the name must end in .svg, .png, .pdf"),
        (("--page", "{}"), "this is a folder"),
        (("--output", "{}/a", "--page", "{}/a"), "name the same file"),
        (("--output", "{}/a", "--summary", "{}/b/../a"), "name the same file"),
        (("--data", "{}/a", "--output", "{}/a"), "name the same file"),
        (("--output", "{}/skip-quality.json"), "--summary"),
    ],
)
def test_files_that_cannot_be_written_are_told_first(
    tmp_path: Path, flags: tuple[str, ...], message: str
) -> None:
    (tmp_path / "b").mkdir()
    assert message in error_of(*URL, *(flag.format(tmp_path) for flag in flags))
