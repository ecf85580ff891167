"""`skipserve chat`: through a pipe, and typed in a terminal."""

import json
import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest
from scripted_server import ScriptedServer
from typer.testing import CliRunner, Result

from skipserve_client.chat.command import typed_lines
from skipserve_client.cli import app

pytestmark = pytest.mark.fast

CTRL_D = b"\x04"


def run(server: ScriptedServer, typed: str | bytes, *flags: str) -> Result:
    arguments = ["chat", "--url", server.url, *flags]
    return CliRunner().invoke(app, arguments, input=typed, prog_name="skipserve")


def questions(server: ScriptedServer) -> list[str]:
    return [it.body["messages"][-1]["content"] for it in server.received if it.method == "POST"]


def test_the_output_holds_the_answers_alone(echoing: ScriptedServer) -> None:
    result = run(echoing, "one\n\n  two  \r\n/help\n/quit\nthree\n")
    assert (result.exit_code, result.stdout) == (0, "one\ntwo\n")
    assert "[full] 2 tokens" in result.stderr
    assert "/picture FILE" in result.stderr
    assert questions(echoing) == ["one", "two"]


def test_a_json_object_a_turn(echoing: ScriptedServer) -> None:
    result = run(echoing, "one\nfail\n/nothing\n", "--json")
    one, fail, nothing = map(json.loads, result.stdout.splitlines())
    assert (one["question"], one["text"], one["skip"]["policy"]) == ("one", "one", "full")
    assert fail["error"] == {
        "message": "this is too much (HTTP 400)",
        "status": 400,
        "param": "messages",
    }
    assert "/help" in nothing["error"]["message"]
    assert result.exit_code == 1


def test_what_fails_ends_no_talk(echoing: ScriptedServer, picture: str) -> None:
    lines = b"one\nfail\n\xff\n/what\n/picture\n/picture /nowhere\n/save\n/save /no/where\ntwo\n"
    result = run(echoing, lines)
    assert result.stdout == "one\ntwo\n"
    assert result.exit_code == 1
    assert "error: 7 of the lines could not be carried out" in result.stderr
    for words in ("too much", "not valid UTF-8", "there is no /what", "/nowhere", "/no/where"):
        assert words in result.stderr


def test_policies_are_looked_up_before_they_are_asked_for(echoing: ScriptedServer) -> None:
    result = run(echoing, "/policy\n/policy exit-after-24\n/policy ful\none\n")
    assert "the server's default" in result.stderr
    assert "the nearest are full" in result.stderr
    assert [it.body["skip_policy"] for it in echoing.received if it.method == "POST"] == [
        "exit-after-24"
    ]
    refused = run(echoing, "one\n", "--policy", "ful")
    assert (refused.exit_code, refused.stdout) == (1, "")
    inline = '{"rules": [{"action": "skip_ffn", "layers": [2]}]}'
    run(echoing, "one\n", "--policy", inline)
    assert echoing.received[-1].body["skip_policy"] == json.loads(inline)


def test_pictures_are_shown(echoing: ScriptedServer, picture: str) -> None:
    run(echoing, f"one\n/picture {picture}\ntwo\n/reset\nthree\n", picture)
    first, second, third = (it.body["messages"] for it in echoing.received if it.body)
    assert first[0]["content"][0]["type"] == second[2]["content"][0]["type"] == "image_url"
    assert third == [{"role": "user", "content": "three"}]
    assert "nowhere.png" in run(echoing, "one\n", "nowhere.png").stderr


def test_the_talk_is_saved(echoing: ScriptedServer, tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    run(echoing, f"one\n/save {file}\n", "--seed", "3", "--max-tokens", "9", "--model", "m")
    saved = json.loads(file.read_text())
    assert saved["options"] == {"temperature": 0.0, "model": "m", "max_tokens": 9, "seed": 3}
    assert len(saved["turns"]) == 1


def test_no_server_is_told_at_once() -> None:
    result = CliRunner().invoke(app, ["chat", "--url", "http://127.0.0.1:9"], input="one\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no server answers" in result.stderr


def test_ctrl_c_at_the_prompt_ends_no_talk(monkeypatch: pytest.MonkeyPatch) -> None:
    typed: list[str | BaseException] = ["one", KeyboardInterrupt(), "two", EOFError(), "three"]

    def read(*_: str) -> str:
        line = typed.pop(0)
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr("builtins.input", read)
    notes: list[str] = []
    assert list(typed_lines(notes.append)) == ["one", "two"]
    assert notes == ["/quit or Ctrl-D ends the talk"]


def _read_to_prompt(terminal: int) -> str:
    """Return what a terminal shows until it waits for a line."""
    shown = ""
    while not shown.endswith("> "):
        readable, _, _ = select.select([terminal], [], [], 60)
        assert readable, shown
        shown += os.read(terminal, 4096).decode()
    return shown


def test_in_a_terminal(echoing: ScriptedServer) -> None:
    command = [sys.executable, "-m", "skipserve_client", "chat", "--url", echoing.url]
    terminal, inner = pty.openpty()
    environment = os.environ | {"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"}
    with subprocess.Popen(
        command, stdin=inner, stdout=inner, stderr=inner, env=environment
    ) as process:
        try:
            assert "Ctrl-D ends the talk" in _read_to_prompt(terminal)
            os.write(terminal, b"fail\n")
            assert "error: this is too much" in _read_to_prompt(terminal)
            os.write(terminal, b"one\n")
            assert "one\r\n[full] 2 tokens" in _read_to_prompt(terminal)
            os.write(terminal, CTRL_D)
            # What failed was told when it did.
            assert process.wait() == 0
        finally:
            process.kill()
            os.close(inner)
            os.close(terminal)
