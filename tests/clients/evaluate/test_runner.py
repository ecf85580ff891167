"""Runs questions against a scripted server that knows some of the answers."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from scripted_server import Received, Scripted, ScriptedServer

from skipserve_client import ApiError, AsyncSkipserveClient, ConnectionFailedError
from skipserve_client.evaluate.dataset import Example
from skipserve_client.evaluate.plot import draw
from skipserve_client.evaluate.results import Evaluation, evaluation_json
from skipserve_client.evaluate.runner import Runner
from skipserve_policies.quality import QUALITY_FILE, load_measured

pytestmark = pytest.mark.fast

NUM_QUESTIONS = 10


def examples() -> Iterator[Example]:
    """Yield questions whose right answers are yes, no, yes, no, ..."""
    for index in range(NUM_QUESTIONS):
        kind = "even" if index % 2 == 0 else "odd"
        answer = "no" if index % 2 else "yes"
        yield Example(Image.new("RGB", (2, 2)), f"question {index}", answer, kind)


def reply(received: Received, completion: dict[str, Any]) -> Scripted:
    """Answer right under full, always yes under half, and refuse misfit."""
    policy = received.body["skip_policy"]
    if policy == "misfit":
        error = {"message": "misfit does not fit", "param": "skip_policy", "code": 400}
        return Scripted({"error": error}, 400)
    question = received.body["messages"][0]["content"][1]["text"]
    is_odd = int(question.split()[1]) % 2 == 1
    text = "no" if policy == "full" and is_odd else "Yes."
    choice = completion["choices"][0] | {"message": {"content": text}}
    planned = 1000 if policy == "full" else 750
    skip = completion["metrics"]["skip"] | {"digest": policy, "planned_flops": planned}
    metrics = completion["metrics"] | {"skip": skip}
    return Scripted(completion | {"choices": [choice], "metrics": metrics})


def evaluate(server: ScriptedServer, *policies: str, **settings: Any) -> tuple[Evaluation, int]:
    """Return the evaluation and how often progress was reported."""
    steps: list[None] = []

    async def run() -> Evaluation:
        async with AsyncSkipserveClient(server.url, max_retries=0) as client:
            runner = Runner(client, settings.get("concurrency", 1), 8, lambda: steps.append(None))
            return await runner.run(
                examples(), policies, keeps_misfits_out=settings.get("keeps_misfits_out", False)
            )

    return asyncio.run(run()), len(steps)


@pytest.fixture
def knowing(server: ScriptedServer, completion: dict[str, Any]) -> ScriptedServer:
    server.answers(lambda received: reply(received, completion))
    return server


@pytest.mark.parametrize("concurrency", [1, 4])
def test_every_question_is_graded_under_every_policy(
    knowing: ScriptedServer, concurrency: int
) -> None:
    evaluation, num_steps = evaluate(knowing, "full", "half", concurrency=concurrency)
    full, half = evaluation.policies["full"], evaluation.policies["half"]
    assert (full.score.accuracy, half.score.accuracy) == (1.0, 0.5)
    assert half.score.types["odd"].accuracy == 0.0
    assert half.score.n == NUM_QUESTIONS
    assert num_steps == 2 * NUM_QUESTIONS
    assert evaluation.retention("half") == 0.5


def test_flops_and_times_are_summed_up(knowing: ScriptedServer) -> None:
    evaluation, _ = evaluate(knowing, "full", "half")
    half = evaluation.policies["half"]
    assert half.flops_saved == 0.25
    assert (half.latency_seconds, half.first_token_seconds) == (0.03, 0.02)


def test_answers_are_greedy_and_bounded(knowing: ScriptedServer) -> None:
    evaluate(knowing, "full")
    body = knowing.received[-1].body
    assert (body["temperature"], body["max_tokens"]) == (0.0, 8)


def test_policies_take_turns(knowing: ScriptedServer) -> None:
    evaluate(knowing, "full", "half")
    asked = [received.body["skip_policy"] for received in knowing.received]
    assert asked == ["full", "half"] * (NUM_QUESTIONS + 1)


def test_no_policy_profits_from_what_another_computed(knowing: ScriptedServer) -> None:
    salts = set()
    for _ in range(2):
        evaluate(knowing, "full", "half")
        salts |= {(it.body["skip_policy"], it.body["cache_salt"]) for it in knowing.received}
    assert len(salts) == len(dict.fromkeys(salt for _, salt in salts)) == 4


def test_a_misfit_is_left_out_or_an_error(knowing: ScriptedServer) -> None:
    evaluation, _ = evaluate(knowing, "full", "misfit", keeps_misfits_out=True)
    assert list(evaluation.policies) == ["full"]
    assert evaluation.left_out == {"misfit": "misfit does not fit"}
    with pytest.raises(ApiError, match="does not fit"):
        evaluate(knowing, "full", "misfit")


def test_without_full_there_is_no_retention(knowing: ScriptedServer) -> None:
    evaluation, _ = evaluate(knowing, "half")
    assert evaluation.retention("half") is None


def test_a_failure_midway_is_raised_as_it_is(
    server: ScriptedServer, completion: dict[str, Any]
) -> None:
    def answer(received: Received) -> Scripted:
        if len(server.received) < 4:
            return reply(received, completion)
        return Scripted({"error": {"message": "the engine died", "code": 500}}, 500)

    server.answers(answer)
    with pytest.raises(ApiError, match="the engine died"):
        evaluate(server, "full", concurrency=3)


def test_no_server_is_raised_as_it_is() -> None:
    with ScriptedServer() as closed:
        pass
    with pytest.raises(ConnectionFailedError):
        evaluate(closed, "full")


def test_the_json_has_the_contracts_form(knowing: ScriptedServer) -> None:
    evaluation, _ = evaluate(knowing, "full", "half")
    written = evaluation_json(evaluation, "riddles")
    assert written["data"] == "riddles"
    half = written["policies"]["half"]
    assert {"accuracy", "low", "high", "n", "types"} <= set(half)
    assert half["low"] < half["accuracy"] < half["high"]
    assert half["types"]["odd"] == {"accuracy": 0.0, "majority": 1.0, "n": 5}
    assert half["retention"] == 0.5


def test_the_server_can_show_what_was_written(knowing: ScriptedServer, tmp_path: Path) -> None:
    evaluation, _ = evaluate(knowing, "full", "half")
    text = json.dumps(evaluation_json(evaluation, "riddles"))
    (tmp_path / QUALITY_FILE).write_text(text)
    measured = load_measured(tmp_path, "mine")
    (quality,) = measured[evaluation.policies["half"].digest]
    assert quality.dataset == "riddles"
    assert quality.value == 100 * evaluation.policies["half"].score.accuracy


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_the_picture_names_every_policy(
    knowing: ScriptedServer, tmp_path: Path, ending: str
) -> None:
    evaluation, _ = evaluate(knowing, "full", "half")
    draw(evaluation, tmp_path / f"plot.{ending}")
    written = (tmp_path / f"plot.{ending}").read_bytes()
    if ending == "svg":
        assert all(f"<!-- {name}".encode() in written for name in ("full", "half"))
    else:
        assert written.startswith(b"\x89PNG")
