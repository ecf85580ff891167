"""Servers of skipserve and of others, told apart; policies and models that they lack."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import pytest
from scripted_server import Scripted, ScriptedServer

from skipserve_client import ApiError, AsyncSkipserveClient
from skipserve_client.command_group import CommandError
from skipserve_client.discovery import check_choices, model_of, policies_of
from skipserve_client.policy_choice import PolicyChoice
from skipserve_client.replies import PolicyInfo
from skipserve_policies.resolve import PolicyError

pytestmark = pytest.mark.fast

T = TypeVar("T")
POLICY: dict[str, Any] = {
    "name": "full",
    "digest": "d",
    "layers": {},
    "scope": None,
    "saved_ratio": 0.0,
}
LISTED = [PolicyInfo.model_validate(POLICY)]


def with_client(server: ScriptedServer, use: Callable[[AsyncSkipserveClient], Awaitable[T]]) -> T:
    async def using() -> T:
        async with AsyncSkipserveClient(server.url, max_retries=0) as client:
            return await use(client)

    return asyncio.run(using())


def test_a_server_of_skipserve_lists_its_policies(server: ScriptedServer) -> None:
    server.answers(Scripted({"object": "list", "data": [POLICY]}))
    assert with_client(server, policies_of) == tuple(LISTED)


@pytest.mark.parametrize("answer", [Scripted({}, 404), Scripted({}, 405), Scripted("<html>")])
def test_another_server_has_none(server: ScriptedServer, answer: Scripted) -> None:
    server.answers(answer)
    assert with_client(server, policies_of) is None


def test_a_server_that_refuses_is_neither(server: ScriptedServer) -> None:
    server.answers(Scripted({}, 401))
    with pytest.raises(ApiError):
        with_client(server, policies_of)


def test_the_first_model_or_the_named_one(server: ScriptedServer) -> None:
    server.answers(Scripted({"object": "list", "data": [{"id": "one"}, {"id": "two"}]}))
    for name, found in ((None, "one"), ("two", "two")):
        assert with_client(server, partial(model_of, name=name, flag="--model")).id == found
    with pytest.raises(CommandError, match="--model three: the server's models are one, two"):
        with_client(server, partial(model_of, name="three", flag="--model"))


def test_a_server_that_lists_no_models_may_have_the_named_one(server: ScriptedServer) -> None:
    server.answers(Scripted({}, 404))
    assert with_client(server, partial(model_of, name="two", flag="--model")).id == "two"
    with pytest.raises(ApiError):
        with_client(server, partial(model_of, name=None, flag="--model"))


def test_policies_that_the_server_runs_are_taken() -> None:
    inline = {"rules": [{"action": "skip_ffn", "layers": [2]}]}
    check_choices([PolicyChoice("full", "full"), PolicyChoice("inline-1", inline)], LISTED, "-p")
    check_choices([], LISTED, "-p")


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        (PolicyChoice("ful", "ful"), "no skip policy 'ful'; the nearest are full"),
        (PolicyChoice("shortv-7b", "shortv-7b"), "-p: shortv-7b does not fit the server's model"),
        (PolicyChoice("inline-1", {"rulez": []}), "-p.*rulez"),
    ],
)
def test_others_are_refused_by_name(choice: PolicyChoice, told: str) -> None:
    with pytest.raises((CommandError, PolicyError), match=told):
        check_choices([choice], LISTED, "-p")


def test_a_server_without_policies_takes_none() -> None:
    with pytest.raises(CommandError, match="-p full: the server lists no skip policies"):
        check_choices([PolicyChoice("full", "full")], None, "-p")
    check_choices([], None, "-p")


@pytest.mark.parametrize("given", ["auto", {"auto": {"min_quality": 0.9}}])
def test_what_a_server_chooses_by_itself_stands_in_no_list(given: str | dict[str, object]) -> None:
    check_choices([PolicyChoice("auto", given)], LISTED, "-p")

    with pytest.raises(CommandError, match="the server lists no skip policies"):
        check_choices([PolicyChoice("auto", given)], None, "-p")
