"""Servers of others: measured alike, without policies, FLOPs and times of their own."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted_server import Received, Scripted, ScriptedServer
from typer.testing import CliRunner, Result

from skipserve_client.cli import app

pytestmark = pytest.mark.fast

CHAT = "/v1/chat/completions"
Replying = Callable[[Received], Scripted]


def completion(text: str | None) -> dict[str, Any]:
    """Return a reply as servers of OpenAI's form send it, with what some leave empty."""
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-2",
        "object": "chat.completion",
        "model": "rival",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": 9,
            "completion_tokens": 1,
            "total_tokens": 10,
            "prompt_tokens_details": None,
        },
    }


def rival(received: Received) -> Scripted:
    """Answer always yes, and know no skip policies."""
    if received.path == "/v1/models":
        return Scripted({"object": "list", "data": [{"id": "rival"}, {"id": "other"}]})
    if received.path != CHAT:
        return Scripted({"detail": "Not Found"}, 404)
    if strangers := received.body.keys() - {"model", "messages", "temperature", "max_tokens"}:
        return Scripted({"error": {"message": f"unknown: {sorted(strangers)}"}}, 400)
    return Scripted(completion("Yes."))


def run(server: ScriptedServer, data: Path, *flags: str) -> Result:
    arguments = ["evaluate", "--url", server.url, "--data", str(data), *flags]
    return CliRunner().invoke(app, arguments, prog_name="skipserve")


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


@pytest.mark.parametrize("flags", [(), ("--policies", "full")])
def test_a_server_without_policies_is_measured_under_its_models_name(
    server: ScriptedServer, riddles: Path, output: Path, flags: tuple[str, ...]
) -> None:
    server.answers(rival)
    result = run(server, riddles, "--json", "--output", str(output), *flags)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["model"], found["model_digest"]) == ("rival", None)
    policy = found["policies"]["rival"]
    assert (policy["accuracy"], policy["digest"], policy["flops_saved"]) == (0.5, None, None)
    assert policy["latency_seconds"] > 0
    (record, *_) = read(output)
    assert (record["planned_flops"], record["full_flops"]) == (None, None)
    assert (record["prompt_tokens"], record["cached_tokens"]) == (9, 0)
    asked = [it.body for it in server.received if it.path == CHAT]
    assert {body["model"] for body in asked} == {"rival"}


def test_the_model_can_be_named(server: ScriptedServer, riddles: Path) -> None:
    server.answers(rival)
    found = json.loads(run(server, riddles, "--json", "--model-name", "other").stdout)
    assert list(found["policies"]) == ["other"]
    asked = [it.body for it in server.received if it.path == CHAT]
    assert {body["model"] for body in asked} == {"other"}
    told = run(server, riddles, "--model-name", "third").stderr
    assert "--model-name third: the server's models are rival, other" in told


def test_policies_are_not_asked_of_it(server: ScriptedServer, riddles: Path) -> None:
    server.answers(rival)
    told = run(server, riddles, "--policies", "full,half").stderr
    assert "--policies half: the server lists no skip policies" in told
    assert all(it.path != CHAT for it in server.received)


def test_a_run_goes_on_where_it_was_stopped(
    server: ScriptedServer, riddles: Path, output: Path
) -> None:
    server.answers(rival)
    run(server, riddles, "--count", "4", "--output", str(output))
    server.received.clear()
    run(server, riddles, "--output", str(output))
    assert len(read(output)) == 10
    assert sum(it.path == CHAT for it in server.received) == 1 + 6


@pytest.mark.parametrize(
    "bare", [{"usage": None}, {"choices": [{"message": {"content": None}, "finish_reason": None}]}]
)
def test_what_some_leave_out_is_taken(
    server: ScriptedServer, riddles: Path, output: Path, bare: dict[str, Any]
) -> None:
    def replying(received: Received) -> Scripted:
        answer = rival(received)
        return Scripted(answer.body | bare) if received.path == CHAT else answer

    server.answers(replying)
    result = run(server, riddles, "--count", "2", "--output", str(output))
    assert result.exit_code == 0, result.output
    assert {it["finish_reason"] for it in read(output)} <= {"stop", ""}


def test_the_table_says_what_is_not_known(server: ScriptedServer, riddles: Path) -> None:
    server.answers(rival)
    told = " ".join(run(server, riddles).stdout.split())
    assert "FLOPs are not known, and latency is the client's" in told


def test_a_server_with_policies_is_asked_for_the_model_too(
    knowing: ScriptedServer, riddles: Path
) -> None:
    run(knowing, riddles, "--policies", "full", "--model-name", "sphinx@half")
    asked = [it.body for it in knowing.received if it.path == CHAT]
    assert {(body["model"], body["skip_policy"]) for body in asked} == {("sphinx@half", "full")}
