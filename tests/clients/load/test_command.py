"""`skipserve load` from its flags to its exit code, on servers of skipserve and of others."""

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from scripted_server import Received, Scripted, ScriptedServer, event_stream
from typer.testing import CliRunner, Result

from skipserve_client.cli import app

pytestmark = pytest.mark.fast

CHAT = "/v1/chat/completions"
Replying = Callable[[Received], Scripted]


@pytest.fixture
def knowing(stream_events: list[Any]) -> Replying:
    """Return how a server of skipserve replies that has two policies."""
    policy: dict[str, Any] = {"digest": "d", "layers": {}, "scope": None, "saved_ratio": 0.5}
    listed = [policy | {"name": "full", "default": True}, policy | {"name": "half"}]
    lists: dict[str, Any] = {
        "/v1/skip_policies": {"object": "list", "data": listed},
        "/v1/models": {"object": "list", "data": [{"id": "demo", "weights_digest": "w"}]},
        "/version": {"version": "9.9"},
    }

    def reply(received: Received) -> Scripted:
        found = lists.get(received.path)
        return event_stream(stream_events) if found is None else Scripted(found)

    return reply


def other(received: Received) -> Scripted:
    """Reply as a server of OpenAI's form that refuses what it does not know."""
    if received.path == "/v1/models":
        return Scripted({"object": "list", "data": [{"id": "rival"}]})
    if received.path != CHAT:
        return Scripted({"detail": "Not Found"}, 404)
    known = {"model", "messages", "temperature", "max_tokens", "stream", "stream_options"}
    usage = {"include_usage": True}
    if received.body.keys() - known or received.body["stream_options"] != usage:
        return Scripted({"error": {"message": "unknown field"}}, 400)
    choice = {"index": 0, "delta": {"content": "yes"}, "finish_reason": None}
    return event_stream([{"choices": [choice]}, {"choices": [choice]}])


def run(server: ScriptedServer, *flags: str) -> Result:
    arguments = ["load", "--url", server.url, "--picture-size", "8x8", *flags]
    if "--pictures" in flags or "--text-only" in flags:
        del arguments[3:5]
    return CliRunner().invoke(app, arguments, prog_name="skipserve")


def error_of(result: Result) -> str:
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.strip().splitlines()
    return line.removeprefix("error: ")


def asked(server: ScriptedServer) -> list[dict[str, Any]]:
    return [it.body for it in server.received if it.path == CHAT]


def test_a_closed_loop_of_two_policies(
    server: ScriptedServer, knowing: Replying, tmp_path: Path
) -> None:
    server.answers(knowing)
    file = tmp_path / "load.jsonl"
    flags = ["--policies", "full=1,half=1", "--requests", "20", "--concurrency", "3", "--seed", "1"]
    result = run(server, *flags, "--json", "--output", str(file), "--slo", "e2e:60000")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["all"]["answered"], found["all"]["goodput"]["share"]) == (20, 1.0)
    assert set(found["by_policy"]) == {"full", "half"}
    assert found["all"]["flops_saved"] == 0.25
    bodies = asked(server)
    assert len(bodies) == 2 + 20
    salts = {body["cache_salt"] for body in bodies}
    assert len(salts) == 2
    pictures = [body["messages"][0]["content"][0]["image_url"]["url"] for body in bodies[2:]]
    assert len(set(pictures)) == 20
    about, *records = map(json.loads, file.read_text().splitlines())
    assert (about["schema"], about["seed"], about["kind"]) == ("skipserve.load/1", 1, "load")
    assert about["server"]["version"] == "9.9"
    assert about["server"]["model"]["weights_digest"] == "w"
    assert about["flags"]["policies"] == ["full=1,half=1"]
    assert sorted(it["index"] for it in records) == list(range(20))
    assert {it["kind"] for it in records} == {"request"}


def test_another_server_is_asked_what_it_knows(server: ScriptedServer) -> None:
    server.answers(other)
    found = json.loads(run(server, "--requests", "5", "--json").stdout)
    assert (found["all"]["answered"], found["all"]["failed"]) == (5, 0)
    assert set(found["by_policy"]) == {"rival"}
    assert found["server"] == {
        "is_skipserve": False,
        "version": None,
        "model": found["server"]["model"],
    }
    assert found["all"]["output_tokens"] == 10
    assert {body["model"] for body in asked(server)} == {"rival"}
    told = error_of(run(server, "--policies", "half"))
    assert told == "--policies half: the server lists no skip policies"


def test_an_address_as_clients_of_openai_s_write_it(server: ScriptedServer) -> None:
    server.answers(other)
    arguments = ["load", "--url", f"{server.url}/v1", "--requests", "2", "--text-only", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert json.loads(result.stdout)["all"]["answered"] == 2


def test_the_default_policy_has_its_name(server: ScriptedServer, knowing: Replying) -> None:
    server.answers(knowing)
    found = json.loads(run(server, "--requests", "2", "--warmup", "0", "--json").stdout)
    assert list(found["by_policy"]) == ["full"]
    assert len(asked(server)) == 2
    assert "skip_policy" not in asked(server)[0]


def test_a_policy_that_the_server_lacks(
    server: ScriptedServer, knowing: Replying, tmp_path: Path
) -> None:
    server.answers(knowing)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"seconds": 0, "policy": "hal"}\n')
    for flags in (["--policies", "full=2,hal"], ["--arrivals-file", str(rows)]):
        assert "no skip policy 'hal'" in error_of(run(server, *flags))
    assert asked(server) == []


