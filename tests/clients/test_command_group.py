"""Commands of other packages: found by entry point, loaded late, missing ones explained."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from skipserve_client import command_group
from skipserve_client.command_group import CommandGroup

pytestmark = pytest.mark.fast

PLUGIN = '''
import typer

def shout(word: str) -> None:
    """Say it loudly."""
    typer.echo(word.upper())

def late() -> None:
    """Needs something only when it runs."""
    import package_that_is_missing

tools = typer.Typer(help="Several tools.")

def locked(status: int) -> None:
    """Meets a server that refuses."""
    from skipserve_client.errors import ApiError

    raise ApiError(status, "no")

def interrupted() -> None:
    """Is told to end."""
    raise KeyboardInterrupt

def full(filename: str) -> None:
    """Meets a disk without room."""
    raise OSError(28, "No space left", filename or None)

@tools.command()
def hammer() -> None:
    typer.echo("bang")
'''
BROKEN = "import package_that_is_missing\n"


@pytest.fixture(autouse=True)
def _plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugin_of_a_test.py").write_text(PLUGIN)
    (tmp_path / "broken_plugin_of_a_test.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    values = {
        "shout": "plugin_of_a_test:shout",
        "late": "plugin_of_a_test:late",
        "locked": "plugin_of_a_test:locked",
        "full": "plugin_of_a_test:full",
        "interrupted": "plugin_of_a_test:interrupted",
        "tools": "plugin_of_a_test:tools",
        "train": "broken_plugin_of_a_test:train",
    }
    found = [EntryPoint(name, value, "skipserve.commands") for name, value in values.items()]
    monkeypatch.setattr(command_group, "entry_points", lambda group: found)
    monkeypatch.delitem(sys.modules, "plugin_of_a_test", raising=False)


def run(*arguments: str) -> Result:
    app = typer.Typer(cls=CommandGroup, rich_markup_mode=None)

    @app.command()
    def own() -> None:
        typer.echo("own")

    app.callback()(lambda: None)
    return CliRunner().invoke(app, list(arguments), prog_name="skipserve")


def test_a_function_is_a_command() -> None:
    assert run("shout", "hello").stdout == "HELLO\n"


def test_a_typer_app_is_a_group_of_commands() -> None:
    assert run("tools", "hammer").stdout == "bang\n"


def test_all_commands_are_listed() -> None:
    listed = run("--help").stdout
    for text in ("own", "Say it loudly.", "Several tools.", "Not installed", "skipserve[train]"):
        assert text in listed


def test_other_commands_are_not_loaded() -> None:
    assert run("own").stdout == "own\n"
    assert "plugin_of_a_test" not in sys.modules


@pytest.mark.parametrize(("command", "extra"), [("train", "train"), ("late", "server")])
def test_a_missing_package_says_what_to_install(command: str, extra: str) -> None:
    result = run(command, *(["--flag", "x"] if command == "train" else []))
    assert result.exit_code == 1
    assert "package_that_is_missing" in result.stderr
    assert f"pip install 'skipserve[{extra}]'" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_server_that_wants_a_key_is_told_with_how_to_give_it() -> None:
    told = run("locked", "401").stderr
    assert told == ("error: no (HTTP 401); give the key with --api-key, or in SKIPSERVE_API_KEY\n")
    assert run("locked", "403").stderr == "error: no (HTTP 403)\n"


@pytest.mark.parametrize(
    ("typed", "meant"), [("shuot", "shout"), ("onw", "own"), ("tool", "tools")]
)
def test_a_misspelt_command_is_told_with_the_nearest(typed: str, meant: str) -> None:
    result = run(typed)
    assert result.exit_code == 2
    assert f"No such command {typed!r}; is it {meant}?" in result.stderr


def test_a_command_like_none_is_only_unknown() -> None:
    assert "No such command 'xyzzy'." in run("xyzzy").stderr


def test_what_cannot_be_written_is_one_line() -> None:
    assert run("full", "a.json").stderr == "error: a.json: No space left\n"
    assert run("full", "").stderr == "error: the output: No space left\n"


def test_ctrl_c_exits_as_shells_expect() -> None:
    result = run("interrupted")
    assert (result.exit_code, result.stderr) == (130, "error: stopped\n")
