"""Runs questions against a scripted server that knows some of the answers."""

import asyncio
from functools import partial
from typing import Any

import pytest
from PIL import Image
from scripted_server import Scripted, ScriptedServer

from skipserve_client import ApiError, AsyncSkipserveClient, ConnectionFailedError
from skipserve_client.command_group import CommandError
from skipserve_client.evaluate.records import Conditions, Record
from skipserve_client.evaluate.runner import Place, Runner
from skipserve_client.evaluate.sample import Sample
from skipserve_client.policy_choice import PolicyChoice, read_policies

pytestmark = pytest.mark.fast

SAMPLES = tuple(
    Sample(
        index,
        Image.new("RGB", (2, 2)),
        f"question {index}",
        ("no" if index % 2 else "yes",),
        "odd" if index % 2 else "even",
        f"riddle {index}",
    )
    for index in range(4)
)
BOTH = read_policies(["full,half"], "--policies")


def conditions(concurrency: int = 1) -> Conditions:
    return Conditions(
        data="riddles",
        model="sphinx",
        model_digest=None,
        dtype=None,
        device=None,
        max_tokens=8,
        concurrency=concurrency,
    )


def run(
    server: ScriptedServer,
    policies: tuple[PolicyChoice, ...] = BOTH,
    kept: tuple[Place, ...] = (),
    concurrency: int = 1,
) -> list[Record]:
    records: list[Record] = []

    async def asking() -> None:
        async with AsyncSkipserveClient(server.url, max_retries=0) as client:
            runner = Runner(client, conditions(concurrency), records.append)
            await runner.run(SAMPLES, policies, kept)

    asyncio.run(asking())
    return records


def refusal(server: ScriptedServer, policy: str, *, may_refuse: bool) -> str | None:
    async def asking() -> str | None:
        async with AsyncSkipserveClient(server.url, max_retries=0) as client:
            runner = Runner(client, conditions(), lambda _: None)
            choice = PolicyChoice(policy, policy)
            return await runner.refusal(SAMPLES[0], choice, may_refuse=may_refuse)

    return asyncio.run(asking())


def refuses(server: ScriptedServer, status: int, param: str | None) -> None:
    fault = {"message": "refused", "type": "some_error", "param": param, "code": status}
    server.answers(Scripted({"error": fault}, status))


def bodies(server: ScriptedServer) -> list[dict[str, Any]]:
    return [received.body for received in server.received]


@pytest.mark.parametrize("concurrency", [1, 4])
def test_every_question_is_graded_under_every_policy(
    knowing: ScriptedServer, concurrency: int
) -> None:
    records = run(knowing, concurrency=concurrency)
    correct = {(record.policy, record.index): record.correct for record in records}
    assert correct == {
        (policy, index): policy == "full" or index % 2 == 0
        for policy in ("full", "half")
        for index in range(4)
    }


def test_what_is_kept_is_not_asked_again(knowing: ScriptedServer) -> None:
    records = run(knowing, kept=(("full", 0), ("full", 1), ("half", 1), ("full", 3)))
    places = [(record.policy, record.index) for record in records]
    assert places == [("half", 0), ("full", 2), ("half", 2), ("half", 3)]
    assert len(knowing.received) == 4


def test_answers_are_greedy_and_bounded(knowing: ScriptedServer) -> None:
    run(knowing)
    assert {(body["temperature"], body["max_tokens"]) for body in bodies(knowing)} == {(0.0, 8)}


def test_policies_take_turns(knowing: ScriptedServer) -> None:
    run(knowing)
    assert [body["skip_policy"] for body in bodies(knowing)] == ["full", "half"] * len(SAMPLES)


def test_a_policy_that_is_spelt_out_is_sent_as_it_is(knowing: ScriptedServer) -> None:
    policy = {"rules": [{"action": "skip_ffn", "layers": [1]}]}
    (choice,) = read_policies([str(policy).replace("'", '"')], "--policies")
    records = run(knowing, (choice,))
    assert bodies(knowing)[0]["skip_policy"] == policy
    assert {record.policy for record in records} == {choice.label}


def test_no_policy_profits_from_what_another_or_the_warm_up_computed(
    knowing: ScriptedServer,
) -> None:
    for _ in range(2):
        run(knowing)
        refusal(knowing, "full", may_refuse=False)
    salts = [(body["skip_policy"], body["cache_salt"]) for body in bodies(knowing)]
    assert len(set(salts)) == len({salt for _, salt in salts}) == 2 * 3


def test_a_misfit_is_told_or_an_error(knowing: ScriptedServer) -> None:
    assert refusal(knowing, "misfit", may_refuse=True) == "misfit does not fit"
    assert refusal(knowing, "half", may_refuse=True) is None
    with pytest.raises(ApiError, match="does not fit"):
        refusal(knowing, "misfit", may_refuse=False)


def test_a_question_that_is_refused_is_named(knowing: ScriptedServer) -> None:
    refuses(knowing, 422, None)
    with pytest.raises(CommandError, match=r"^riddle 0: refused \(HTTP 422\)$"):
        run(knowing)
    with pytest.raises(CommandError, match=r"^riddle 0: refused \(HTTP 422\)$"):
        refusal(knowing, "full", may_refuse=True)


def test_a_policy_that_is_refused_is_named_once(knowing: ScriptedServer) -> None:
    with pytest.raises(ApiError, match=r"^misfit does not fit"):
        run(knowing, (PolicyChoice("misfit", "misfit"),))
    refuses(knowing, 400, "skip_policy")
    for ask in (run, partial(refusal, policy="full", may_refuse=False)):
        with pytest.raises(CommandError, match=r"^full: refused \(HTTP 400\)$"):
            ask(knowing)


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_what_is_no_fault_of_a_question_is_raised_as_it_is(
    knowing: ScriptedServer, status: int
) -> None:
    refuses(knowing, status, None)
    with pytest.raises(ApiError, match=rf"^refused \(HTTP {status}\)$"):
        run(knowing)


def test_no_server_is_raised_as_it_is() -> None:
    with ScriptedServer() as closed:
        pass
    with pytest.raises(ConnectionFailedError):
        run(closed, concurrency=3)