def test_an_open_loop(server: ScriptedServer, knowing: Replying) -> None:
    server.answers(knowing)
    flags = ["--rate", "200", "--arrivals", "gamma:0.5", "--requests", "12", "--text-only"]
    result = run(server, *flags, "--json")
    found = json.loads(result.stdout)
    assert found["all"]["answered"] == 12
    assert found["client"]["lag_seconds"]["count"] == 12
    assert "open loop, 200 requests/s" in run(server, *flags).stdout


def test_an_open_loop_follows_a_file(
    server: ScriptedServer, knowing: Replying, tmp_path: Path
) -> None:
    server.answers(knowing)
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    rows = tmp_path / "rows.csv"
    rows.write_text(
        "seconds,picture,question,policy,max_tokens\n0.01,a.png,Why?,half,3\n0,,,,\n0.02,,,,\n"
    )
    file = tmp_path / "load.jsonl"
    flags = ["--arrivals-file", str(rows), "--warmup", "0", "--output", str(file)]
    assert run(server, *flags, "--requests", "2").exit_code == 0
    by_index = {it["index"]: it for it in map(json.loads, file.read_text().splitlines()[1:])}
    assert [by_index[index]["policy"] for index in (0, 1)] == ["full", "half"]
    assert [by_index[index]["scheduled_seconds"] for index in (0, 1)] == [0.0, 0.01]
    assert by_index[1]["picture"] == str(tmp_path / "a.png")
    # On a busy machine the later one may overtake the other on its way.
    assert sorted(body["max_tokens"] for body in asked(server)) == [3, 64]


def test_pictures_of_a_folder_again_and_again(
    server: ScriptedServer, knowing: Replying, tmp_path: Path
) -> None:
    server.answers(knowing)
    for number in range(3):
        Image.new("RGB", (2, 2), (number, 0, 0)).save(tmp_path / f"{number}.png")
    flags = ["--pictures", str(tmp_path), "--repeat-pictures", "2", "--requests", "12"]
    assert run(server, *flags, "--warmup", "0").exit_code == 0
    shown = {body["messages"][0]["content"][0]["image_url"]["url"] for body in asked(server)}
    assert len(shown) == 2


def test_nothing_answered_is_a_failure(server: ScriptedServer, knowing: Replying) -> None:
    def reply(received: Received) -> Scripted:
        return Scripted({}, 503) if received.path == CHAT else knowing(received)

    server.answers(reply)
    result = run(server, "--requests", "3")
    assert result.exit_code == 1
    assert "0 answered, 3 rejected (503: 3)" in result.stdout
    assert "no request was answered; the first: " in result.stderr
    assert json.loads(run(server, "--requests", "3", "--json").stdout)["all"]["rejected"] == 3


def test_ctrl_c_shows_what_was_measured(server: ScriptedServer, knowing: Replying) -> None:
    is_over = threading.Event()

    def reply(received: Received) -> Scripted:
        if received.path == CHAT and len(asked(server)) > 5:
            os.kill(os.getpid(), signal.SIGINT)
            is_over.wait()
        return knowing(received)

    server.answers(reply)
    flags = ["--concurrency", "1", "--warmup", "0", "--text-only"]
    result = run(server, *flags, "--json")
    is_over.set()
    assert result.exit_code == 130, result.output
    found = json.loads(result.stdout)
    assert (found["is_interrupted"], found["all"]["answered"]) == (True, 5)
    assert found["num_unfinished"] == 1


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--rate", "1", "--concurrency", "2"], "--concurrency, --rate: one of these"),
        (["--arrivals", "uniform"], "--arrivals goes with --rate"),
        (["--arrivals-file", "x", "--questions", "y"], "--questions: without effect"),
        (["--pictures", "x", "--picture-size", "8x8"], "--picture-size: without effect"),
        (["--text-only", "--repeat-pictures", "3"], "--repeat-pictures: without effect"),
        (["--slo", "ttft"], "--slo ttft"),
        (["--policies", "full=0"], "no weight"),
        (["--pictures", "/nowhere"], "no such folder"),
        (["--questions", "/nowhere"], "--questions /nowhere: No such file"),
        (["--output", "/"], "Is a directory"),
    ],
)
def test_what_cannot_be_done_is_told_first(
    server: ScriptedServer, knowing: Replying, flags: list[str], told: str
) -> None:
    server.answers(knowing)
    assert told in error_of(run(server, *flags))
    assert asked(server) == []


def test_no_server() -> None:
    result = CliRunner().invoke(app, ["load", "--url", "http://127.0.0.1:9"])
    assert "no server answers" in error_of(result)


def test_no_key_is_written_down(server: ScriptedServer, knowing: Replying, tmp_path: Path) -> None:
    server.answers(knowing)
    file = tmp_path / "load.jsonl"
    result = run(server, "--requests", "1", "--api-key", "secret", "--output", str(file), "--json")
    assert result.exit_code == 0
    assert "secret" not in result.stdout + file.read_text()
