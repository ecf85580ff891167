"""What the real server logs of requests, and what it never does."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from otlp_receiver import OtlpReceiver
from pictures import question
from server_process import ServerProcess
from tiny_llava import make_checkpoint

from skipserve.engine.limits import EngineSpec
from skipserve.service.ipc import spec_to_json

CHAT = "/v1/chat/completions"
KEY = "a-key-that-nobody-may-see"
SECRET = "xylophone"
POLICY = "exit-after-24"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(scope="module")
def lines(checkpoint: Path, picture_url: str) -> dict[str, dict[str, Any]]:
    """The lines of a server's life, by request id; those without one under their message."""
    with (
        OtlpReceiver() as receiver,
        ServerProcess(
            checkpoint,
            *("--log-format", "json", "--otlp-endpoint", receiver.url),
            SKIPSERVE_API_KEY=KEY,
        ) as server,
    ):
        with server.client() as client:
            _ask_around(client, picture_url)
        server.signal(signal.SIGTERM)
        code, output = server.wait()
    assert code == 0
    assert SECRET not in output
    assert KEY not in output
    logged = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    by_id = {line.get("request_id", line["message"]): line for line in logged}
    assert len(by_id) == len(logged)
    return by_id


def _ask_around(client: httpx.Client, picture_url: str) -> None:
    def post(name: str, body: dict[str, Any], key: str = KEY, **headers: str) -> None:
        given = {"Authorization": f"Bearer {key}", "X-Request-Id": name}
        client.post(CHAT, json=body, headers=given | headers)

    parent = {"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01"}
    body = question(SECRET, picture_url, skip_policy=POLICY, max_tokens=2, temperature=0)
    post("whole", body, **parent)
    post("stream", question(SECRET, stream=True, max_tokens=2, temperature=0))
    post("intruder", question(SECRET), key=SECRET)
    post("misspelt", question(SECRET, skip_polcy=SECRET))
    post("unknown", question(SECRET, skip_policy=SECRET))
    client.get("/health", headers={"X-Request-Id": "probe"})
    client.get(f"/nowhere?{SECRET}", headers={"X-Request-Id": "lost"})


def test_a_line_tells_what_was_asked_and_how_it_went(lines: dict[str, dict[str, Any]]) -> None:
    line = lines["whole"]
    seconds = {name: line.pop(name) for name in tuple(line) if name.endswith("_seconds")}
    assert line.pop("time").endswith("Z")
    assert line.pop("message").startswith(f"POST {CHAT} 200 {POLICY} ")
    assert len(line.pop("skip_policy_digest")) == 16
    assert line.pop("prompt_tokens") > 4
    assert line == {
        "level": "INFO",
        "logger": "skipserve.requests",
        "request_id": "whole",
        "trace_id": TRACE_ID,
        "method": "POST",
        "path": CHAT,
        "status": 200,
        "error": None,
        "reason": None,
        "stream": False,
        "skip_policy": POLICY,
        "finish_reason": "length",
        "prompts": 1,
        "cached_tokens": 0,
        "completion_tokens": 2,
        "images": 1,
    }
    first, total = seconds["time_to_first_token_seconds"], seconds["duration_seconds"]
    assert 0 <= seconds["queue_seconds"] <= first < total
    assert 0 < seconds["inter_token_latency_seconds"] < total


def test_a_stream_has_one_line_too(lines: dict[str, dict[str, Any]]) -> None:
    line = lines["stream"]
    assert (line["stream"], line["skip_policy"], line["completion_tokens"]) == (True, "full", 2)
    assert line["message"].endswith(" s")


@pytest.mark.parametrize(
    ("name", "status", "error"),
    [
        ("intruder", 401, "authentication_error"),
        ("misspelt", 400, "invalid_request_error"),
        ("unknown", 404, "not_found_error"),
        ("lost", 401, "authentication_error"),
    ],
)
def test_an_error_is_told_by_its_kind(
    lines: dict[str, dict[str, Any]], name: str, status: int, error: str
) -> None:
    assert (lines[name]["status"], lines[name]["error"]) == (status, error)
    # A reader of the text sees it too: a stream that fails has begun with a 200.
    assert f" s {error}" in lines[name]["message"]
    assert "skip_policy" not in lines[name]


def test_probes_are_silent(lines: dict[str, dict[str, Any]]) -> None:
    assert "probe" not in lines


@pytest.mark.parametrize("as_json", [False, True])
def test_the_process_logs_in_the_form_of_the_server(tmp_path: Path, as_json: bool) -> None:
    spec = EngineSpec(make_checkpoint(tmp_path / "model"), dtype="float33", logs_json=as_json)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "skipserve.service.process"),
                *(str(theirs.fileno()), spec_to_json(spec)),
            ],
            pass_fds=(theirs.fileno(),),
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    if as_json:
        (line,) = map(json.loads, lines)
        assert line["message"] == "the model could not be loaded"
        assert "KeyError: 'float33'" in line["exception"]
    else:
        assert lines[0].endswith("ERROR __main__: the model could not be loaded")
        assert lines[-1] == "KeyError: 'float33'"
