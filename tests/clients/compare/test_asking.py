"""In which order policies are asked, and that none finds what was computed for another."""

import asyncio
from typing import Any

import pytest
from scripted_server import ScriptedServer

from skipserve_client import AsyncSkipserveClient
from skipserve_client.compare.asking import Answers, Comparison
from skipserve_client.policy_choice import PolicyChoice

pytestmark = pytest.mark.fast

POLICIES = [PolicyChoice(name, name) for name in ("full", "half", "exit")]
MESSAGES = [{"role": "user", "content": "?"}]


def ask(server: ScriptedServer, **settings: Any) -> Answers:
    async def asking() -> Answers:
        async with AsyncSkipserveClient(server.url) as client:
            options: Any = {"temperature": 0.0, "max_tokens": 9}
            return await Comparison(MESSAGES, options, POLICIES, **settings).ask(client)

    return asyncio.run(asking())


def bodies(server: ScriptedServer) -> list[dict[str, Any]]:
    return [it.body for it in server.received]


def test_policies_take_turns_after_a_warm_up(choosing: ScriptedServer) -> None:
    answers = ask(choosing, repeats=2)
    asked = [body["skip_policy"] for body in bodies(choosing)]
    names = [policy.label for policy in POLICIES]
    assert asked == [*names, *names, "half", "exit", "full"]
    assert [body["max_tokens"] for body in bodies(choosing)] == [2] * 3 + [9] * 6
    assert list(answers) == names
    assert [it.answer.text for it in answers["exit"]] == ["two blue squares"] * 2


@pytest.mark.parametrize("is_at_once", [False, True])
def test_no_two_answers_share_a_cache(choosing: ScriptedServer, is_at_once: bool) -> None:
    for _ in range(2):
        ask(choosing, repeats=2, is_at_once=is_at_once)
    salts = [body["cache_salt"] for body in bodies(choosing)]
    assert len(set(salts)) == len(salts) == 18


def test_warm_ones_share_the_server_s(choosing: ScriptedServer) -> None:
    ask(choosing, is_warm=True)
    assert all("cache_salt" not in body for body in bodies(choosing))


def test_at_once_each_answer_is_its_policy_s(choosing: ScriptedServer) -> None:
    answers = ask(choosing, repeats=3, is_at_once=True)
    texts = {label: {it.answer.text for it in timed} for label, timed in answers.items()}
    assert texts == {"full": {"two red"}, "half": {"two red"}, "exit": {"two blue squares"}}


def test_times_are_those_of_the_client(choosing: ScriptedServer) -> None:
    for timed in ask(choosing).values():
        assert 0 < timed[0].first_token_seconds <= timed[0].seconds
