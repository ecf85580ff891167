"""What the page on the command line says is so: commands, flags, links, who prints JSON."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from skipserve_client.cli import app

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/command-line.md"
TEXT = PAGE.read_text()


def command_of(name: str) -> Any:
    group: Any = typer.main.get_command(app)
    found = group.commands.get(name) or group.get_command(None, name)
    assert found is not None, name
    return found


def flags_of(name: str) -> set[str]:
    """Return the flags of a command; of a group, those that all of its commands have."""
    command = command_of(name)
    found = [
        {flag for it in each.params for flag in (*it.opts, *it.secondary_opts)}
        for each in getattr(command, "commands", {"": command}).values()
    ]
    return set.intersection(*found)


def rows() -> list[tuple[list[str], bool]]:
    """Return the commands of each row of the first table, and whether they print JSON."""
    found = re.findall(r"^\| (`.*?`) \| .* \| (yes|no) \|$", TEXT, re.MULTILINE)
    return [(re.findall(r"`(.*?)`", names), told == "yes") for names, told in found]


def test_every_command_has_a_row() -> None:
    group: Any = typer.main.get_command(app)
    named = [name for names, _ in rows() for name in names]
    assert sorted(named) == sorted({*group.commands, *group.list_commands(None)})


@pytest.mark.parametrize(("names", "prints_json"), rows(), ids=str)
def test_it_says_who_prints_json(names: list[str], prints_json: bool) -> None:
    for name in names:
        assert ("--json" in flags_of(name)) is prints_json, name


def test_examples_are_commands_with_their_flags() -> None:
    lines = re.findall(r"^ {4}skipserve (.*)$", TEXT, re.MULTILINE)
    assert len(lines) >= 9
    for line in lines:
        name, *words = shlex.split(line, comments=True)
        assert {word for word in words if word.startswith("--")} <= flags_of(name), line


def test_flags_in_the_text_exist() -> None:
    prose = re.sub(r"^ {4}.*\n", "", TEXT, flags=re.MULTILINE)
    known = {flag for names, _ in rows() for name in names for flag in flags_of(name)}
    for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", prose):
        assert flag in known | {"--help"}, flag


def test_links_lead_somewhere() -> None:
    titles = re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    anchors = {title.lower().replace(" ", "-") for title in titles}
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        path, _, anchor = target.partition("#")
        assert (PAGE.parent / path).exists()
        assert not anchor or anchor in anchors
