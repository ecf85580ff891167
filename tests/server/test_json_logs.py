"""With JSON logs nothing else is written: by a real server, whatever happens to it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from server_process import ServerProcess

# Runs in the engine's process before any of our code, as a library's import does.
_LOUD = """
import sys, warnings
if "skipserve.service.process" in sys.orig_argv:
    print("printed by a library")
    warnings.warn("warned by a library")
    print('{"cut": ', file=sys.stderr)
"""


def read(output: str) -> list[dict[str, Any]]:
    """Return the lines, each of which must be JSON that says when, how grave, whose and what."""
    lines = [json.loads(line) for line in output.splitlines()]
    for line in lines:
        assert line.keys() >= {"time", "level", "logger", "message"}
    return lines


def test_a_server_whose_libraries_print_and_whose_engine_dies(
    checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(_LOUD)
    flags = ("--log-format", "json")
    with ServerProcess(checkpoint, *flags, PYTHONPATH=str(tmp_path)) as server:
        with server.client() as client:
            client.post("/v1/chat/completions", json={})
        os.kill(server.engine_id, signal.SIGKILL)
        code, output = server.wait()
    lines = read(output)
    assert code == 1
    messages = [line["message"] for line in lines]
    assert messages[0] == "Loading tiny ..."
    assert messages[-1] == "stopping: the engine has died: SIGKILL"
    for words in ("printed by a library", "warned by a library", '{"cut":', "completions 400"):
        levels = {line["level"] for line in lines if words in line["message"]}
        assert levels == {"INFO" if "400" in words else "WARNING"}


def refusal(*flags: str, **environment: str) -> str:
    """Start a server that cannot start; return what it says of it, in one line of JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "skipserve_client", "serve", *flags],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    (line,) = read(done.stdout)
    assert line["level"] == "ERROR"
    return str(line["message"])


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--port", "abc"), "Invalid value for '--port': this must be a whole number"),
        (("--port", "99999"), "port: this must be at most 65535"),
        (("--model", "nowhere"), "there is no model folder nowhere"),
    ],
)
def test_a_server_that_cannot_start(flags: tuple[str, ...], told: str) -> None:
    assert told in refusal("--log-format=json", *flags)


def test_json_may_be_asked_for_in_a_file_that_is_wrong_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("log_format: json\nprot: 1\n")
    told = refusal(SKIPSERVE_CONFIG=str(file))
    assert told == "prot: this field is not known; is it port?"
