"""`skipserve compare`: which policies, against which, and what it exits with."""

import json

import pytest
from scripted_server import ScriptedServer
from typer.testing import CliRunner, Result

from skipserve_client.cli import app

pytestmark = pytest.mark.fast

INLINE = '{"rules": [{"action": "skip_ffn", "layers": [2, 3]}]}'


def run(server: ScriptedServer, picture: str, *flags: str) -> Result:
    arguments = ["compare", picture, "How many?", "--url", server.url, *flags]
    return CliRunner().invoke(app, arguments, prog_name="skipserve")


def labels(result: Result) -> list[str]:
    return [it["policy"] for it in json.loads(result.stdout)["policies"]]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["half,exit"], ["full", "half", "exit"]),
        (["half,full"], ["full", "half"]),
        (["half", "--policies", "exit"], ["full", "half", "exit"]),
        (["half,full", "--no-full"], ["half", "full"]),
        (["full"], ["full"]),
    ],
)
def test_full_comes_first(
    choosing: ScriptedServer, picture: str, flags: list[str], expected: list[str]
) -> None:
    result = run(choosing, picture, "--json", "--policies", *flags)
    assert labels(result) == expected
    assert json.loads(result.stdout)["baseline"] == expected[0]


def test_commas_of_json_part_no_policies(choosing: ScriptedServer, picture: str) -> None:
    result = run(choosing, picture, "--json", "--policies", f"half,{INLINE},exit")
    full, half, inline, last = labels(result)
    assert (full, half, last) == ("full", "half", "exit")
    assert inline.startswith("inline-")
    assert json.loads(INLINE) in [it.body["skip_policy"] for it in choosing.received if it.body]


def test_what_the_server_lacks_is_told_before_it_is_asked(
    choosing: ScriptedServer, picture: str
) -> None:
    for policies, words in (("half,hal", "'hal'"), ('half,{"rulez": []}', "rulez")):
        result = run(choosing, picture, "--policies", policies)
        assert result.exit_code == 1
        assert words in result.stderr
    assert all(it.method == "GET" for it in choosing.received)


def test_another_answer_is_no_failure_unless_agreement_is_wanted(
    choosing: ScriptedServer, picture: str
) -> None:
    flags = ["--policies", "half,exit"]
    result = run(choosing, picture, *flags)
    assert result.exit_code == 0, result.output
    assert "word 2: 'blue', where full has 'red'" in result.stdout
    wanted = run(choosing, picture, *flags, "--require-agreement")
    assert wanted.exit_code == 1
    assert "word 2" in wanted.stdout
    assert "exit: not the answer of full" in wanted.stderr
    agreeing = run(choosing, picture, "--policies", "half", "--require-agreement")
    assert agreeing.exit_code == 0


def test_conditions_are_told(choosing: ScriptedServer, picture: str) -> None:
    flags = ["--policies", "half", "--repeat", "2", "--warm", "--at-once"]
    found = json.loads(run(choosing, picture, *flags, "--json").stdout)
    told = {key: found[key] for key in ("repeats", "is_warm", "is_at_once", "question")}
    assert told == {"repeats": 2, "is_warm": True, "is_at_once": True, "question": "How many?"}
    assert "medians of 2, asked all at once" in " ".join(
        run(choosing, picture, *flags).stdout.split()
    )


def test_no_policy_is_wrong_use(choosing: ScriptedServer, picture: str) -> None:
    assert run(choosing, picture).exit_code == 2
