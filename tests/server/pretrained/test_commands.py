"""`skipserve fetch`, as far as names and errors go."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from skipserve.pretrained import commands
from skipserve.pretrained.commands import fetch
from skipserve.pretrained.places import PRETRAINED

pytestmark = pytest.mark.fast


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command()(fetch)
    return app


def test_an_unknown_name_is_refused(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["llava"])
    assert result.exit_code == 2
    told = " ".join(result.output.replace("│", " ").split())
    assert f"expected one of {', '.join(PRETRAINED)}, easy-vqa" in told


def test_begun_names_are_completed() -> None:
    assert commands._complete("smolvqa-w") == ["smolvqa-wanda-50"]
    assert commands._complete("") == [*PRETRAINED, "easy-vqa"]


def test_what_is_missing_is_told_in_one_line(app: typer.Typer, tmp_path: Path) -> None:
    arguments = ["easy-vqa", "--from-wheels", str(tmp_path), "--to", str(tmp_path / "to")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {tmp_path} has no easy_vqa-1.0-py3-none-any.whl")
    assert len(result.stderr.splitlines()) == 1
